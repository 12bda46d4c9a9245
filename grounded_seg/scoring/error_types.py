"""Kinds of error: why predictions are wrong and objects missed, and what each kind costs.

The kinds, and their order of precedence, are TIDE's (Bolya et al., arXiv 2008.08115; `tidecv/quantify.py`), at IoU .5
for right and .1 for background. The cost of a kind is the AP50 gained by mending it alone; a prediction that is mended
takes the object that it had nearly found, and of several for one object the best is mended and the rest removed. What
counts as right is COCO's own matching, so the AP50 that it starts from is COCO's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from grounded_seg.scoring.average_precision import interpolated_precision, mean_of
from grounded_seg.scoring.columns import Flags, Floats, Indices, ScoredShapes, overlaps
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches

FOREGROUND_IOU = 0.5
BACKGROUND_IOU = 0.1


class ErrorKind(StrEnum):
    """What is wrong."""

    CLASS = "class"
    """In the right place, of the wrong class."""
    LOCALISATION = "localisation"
    """Of the right class, IoU from .1 to .5."""
    BOTH = "both"
    """Of the wrong class, and not well placed either."""
    DUPLICATE = "duplicate"
    """On an object that a better prediction has found."""
    BACKGROUND = "background"
    """On nothing: IoU at most .1 with any object."""
    MISSED = "missed"
    """An object that no prediction found, not even nearly."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The error of each prediction, (n,) in the order of the matches, and object, (m,)."""

    kind: tuple[ErrorKind | None, ...]
    """None where the prediction is right or ignored."""
    truth: Indices
    """The object that a class or localisation error nearly found; -1 for the other kinds."""
    is_missed: Flags


@dataclass(frozen=True)
class ErrorCost:
    """How often a kind of error happens, and the AP50 gained by mending it alone; None without ground truth."""

    n: int
    AP50_cost: float | None


@dataclass(frozen=True)
class ErrorSummary:
    """AP50 as it is, and what each kind of error takes from it. The costs don't add up to the whole loss."""

    AP50: float | None
    per_kind: Mapping[ErrorKind, ErrorCost]
    AP50_all_mended: float | None


def errors_of(truths: ScoredShapes, predictions: ScoredShapes, matches: Matches) -> Errors:
    """What is wrong with each matched prediction, and which objects were missed."""
    to_find = np.flatnonzero(~truths.is_crowd)
    is_wrong = ~matches.matched[:, ALL_SIZES, AT_50] & ~matches.ignored[:, ALL_SIZES, AT_50]
    kinds: list[ErrorKind | None] = [None] * len(matches.prediction)
    nearly = np.full(len(matches.prediction), -1, dtype=np.int64)
    objects_by_image = _grouped(truths.image[to_find], to_find)
    nothing = np.zeros(0, dtype=np.int64)
    for image, rows in _grouped(matches.image[is_wrong], np.flatnonzero(is_wrong)).items():
        objects = objects_by_image.get(image, nothing)
        ious = overlaps(predictions, matches.prediction[rows], truths, objects)
        same_class = matches.category[rows][:, None] == truths.category[objects]
        for row, iou, same in zip(rows.tolist(), ious, same_class, strict=True):
            kinds[row], nearest = _kind_of(iou, same)
            if nearest is not None:
                nearly[row] = objects[nearest]
    usable = np.zeros(len(truths), dtype=np.bool_)
    usable[nearly[nearly >= 0]] = True
    return Errors(kind=tuple(kinds), truth=nearly, is_missed=~truths.is_crowd & ~matches.is_found & ~usable)


def _kind_of(iou: Floats, same: Flags) -> tuple[ErrorKind, int | None]:
    """Judge a wrong prediction by its overlap with its image's objects, and give the one that it nearly found."""
    of_class, of_others = np.where(same, iou, 0.0), np.where(same, 0.0, iou)
    best_of_class, best_of_others = of_class.max(initial=0.0), of_others.max(initial=0.0)
    if BACKGROUND_IOU <= best_of_class < FOREGROUND_IOU:
        return ErrorKind.LOCALISATION, int(of_class.argmax())
    if best_of_others >= FOREGROUND_IOU:
        return ErrorKind.CLASS, int(of_others.argmax())
    if best_of_class >= FOREGROUND_IOU:
        return ErrorKind.DUPLICATE, None
    if best_of_others <= BACKGROUND_IOU:
        return ErrorKind.BACKGROUND, None
    return ErrorKind.BOTH, None


def error_summary(errors: Errors, matches: Matches) -> ErrorSummary:
    """How often each kind of error happens, and what it costs."""

    def after_mending(*kinds: ErrorKind) -> float:
        after = _ap50_without(frozenset(kinds), errors, matches)
        # A missed object is taken out of the truth, as TIDE does it. With none left, all were missed, and now none is.
        return 1.0 if after is None else after

    before = _ap50_without(frozenset(), errors, matches)
    per_kind = {}
    for kind in ErrorKind:
        n = int(errors.is_missed.sum()) if kind is ErrorKind.MISSED else errors.kind.count(kind)
        # Mending can change which predictions stand in the curve's steps, and AP50 fall by that: it costs nothing then.
        cost = None if before is None else max(0.0, after_mending(kind) - before)
        per_kind[kind] = ErrorCost(n, cost)
    return ErrorSummary(before, per_kind, AP50_all_mended=None if before is None else after_mending(*ErrorKind))


def _ap50_without(kinds: frozenset[ErrorKind], errors: Errors, matches: Matches) -> float | None:
    """AP50 of the predictions as they would be without these kinds of error, the mean over classes with objects."""
    found = set(matches.truth[matches.truth >= 0].tolist())
    is_right = matches.matched[:, ALL_SIZES, AT_50] & ~matches.ignored[:, ALL_SIZES, AT_50]
    kept = ~matches.ignored[:, ALL_SIZES, AT_50]
    category = matches.category.copy()
    # From the best score down: of several that nearly found an object, the best one is mended. Which kind it is
    # doesn't matter here: an object is given away once, whatever is mended, so that the costs stay comparable.
    for row in np.argsort(-matches.score, kind="stable").tolist():
        kind, truth = errors.kind[row], int(errors.truth[row])
        is_best = truth >= 0 and truth not in found
        found.add(truth)
        if kind not in kinds:
            continue
        if is_best:
            is_right[row] = True
            category[row] = matches.truth_category[truth]
        else:
            kept[row] = False
    counts = matches.truth_counts[:, ALL_SIZES]
    if ErrorKind.MISSED in kinds:
        counts = counts & ~errors.is_missed
    n_truths = np.bincount(matches.truth_category[counts], minlength=matches.index.n_classes)
    order = np.lexsort((-matches.score[kept], category[kept]))
    category, hits = category[kept][order], is_right[kept][order].astype(np.float64)[:, None]
    per_class = []
    for number in np.flatnonzero(n_truths).tolist():
        its = slice(*np.searchsorted(category, [number, number + 1]))
        per_class.append(interpolated_precision(hits[its], 1 - hits[its], float(n_truths[number])).mean())
    return mean_of(np.array(per_class, dtype=np.float64))


def _grouped(keys: Indices, indices: npt.NDArray[np.intp]) -> dict[int, Indices]:
    """Group indices by key."""
    order = np.argsort(keys, kind="stable")
    values, starts = np.unique(keys[order], return_index=True)
    return dict(zip(values.tolist(), np.split(indices[order], starts[1:]), strict=True)) if len(values) else {}
