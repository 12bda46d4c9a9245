"""COCO's detection metrics: precision and recall from matches, and the twelve figures that pycocotools prints.

The numbers are those of `COCOeval`, which the tests hold to 1e-12, with a weight per image: with the counts of a
bootstrap resample they are those of its images, without matching anything again. What pycocotools gets wrong is right
here: it takes an id of 0 for "no match", stops at an empty list of predictions, and measures a mask by its box where a
prediction has both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import Kind
from grounded_seg.scoring.columns import Floats, predictions_from, truths_from
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, AT_75, IOU_THRESHOLDS, Matches, match

RECALL_THRESHOLDS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS_FOR_RECALL = (1, 10, 100)
FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)
"""COCO's twelve, in the order of `COCOeval.summarize`."""


@dataclass(frozen=True)
class SizeRanges:
    """Where small objects end and large ones begin, by area. The borders belong to both sides, as in COCOeval."""

    small_up_to: float = 32.0**2
    large_from: float = 96.0**2
    relative: bool = False
    """Areas are shares of the image's area, in [0, 1], instead of square pixels."""

    def as_array(self) -> Floats:
        """Smallest and largest area of all, small, medium and large objects, (4, 2)."""
        edges = [0.0, self.small_up_to, self.large_from, 1e5**2]
        return np.array([[edges[0], edges[-1]], *pairwise(edges)])


@dataclass(frozen=True)
class ClassSummary:
    """The figures of one class, as fractions; None where it has no ground truth."""

    category_id: int
    name: str
    AP: float | None
    AP50: float | None


@dataclass(frozen=True)
class EvaluationSummary:
    """COCO's twelve figures, as fractions; None where there is no ground truth to measure on."""

    AP: float | None
    """Average precision, the mean over IoU thresholds .50, .55, ... .95, at most 100 detections an image and class."""
    AP50: float | None
    AP75: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AR1: float | None
    """Average recall over the same thresholds, with the best detection of each image and class only."""
    AR10: float | None
    AR100: float | None
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None
    per_class: tuple[ClassSummary, ...]


@dataclass(frozen=True, eq=False)
class PrecisionRecall:
    """COCOeval's tables, nan where there is no ground truth. K classes, A size ranges, T IoU thresholds."""

    precision: Floats
    """At the 101 recall thresholds, (K, A, T, 101)."""
    recall: Floats
    """With the best 1, 10 and 100 predictions of each image, (K, A, T, 3)."""


def evaluate(
    data_set: DataSet, predictions: Sequence[Prediction], kind: Kind, size_ranges: SizeRanges | None = None
) -> EvaluationSummary:
    """Measure predictions, of which there may be none, against a data set; sizes are split as COCO does by default.

    Predictions of classes that the data set lacks are ignored and, for masks, those without one.
    """
    ranges = size_ranges or SizeRanges()
    truths = truths_from(data_set, kind, relative=ranges.relative)
    predicted = predictions_from(predictions, data_set, kind, relative=ranges.relative)
    matches = match(truths, predicted, ranges.as_array())
    return summary_of(matches, precision_recall(matches))


def summary_of(matches: Matches, tables: PrecisionRecall) -> EvaluationSummary:
    """Figures of these matches and their tables."""
    per_class = zip(matches.index.category_ids, matches.index.names, tables.precision[:, ALL_SIZES], strict=True)
    return EvaluationSummary(
        **twelve_figures(tables),
        per_class=tuple(
            ClassSummary(category_id, name, AP=mean_of(precision), AP50=mean_of(precision[AT_50]))
            for category_id, name, precision in per_class
        ),
    )


def precision_recall(matches: Matches, image_weights: Floats | None = None) -> PrecisionRecall:
    """Compute precision at each recall, and recall; `image_weights` (n images,) says how often each image counts."""
    weights = np.ones(matches.index.n_images) if image_weights is None else image_weights
    n_truths = np.zeros((matches.index.n_classes, matches.truth_counts.shape[1]))
    np.add.at(n_truths, matches.truth_category, matches.truth_counts * weights[matches.truth_image][:, None])
    precision = np.full((*n_truths.shape, len(IOU_THRESHOLDS), len(RECALL_THRESHOLDS)), np.nan)
    recall = np.full((*n_truths.shape, len(IOU_THRESHOLDS), len(MAX_DETECTIONS_FOR_RECALL)), np.nan)
    for category in range(len(n_truths)):
        rows = matches.rows_of(category)
        weight = weights[matches.image[rows]][:, None, None]
        counts = ~matches.ignored[rows]
        hits = weight * (matches.matched[rows] & counts)
        misses = weight * (~matches.matched[rows] & counts)
        rank = matches.rank[rows]
        for size in np.flatnonzero(n_truths[category] > 0):
            total = n_truths[category, size]
            for number, limit in enumerate(MAX_DETECTIONS_FOR_RECALL):
                recall[category, size, :, number] = hits[rank < limit, size].sum(axis=0) / total
            precision[category, size] = interpolated_precision(hits[:, size], misses[:, size], total)
    return PrecisionRecall(precision, recall)


def interpolated_precision(hits: Floats, misses: Floats, n_truths: float) -> Floats:
    """Compute the best precision at or beyond each recall threshold, (T, 101).

    Given are the weights of each prediction that is right and of each that is wrong, from high to low score, (n, T),
    and of all objects, above 0. A hit, a miss and a hit on three objects: 1 up to recall 1/3, 2/3 up to 2/3, then 0.
    """
    n_hit, n_missed = hits.cumsum(axis=0), misses.cumsum(axis=0)
    # The spacing is COCOeval's guard against 0 / 0.
    precision = n_hit / (n_missed + n_hit + np.spacing(1))
    envelope = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.vstack([envelope, np.zeros((1, hits.shape[1]))])
    recall = n_hit / n_truths
    columns = zip(recall.T, reached.T, strict=True)
    return np.stack([column[np.searchsorted(its_recall, RECALL_THRESHOLDS)] for its_recall, column in columns])


def twelve_figures(tables: PrecisionRecall) -> dict[str, float | None]:
    """Average the tables to COCO's twelve figures, fractions; None where there is no ground truth."""
    precision, recall = tables.precision, tables.recall
    parts = (
        *(precision[:, 0], precision[:, 0, AT_50], precision[:, 0, AT_75]),
        *(precision[:, size] for size in (1, 2, 3)),
        *(recall[:, 0, :, number] for number in range(3)),
        *(recall[:, size, :, 2] for size in (1, 2, 3)),
    )
    return dict(zip(FIGURES, map(mean_of, parts), strict=True))


def mean_of(figures: Floats) -> float | None:
    """Average what was measured; None where nothing was."""
    measured = figures[~np.isnan(figures)]
    return float(measured.mean()) if measured.size else None
