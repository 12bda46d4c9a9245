"""Does the model know when nothing is there? Presence figures as SAM 3's evaluation defines them.

The unit is a question: one image and one class that it was asked about. A question is positive if the image has such
an object, and answered yes if a prediction reaches the threshold. From facebookresearch/sam3, `sam3/eval/cgf1_eval.py`
(SAM 3: Segment Anything with Concepts, arXiv 2511.16719): IL_FPR and IL_MCC judge the yes or no, pmF1 the objects of
positive questions, and cgF1 is their product. The original adds 1e-4 or 1e-6 to each denominator; this doesn't, so its
figures are smaller by up to some 1e-4, and ours are exactly 0 and 1 where everything is wrong or right.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from grounded_seg.scoring.columns import Index, ScoredShapes
from grounded_seg.scoring.matching import AT_50, IOU_THRESHOLDS, overlaps


@dataclass(frozen=True)
class PresenceSummary:
    """Presence figures, as fractions (SAM 3's papers print cgF1 times 100); None where nothing could be measured."""

    n_positive: int
    """Questions about something that is there."""
    n_negative: int
    """Questions about something that isn't."""
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
    """What came of each question; q questions."""

    image: npt.NDArray[np.int64]
    """(q,)"""
    category: npt.NDArray[np.int64]
    """(q,)"""
    n_truths: npt.NDArray[np.int64]
    """Objects to be found, (q,)."""
    n_answers: npt.NDArray[np.int64]
    """Predictions that reach the threshold, (q,)."""
    n_right: npt.NDArray[np.int64]
    """Of those the ones assigned to an object at each IoU threshold, (q, 10)."""


def presence_tallies(
    truths: ScoredShapes,
    answers: ScoredShapes,
    index: Index,
    score_threshold: float,
    asked: Sequence[tuple[int, int]] | None = None,
) -> PresenceTallies:
    """Go through the questions.

    Predictions and objects are assigned to each other so that the sum of IoUs is largest, as in the original. A
    question whose only objects are crowds has no clear answer and is left out; crowds beside single objects count for
    nothing.

    Args:
        truths: The objects.
        answers: The predictions; those of questions that weren't asked are passed over.
        index: Of both.
        score_threshold: Predictions below it are no answers, in [0, 1].
        asked: Places of image and class of each question; None for every class on every image.
    """
    questions = (
        np.indices((index.n_images, index.n_classes)).reshape(2, -1).T
        if asked is None
        else np.array(sorted(set(asked)), dtype=np.int64).reshape(-1, 2)
    )
    truths_by_pair = _by_pair(truths, np.flatnonzero(~truths.is_crowd))
    crowds_by_pair = _by_pair(truths, np.flatnonzero(truths.is_crowd))
    answers_by_pair = _by_pair(answers, np.flatnonzero(answers.score >= score_threshold))
    nothing = np.zeros(0, dtype=np.int64)
    rows = []
    for pair in map(tuple, questions.tolist()):
        if pair in crowds_by_pair and pair not in truths_by_pair:
            continue
        objects, found = truths_by_pair.get(pair, nothing), answers_by_pair.get(pair, nothing)
        right = _n_right(overlaps(answers, found, truths, objects))
        rows.append([*pair, len(objects), len(found), *right.tolist()])
    table = np.array(rows, dtype=np.int64).reshape(-1, 4 + len(IOU_THRESHOLDS))
    return PresenceTallies(table[:, 0], table[:, 1], table[:, 2], table[:, 3], table[:, 4:])


def presence_summary(
    tallies: PresenceTallies, image_weights: npt.NDArray[np.float64] | None = None, category: int | None = None
) -> PresenceSummary:
    """Sum up the questions.

    Args:
        tallies: Of the questions.
        image_weights: How often each image counts, (n images,); None for once each.
        category: Only the questions about this class; None for all.
    """
    weight = np.ones(len(tallies.image)) if image_weights is None else image_weights[tallies.image]
    if category is not None:
        weight = weight * (tallies.category == category)
    is_there, is_yes = tallies.n_truths > 0, tallies.n_answers > 0
    true_yes, false_yes, true_no, false_no = (
        float(weight[chosen].sum())
        for chosen in (is_there & is_yes, ~is_there & is_yes, ~is_there & ~is_yes, is_there & ~is_yes)
    )
    n_positive, n_negative = true_yes + false_no, false_yes + true_no
    mcc = None
    if n_positive and n_negative:
        of_answers = (true_yes + false_yes) * (true_no + false_no)
        agreement = true_yes * true_no - false_yes * false_no
        mcc = agreement / np.sqrt(of_answers * n_positive * n_negative) if of_answers else 0.0
    f1 = _f1(tallies, weight * is_there) if n_positive else None
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


def _f1(tallies: PresenceTallies, weight: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """F1 over all objects and predictions of the weighted questions, (10,)."""
    n_right = (weight[:, None] * tallies.n_right).sum(axis=0)
    n_in_all = (weight * (tallies.n_truths + tallies.n_answers)).sum()
    return np.asarray(2 * n_right / n_in_all)


def _n_right(ious: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Count the assigned pairs that reach each IoU threshold, (10,)."""
    if not ious.size:
        return np.zeros(len(IOU_THRESHOLDS), dtype=np.int64)
    assigned = ious[linear_sum_assignment(ious, maximize=True)]
    return np.asarray((assigned[:, None] >= IOU_THRESHOLDS).sum(axis=0))


def _by_pair(shapes: ScoredShapes, chosen: npt.NDArray[np.intp]) -> dict[tuple[int, ...], npt.NDArray[np.int64]]:
    """Group places by image and class."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for place in chosen.tolist():
        groups.setdefault((int(shapes.image[place]), int(shapes.category[place])), []).append(place)
    return {pair: np.array(places, dtype=np.int64) for pair, places in groups.items()}
