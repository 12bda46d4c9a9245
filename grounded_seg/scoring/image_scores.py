"""One number per image, to sort images by: F1 of what is found at IoU .5 with the scores that a user would see."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches


@dataclass(frozen=True, eq=False)
class ImageScores:
    """What was found on each image, crowds left aside."""

    n_right: npt.NDArray[np.int64]
    """Objects found, (n images,)."""
    n_wrong: npt.NDArray[np.int64]
    """Predictions that are none, (n images,)."""
    n_missed: npt.NDArray[np.int64]
    """Objects not found, (n images,)."""

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """2 right / (2 right + wrong + missed), (n images,); 1 where nothing is there and nothing was found."""
        total = 2 * self.n_right + self.n_wrong + self.n_missed
        return np.where(total > 0, 2 * self.n_right / np.maximum(total, 1), 1.0)


def image_scores(matches: Matches, score_threshold: float) -> ImageScores:
    """Count per image, with the predictions that reach the threshold."""
    n_images = matches.index.n_images
    judged = ~matches.ignored[:, ALL_SIZES, AT_50] & (matches.score >= score_threshold)
    is_right = matches.matched[:, ALL_SIZES, AT_50]
    n_right = np.bincount(matches.image[judged & is_right], minlength=n_images)
    n_wrong = np.bincount(matches.image[judged & ~is_right], minlength=n_images)
    n_truths = np.bincount(matches.truth_image[matches.truth_counts[:, ALL_SIZES]], minlength=n_images)
    return ImageScores(n_right, n_wrong, n_truths - n_right)
