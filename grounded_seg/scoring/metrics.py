"""COCO's detection metrics, as a record.

The numbers are those that pycocotools' `COCOeval` prints, computed from `matching` and `average_precision`, which the
tests hold against it to 1e-12. Around it stand the checks that it lacks: it takes an id of 0 for "no match", stops at
an empty list of predictions, measures a mask by its box where a prediction has both, never matches a mask of another
size than the image's, and changes the dictionaries that it is given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_seg.scoring.average_precision import PrecisionRecall, mean_of, precision_recall, twelve_figures
from grounded_seg.scoring.columns import Kind, answers_from, index_of, truths_from
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches, match

__all__ = ["ClassSummary", "EvaluationSummary", "Kind", "SizeRanges", "evaluate", "summary_of"]


@dataclass(frozen=True)
class SizeRanges:
    """Where small objects end and large ones begin, by area. The borders belong to both sides, as in COCOeval."""

    small_up_to: float = 32.0**2
    large_from: float = 96.0**2
    relative: bool = False
    """Areas are shares of the image's area, in [0, 1], instead of square pixels."""

    def as_array(self) -> npt.NDArray[np.float64]:
        """Give the smallest and largest area of all, small, medium and large objects, (4, 2)."""
        everything = 1e5**2
        return np.array(
            [
                [0.0, everything],
                [0.0, self.small_up_to],
                [self.small_up_to, self.large_from],
                [self.large_from, everything],
            ]
        )


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
    """In the order of the category ids."""


def evaluate(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    kind: Kind,
    size_ranges: SizeRanges | None = None,
) -> EvaluationSummary:
    """Measure predictions against ground truth.

    Args:
        ground_truth: A COCO file: `images`, `categories`, `annotations`. It is not changed.
        predictions: COCO results: `image_id`, `category_id`, `score`, and `bbox` (for boxes) or `segmentation` (for
            masks: polygons or run lengths). Other keys are ignored, and so are categories that the ground truth lacks.
            None at all is a valid answer.
        kind: Whether boxes or masks are compared.
        size_ranges: The split by object size; None is COCO's own, 32 and 96 pixels squared.

    Raises:
        InputError: If an annotation or a prediction lacks a key, or names an image that isn't listed.
    """
    ranges = size_ranges or SizeRanges()
    index = index_of(ground_truth)
    truths = truths_from(ground_truth, index, kind, relative=ranges.relative)
    answers = answers_from(ground_truth, predictions, index, kind, relative=ranges.relative)
    matches = match(truths, answers, index, ranges.as_array())
    return summary_of(matches, precision_recall(matches))


def summary_of(matches: Matches, tables: PrecisionRecall) -> EvaluationSummary:
    """Average the tables of these matches."""
    precision = tables.precision[:, ALL_SIZES]
    return EvaluationSummary(
        **twelve_figures(tables),
        per_class=tuple(
            ClassSummary(category_id, name, AP=mean_of(precision[place]), AP50=mean_of(precision[place, AT_50]))
            for place, (category_id, name) in enumerate(
                zip(matches.index.category_ids, matches.index.names, strict=True)
            )
        ),
    )
