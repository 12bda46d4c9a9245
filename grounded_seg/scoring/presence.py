"""Presence figures: does the model know when nothing is there? As SAM 3's evaluation defines them.

The unit is a question: one image and one class that it was asked about. A question is positive if the image has such
an object, and answered yes if a prediction reaches the threshold. From facebookresearch/sam3, `sam3/eval/cgf1_eval.py`
(SAM 3: Segment Anything with Concepts, arXiv 2511.16719): IL_FPR and IL_MCC judge the yes or no, pmF1 the objects of
positive questions, and cgF1 is their product. The original adds 1e-4 or 1e-6 to each denominator; this doesn't, so its
figures are smaller by up to some 1e-4, and ours are exactly 0 and 1 where everything is wrong or right.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from grounded_seg.scoring.columns import Flags, Floats, Indices, ScoredShapes, overlaps
from grounded_seg.scoring.matching import AT_50, IOU_THRESHOLDS


@dataclass(frozen=True)
class PresenceSummary:
    """Presence figures, as fractions (SAM 3's papers print cgF1 times 100); None where nothing could be measured."""

    n_positive: int
    """Questions about something that is there."""
    n_negative: int
    IL_recall: float | None
    """Share of the positive questions that were answered yes."""
    IL_FPR: float | None
    """Share of the negative questions that were answered yes."""
    IL_MCC: float | None
    """Matthews correlation of yes and no with the truth, in [-1, 1]; 0 where all answers are alike."""
    pmF1: float | None  # noqa: N815  (the field's name for it)
    """F1 over all objects of positive questions, the mean over IoU thresholds .50 to .95."""
    cgF1: float | None  # noqa: N815  (the field's name for it)
    """Mean over the thresholds of pmF1 times IL_MCC."""
    cgF1_50: float | None  # noqa: N815  (the field's name for it)
    """The same at IoU .5 only."""


@dataclass(frozen=True, eq=False)
class PresenceTallies:
    """Counts of each question; q questions, by index of image and class.

    A data set of 20,000 images and 1,200 classes has 24 million of them, so that nothing here is kept twice.
    """

    image: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    n_truths: npt.NDArray[np.int32]
    n_answers: npt.NDArray[np.int32]
    """Predictions that reach the threshold."""
    right_rows: Indices
    """The questions with a prediction that is right at any threshold, (k,), ascending."""
    right: npt.NDArray[np.int32]
    """Their predictions that are assigned to an object at each IoU threshold, (k, 10)."""

    @property
    def n_right(self) -> npt.NDArray[np.int64]:
        """The same of all questions, (q, 10)."""
        n_right = np.zeros((len(self.image), len(IOU_THRESHOLDS)), dtype=np.int64)
        n_right[self.right_rows] = self.right
        return n_right

    @classmethod
    def from_columns(cls, n_right: npt.NDArray[Any], **columns: npt.NDArray[Any]) -> "PresenceTallies":
        """Tallies of `n_right` of all questions, (q, 10), and the other columns."""
        rows = np.flatnonzero(n_right.any(axis=1))
        narrow = {name: column.astype(np.int32) for name, column in columns.items()}
        return cls(**narrow, right_rows=rows, right=n_right[rows].astype(np.int32))


@dataclass(frozen=True, eq=False)
class PresenceCounts:
    """Questions counted by group: by image or by class, (g,)."""

    true_yes: Floats
    """About something that is there, answered yes."""
    false_yes: Floats
    true_no: Floats
    false_no: Floats
    n_shapes: Floats
    """Objects and predictions of positive questions."""
    n_right: Floats
    """Right predictions at each IoU threshold, (g, 10)."""

    def of_group(self, group: int) -> "PresenceCounts":
        """The counts of one group alone."""
        return PresenceCounts(**{name: column[group : group + 1] for name, column in vars(self).items()})


def presence_tallies(
    truths: ScoredShapes, predictions: ScoredShapes, score_threshold: float, asked: Indices | None = None
) -> PresenceTallies:
    """Counts of each question, computed on arrays but for questions with both objects and answers.

    Predictions and objects are assigned to each other so that the sum of IoUs is largest, as in the original. A
    question whose only objects are crowds has no clear answer and is left out; crowds beside single objects count for
    nothing. Predictions below the threshold are no answers.

    `asked` holds indices of image and class of each question, (q, 2); None is every class on every image.
    """
    index = truths.index
    # A question's number is its image's index times the number of classes plus its class's index.
    questions = np.arange(index.n_images * index.n_classes)
    if asked is not None:
        questions = np.unique(asked[:, 0] * index.n_classes + asked[:, 1])
    objects = _ByQuestion(truths, np.flatnonzero(~truths.is_crowd), questions)
    crowds = _ByQuestion(truths, np.flatnonzero(truths.is_crowd), questions)
    is_clear = (crowds.counts == 0) | (objects.counts > 0)
    if not is_clear.all():
        questions = questions[is_clear]
        objects = _ByQuestion(truths, np.flatnonzero(~truths.is_crowd), questions)
    answers = _ByQuestion(predictions, np.flatnonzero(predictions.score >= score_threshold), questions)
    rows, right = [], []
    for row in np.flatnonzero((objects.counts > 0) & (answers.counts > 0)).tolist():
        ious = overlaps(predictions, answers.at(row), truths, objects.at(row))
        assigned = ious[linear_sum_assignment(ious, maximize=True)]
        n_right = (assigned[:, None] >= IOU_THRESHOLDS).sum(axis=0)
        if n_right.any():
            rows.append(row)
            right.append(n_right)
    n_classes = max(1, index.n_classes)
    return PresenceTallies(
        image=(questions // n_classes).astype(np.int32),
        category=(questions % n_classes).astype(np.int32),
        n_truths=objects.counts,
        n_answers=answers.counts,
        right_rows=np.array(rows, dtype=np.int64),
        right=np.array(right, dtype=np.int32).reshape(-1, len(IOU_THRESHOLDS)),
    )


def presence_summary(counts: PresenceCounts, weights: Floats | None = None) -> PresenceSummary:
    """Figures of all groups together; `weights` (g,) say how often each group counts."""
    weight = np.ones(len(counts.n_shapes)) if weights is None else weights
    # Sums of whole numbers: exact in any order.
    columns = (counts.true_yes, counts.false_yes, counts.true_no, counts.false_no)
    true_yes, false_yes, true_no, false_no = (float((weight * column).sum()) for column in columns)
    n_positive, n_negative = true_yes + false_no, false_yes + true_no
    mcc = f1 = None
    if n_positive and n_negative:
        of_answers = (true_yes + false_yes) * (true_no + false_no)
        agreement = true_yes * true_no - false_yes * false_no
        mcc = agreement / np.sqrt(of_answers * n_positive * n_negative) if of_answers else 0.0
    if n_positive:
        f1 = 2 * (weight[:, None] * counts.n_right).sum(axis=0) / (weight * counts.n_shapes).sum()
    return PresenceSummary(
        n_positive=round(n_positive),
        n_negative=round(n_negative),
        IL_recall=true_yes / n_positive if n_positive else None,
        IL_FPR=false_yes / n_negative if n_negative else None,
        IL_MCC=None if mcc is None else float(mcc),
        pmF1=None if f1 is None else float(f1.mean()),
        cgF1=None if f1 is None or mcc is None else float(f1.mean() * mcc),
        cgF1_50=None if f1 is None or mcc is None else float(f1[AT_50] * mcc),
    )


class _ByQuestion:
    """Some of the shapes, grouped by the question that they belong to."""

    def __init__(self, shapes: ScoredShapes, chosen: npt.NDArray[np.intp], questions: Indices) -> None:
        numbers = shapes.image[chosen] * shapes.index.n_classes + shapes.category[chosen]
        rows = np.searchsorted(questions, numbers)
        was_asked = rows < len(questions)
        was_asked[was_asked] = questions[rows[was_asked]] == numbers[was_asked]
        order = np.argsort(rows[was_asked], kind="stable")
        self._rows, self._shapes = rows[was_asked][order], chosen[was_asked][order]
        self.counts = np.zeros(len(questions), dtype=np.int32)
        np.add.at(self.counts, self._rows, 1)

    def at(self, row: int) -> Indices:
        """Indices of a question's shapes, in their order."""
        start, end = np.searchsorted(self._rows, [row, row + 1])
        return self._shapes[start:end]


def presence_counts(tallies: PresenceTallies, groups: npt.NDArray[np.int32], n_groups: int) -> PresenceCounts:
    """Count the questions by group, (q,): the index of their image or class."""
    is_there, is_yes = tallies.n_truths > 0, tallies.n_answers > 0

    def count(chosen: Flags, weights: npt.NDArray[np.int32] | None = None) -> Floats:
        return np.bincount(groups[chosen], weights, n_groups).astype(np.float64)

    n_right = np.zeros((n_groups, len(IOU_THRESHOLDS)))
    np.add.at(n_right, groups[tallies.right_rows], tallies.right)
    return PresenceCounts(
        true_yes=count(is_there & is_yes),
        false_yes=count(~is_there & is_yes),
        true_no=count(~is_there & ~is_yes),
        false_no=count(is_there & ~is_yes),
        n_shapes=count(is_there, (tallies.n_truths + tallies.n_answers)[is_there]),
        n_right=n_right,
    )
