"""Matches of predictions with objects, at every IoU threshold and size range at once.

The rules are those of `COCOeval.evaluateImg` (pycocotools), to the last tie: per image and class, from the best score
down, a prediction takes the free object that it overlaps most, objects that count before ignored ones (crowds, other
sizes). Equal probabilities go by the detector's own score. Only pairs of image and class that hold both are gone
through.
"""

from dataclasses import dataclass

import numpy as np

from grounded_seg.scoring.columns import Flags, Floats, Index, Indices, ScoredShapes, overlaps

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""From .50 to .95, bit for bit those of COCOeval."""
MAX_DETECTIONS = 100
"""Predictions of an image and class that count, the best by score."""
AT_50, AT_75 = 0, 5
"""Indices of two of the thresholds."""
ALL_SIZES = 0
"""Index of the size range that holds everything."""


@dataclass(frozen=True, eq=False)
class Matches:
    """Predictions by class and from high to low score (ties: by image), and the objects they were matched with.

    n predictions, m objects, A size ranges, T IoU thresholds; columns are (n,), those that begin with truth_ (m,).
    """

    index: Index
    prediction: Indices
    """Index in the list that was matched; beyond 100 of an image and class there are none."""
    image: Indices
    category: Indices
    """Ascending."""
    score: Floats
    rank: Indices
    """Among the predictions of the same image and class, from 0."""
    matched: Flags
    """(n, A, T)"""
    ignored: Flags
    """Neither right nor wrong: on a crowd, or of another size, (n, A, T)."""
    truth: Indices
    """Index of the object at IoU .5 and all sizes; -1 for none."""
    truth_image: Indices
    truth_category: Indices
    truth_counts: Flags
    """The object is to be found in that size range, (m, A)."""

    @property
    def is_found(self) -> Flags:
        """Which objects are matched at IoU .5 and all sizes, (m,)."""
        found = np.zeros(len(self.truth_image), dtype=np.bool_)
        found[self.truth[self.truth >= 0]] = True
        return found

    def rows_of(self, category: int) -> slice:
        """Rows of a class's predictions."""
        start, end = np.searchsorted(self.category, [category, category + 1])
        return slice(int(start), int(end))


def match(truths: ScoredShapes, predictions: ScoredShapes, size_ranges: Floats) -> Matches:
    """Match predictions with objects of their own image and class, for each size range.

    The ranges are smallest and largest area, (A, 2), both within; the first has to hold everything.
    """
    order, ranks = _ranked(predictions)
    matched = np.zeros((len(order), len(size_ranges), len(IOU_THRESHOLDS)), dtype=np.bool_)
    on_ignored = np.zeros_like(matched)
    truth = np.full(len(order), -1, dtype=np.int64)
    truth_counts = ~truths.is_crowd[:, None] & ~_outside(truths.area, size_ranges)
    for rows, objects in _pairs_with_both(predictions, truths, order):
        ious = overlaps(predictions, order[rows], truths, objects)
        matched[rows], on_ignored[rows], its = _match_pair(ious, truths.is_crowd[objects], truth_counts[objects])
        truth[rows] = np.where(its >= 0, objects[its], -1)
    # A prediction of another size that found nothing isn't wrong for this one.
    ignored = on_ignored | (~matched & _outside(predictions.area[order], size_ranges)[:, :, None])
    by_score = np.lexsort((*(key[order] for key in predictions.falling), predictions.category[order]))
    chosen = order[by_score]
    return Matches(
        index=truths.index,
        prediction=chosen,
        image=predictions.image[chosen],
        category=predictions.category[chosen],
        score=predictions.score[chosen],
        rank=ranks[by_score],
        matched=matched[by_score],
        ignored=ignored[by_score],
        truth=truth[by_score],
        truth_image=truths.image,
        truth_category=truths.category,
        truth_counts=truth_counts,
    )


def _outside(areas: Floats, size_ranges: Floats) -> Flags:
    """Tell which areas lie beyond which ranges, (n, A)."""
    return np.asarray((areas[:, None] < size_ranges[:, 0]) | (areas[:, None] > size_ranges[:, 1]))


