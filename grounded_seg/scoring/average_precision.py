"""Precision and recall from matches, as `COCOeval.accumulate` (pycocotools) computes them, with a weight per image.

With weights of 1 the figures are pycocotools' own. With the counts of a bootstrap draw they are those of the drawn
images, without matching anything again.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from grounded_seg.scoring.matching import AT_50, AT_75, IOU_THRESHOLDS, Matches

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS_FOR_RECALL = (1, 10, 100)
FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""COCO's twelve, in the order in which `COCOeval.summarize` prints them."""


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """COCOeval's tables, nan where there is no ground truth. K classes, A size ranges, T IoU thresholds."""

    precision: npt.NDArray[np.float64]
    """At the 101 recall thresholds, (K, A, T, 101)."""
    recall: npt.NDArray[np.float64]
    """With the best 1, 10 and 100 predictions of each image, (K, A, T, 3)."""


def precision_recall(matches: Matches, image_weights: npt.NDArray[np.float64] | None = None) -> PrecisionRecall:
    """Compute precision at each recall, and recall.

    Args:
        matches: Of all images.
        image_weights: How often each image counts, (n images,); None for once each.
    """
    n_classes, n_sizes, n_thresholds = matches.index.n_classes, matches.truth_counts.shape[1], len(IOU_THRESHOLDS)
    weights = np.ones(matches.index.n_images) if image_weights is None else image_weights
    n_truths = np.zeros((n_classes, n_sizes))
    np.add.at(n_truths, matches.truth_category, matches.truth_counts * weights[matches.truth_image][:, None])
    precision = np.full((n_classes, n_sizes, n_thresholds, len(RECALL_THRESHOLDS)), np.nan)
    recall = np.full((n_classes, n_sizes, n_thresholds, len(MAX_DETECTIONS_FOR_RECALL)), np.nan)
    for category in range(n_classes):
        rows = matches.rows_of(category)
        weight = weights[matches.image[rows]][:, None, None]
        counts = ~matches.ignored[rows]
        hits = weight * (matches.matched[rows] & counts)
        misses = weight * (~matches.matched[rows] & counts)
        rank = matches.rank[rows]
        for size in np.flatnonzero(n_truths[category] > 0):
            total = n_truths[category, size]
            for place, limit in enumerate(MAX_DETECTIONS_FOR_RECALL):
                recall[category, size, :, place] = hits[rank < limit, size].sum(axis=0) / total
            precision[category, size] = interpolated_precision(hits[:, size], misses[:, size], total)
    return PrecisionRecall(precision, recall)


def interpolated_precision(
    hits: npt.NDArray[np.float64], misses: npt.NDArray[np.float64], n_truths: float
) -> npt.NDArray[np.float64]:
    """Compute the best precision at or beyond each recall threshold, (T, 101).

    Args:
        hits: Weight of each prediction that is right, from high to low score, (n, T).
        misses: Weight of each that is wrong, (n, T).
        n_truths: Weight of all objects, above 0.

    A hit, a miss and a hit on three objects: 1 up to recall 1/3, 2/3 up to recall 2/3, then 0.
    """
    n_hit, n_missed = hits.cumsum(axis=0), misses.cumsum(axis=0)
    # The spacing is COCOeval's guard against 0 / 0.
    precision = n_hit / (n_missed + n_hit + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.vstack([envelope, np.zeros((1, hits.shape[1]))])
    recall = n_hit / n_truths
    return np.stack(
        [
            reached[np.searchsorted(recall[:, place], RECALL_THRESHOLDS, side="left"), place]
            for place in range(hits.shape[1])
        ]
    )


def twelve_figures(tables: PrecisionRecall) -> dict[str, float | None]:
    """Average the tables to COCO's twelve figures, fractions; None where there is no ground truth."""
    precision, recall = tables.precision, tables.recall
    values = (
        mean_of(precision[:, 0]),
        mean_of(precision[:, 0, AT_50]),
        mean_of(precision[:, 0, AT_75]),
        *(mean_of(precision[:, size]) for size in (1, 2, 3)),
        *(mean_of(recall[:, 0, :, place]) for place in range(3)),
        *(mean_of(recall[:, size, :, 2]) for size in (1, 2, 3)),
    )
    return dict(zip(FIGURES, values, strict=True))


def mean_of(figures: npt.NDArray[np.float64]) -> float | None:
    """Average what was measured; None where nothing was."""
    measured = figures[~np.isnan(figures)]
    return float(measured.mean()) if measured.size else None