def _ranked(predictions: ScoredShapes) -> tuple[Indices, Indices]:
    """Order predictions by class, image and falling score, the best 100 of each pair; with their ranks in it."""
    order = np.lexsort((*predictions.falling, predictions.image, predictions.category))
    pair = predictions.category[order] * max(1, predictions.index.n_images) + predictions.image[order]
    is_first = np.ones(len(order), dtype=np.bool_)
    is_first[1:] = pair[1:] != pair[:-1]
    starts = np.flatnonzero(is_first)
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    kept = ranks < MAX_DETECTIONS
    return order[kept], ranks[kept]


def _pairs_with_both(predictions: ScoredShapes, truths: ScoredShapes, order: Indices) -> list[tuple[slice, Indices]]:
    """List the rows of `order` and the objects of each image and class that has some of each."""
    width = max(1, truths.index.n_images)
    predicted_pairs = predictions.category[order] * width + predictions.image[order]
    truth_pairs = truths.category * width + truths.image
    truth_order = np.argsort(truth_pairs, kind="stable")
    both = np.intersect1d(predicted_pairs, truth_pairs)
    starts, ends = (np.searchsorted(predicted_pairs, both, side) for side in ("left", "right"))
    firsts, lasts = (np.searchsorted(truth_pairs[truth_order], both, side) for side in ("left", "right"))
    return [
        (slice(int(start), int(end)), truth_order[first:last])
        for start, end, first, last in zip(starts, ends, firsts, lasts, strict=True)
    ]


def _match_pair(ious: Floats, is_crowd: Flags, truth_counts: Flags) -> tuple[Flags, Flags, Indices]:
    """Match the k predictions, from high to low score, and g objects of one image and class.

    From their overlaps (k, g) and what the objects are, (g,) and (g, A), to which predictions are matched, and which
    with an ignored object, (k, A, T), and with which object at IoU .5, (k,), -1 for none.
    """
    n_sizes = truth_counts.shape[1]
    matched = np.zeros((len(ious), n_sizes, len(IOU_THRESHOLDS)), dtype=np.bool_)
    on_ignored = np.zeros_like(matched)
    truth = np.full(len(ious), -1, dtype=np.int64)
    # COCOeval compares with a threshold that is never quite 1.
    thresholds = np.minimum(IOU_THRESHOLDS, 1 - 1e-10)
    free = np.ones((n_sizes, len(thresholds), ious.shape[1]), dtype=np.bool_)
    counts = truth_counts.T[:, None, :]
    sizes, thresholds_at = np.indices(free.shape[:2])
    for row in np.flatnonzero(ious.max(axis=1) >= thresholds[0]):
        fits = (free | is_crowd) & (ious[row] >= thresholds[:, None])
        counting = fits & counts
        has_counting = counting.any(axis=2)
        candidates = np.where(has_counting[:, :, None], counting, fits)
        # Of equal overlaps the last one wins, as in COCOeval's loop.
        overlap = np.where(candidates, ious[row], -1.0)[:, :, ::-1]
        best = ious.shape[1] - 1 - overlap.argmax(axis=2)
        found = candidates.any(axis=2)
        free[sizes[found], thresholds_at[found], best[found]] = False
        matched[row] = found
        on_ignored[row] = found & ~has_counting
        if found[ALL_SIZES, AT_50]:
            truth[row] = best[ALL_SIZES, AT_50]
    return matched, on_ignored, truth


@dataclass(frozen=True, eq=False)
class ImageScores:
    """Objects found, predictions of none and objects missed on each image at IoU .5, (n images,); crowds left aside."""

    n_right: Indices
    n_wrong: Indices
    n_missed: Indices

    @property
    def f1(self) -> Floats:
        """2 right / (2 right + wrong + missed), to sort images by; 1 where nothing is there and nothing was found."""
        total = 2 * self.n_right + self.n_wrong + self.n_missed
        return np.where(total > 0, 2 * self.n_right / np.maximum(total, 1), 1.0)


def image_scores(matches: Matches, score_threshold: float) -> ImageScores:
    """What was found on each image, by predictions that reach the threshold."""
    n_images = matches.index.n_images
    judged = ~matches.ignored[:, ALL_SIZES, AT_50] & (matches.score >= score_threshold)
    is_right = matches.matched[:, ALL_SIZES, AT_50]
    n_right = np.bincount(matches.image[judged & is_right], minlength=n_images)
    n_wrong = np.bincount(matches.image[judged & ~is_right], minlength=n_images)
    n_truths = np.bincount(matches.truth_image[matches.truth_counts[:, ALL_SIZES]], minlength=n_images)
    return ImageScores(n_right, n_wrong, n_truths - n_right)
