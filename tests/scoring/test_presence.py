"""Presence figures by hand, and against the formulas of SAM 3's evaluation."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from coco_cases import Box, columns, loaded, results, scored, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from grounded_seg.scoring.columns import Index, ScoredShapes
from grounded_seg.scoring.presence import (
    PresenceTallies,
    presence_counts,
    presence_summary,
    presence_tallies,
)

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def sam3(n_truths: list[int], n_answers: list[int], n_right: list[int]) -> dict[str, float]:
    """`CGF1Eval.accumulate` of sam3/eval/cgf1_eval.py at one IoU threshold, with its small numbers."""
    truths, answers, right = np.array(n_truths), np.array(n_answers), np.array(n_right)
    there, yes = truths > 0, answers > 0
    tp, fp, tn, fn = (int(one.sum()) for one in (there & yes, ~there & yes, ~there & ~yes, there & ~yes))
    hits = right[there].sum()
    precision = hits / (hits + (answers - right)[there].sum() + 1e-4)
    recall = hits / (hits + (truths - right)[there].sum() + 1e-4)
    f1 = 2 * precision * recall / (precision + recall + 1e-4)
    mcc = (tp * tn - fp * fn) / ((float(tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5 + 1e-6)
    recalled = tp / (tp + fn + 1e-6)
    return {"IL_recall": recalled, "IL_FPR": fp / (fp + tn + 1e-6), "IL_MCC": mcc, "cgF1_50": f1 * mcc}


def summary_of(document: Any, predicted: Any, threshold: float = 0.3, asked: Any = None) -> Any:
    truths, predictions = columns(document, predicted)
    tallies = presence_tallies(truths, predictions, threshold, asked)
    return presence_summary(presence_counts(tallies, tallies.image, truths.index.n_images))


def test_figures_by_hand() -> None:
    # Car is asked and is on images 1 and 2: found on 1 and, wrongly, on 3. Dog is nowhere, and said to be on 1.
    document = truth((1, 1, HERE), (2, 1, HERE), n_images=3)
    found = results((1, 1, HERE, 0.9), (3, 1, HERE, 0.9), (1, 2, FAR, 0.9))
    summary = summary_of(document, found)
    assert (summary.n_positive, summary.n_negative) == (2, 4)
    assert (summary.IL_recall, summary.IL_FPR) == (1 / 2, 2 / 4)
    # Yes: 1 right, 2 wrong; no: 2 right, 1 wrong.
    assert pytest.approx((1 * 2 - 2 * 1) / np.sqrt(3 * 2 * 4 * 3)) == summary.IL_MCC
    # Of positive questions: one object found of two, nothing wrong.
    assert summary.pmF1 == pytest.approx(2 / 3)


def test_perfect_and_empty_answers() -> None:
    document = truth((1, 1, HERE), (2, 2, FAR), n_images=2)
    perfect = summary_of(document, results((1, 1, HERE, 0.9), (2, 2, FAR, 0.9)))
    assert (perfect.IL_FPR, perfect.IL_MCC, perfect.cgF1) == (0, 1, 1)
    empty = summary_of(document, [])
    assert (empty.IL_FPR, empty.IL_MCC, empty.cgF1, empty.pmF1) == (0, 0, 0, 0)


def test_a_box_below_the_threshold_is_no_answer() -> None:
    document = truth((1, 1, HERE))
    for score, answered in ((0.29, 0), (0.3, 1)):
        assert answered == summary_of(document, results((1, 2, FAR, score))).IL_FPR
        assert summary_of(document, results((1, 1, HERE, score))).IL_recall == answered


def test_only_what_was_asked_counts() -> None:
    document = truth((1, 1, HERE), n_images=3)
    summary = summary_of(document, results((3, 2, FAR, 0.9)), asked=np.array([(0, 0), (1, 0)]))
    assert (summary.n_positive, summary.n_negative, summary.IL_FPR) == (1, 1, 0)


def test_without_absent_questions_there_is_no_rate() -> None:
    summary = summary_of(truth((1, 1, HERE)), results((1, 1, HERE, 0.9)), asked=np.array([(0, 0)]))
    assert (summary.IL_FPR, summary.IL_MCC, summary.cgF1, summary.pmF1) == (None, None, None, 1)


def test_a_question_with_crowds_only_is_left_out() -> None:
    document = truth((1, 1, HERE), classes=("car",))
    document["annotations"][0]["iscrowd"] = 1
    summary = summary_of(document, results((1, 1, HERE, 0.9)))
    assert (summary.n_positive, summary.n_negative) == (0, 0)


def test_objects_are_assigned_for_the_largest_sum() -> None:
    # The first prediction overlaps both objects, the second only the first one: a greedy match would waste it.
    left, right = (0, 0, 20, 10), (20, 0, 20, 10)
    document = truth((1, 1, left), (1, 1, right), classes=("car",))
    found = results((1, 1, (8, 0, 20, 10), 0.9), (1, 1, (0, 0, 16, 10), 0.8))
    tallies = presence_tallies(*columns(document, found), 0.3)
    # IoU 16/20 = .8 with the left one, 8/32 with the right one.
    assert tallies.n_right.tolist() == [[1, 1, 1, 1, 1, 1, 1, 0, 0, 0]]


BOXES = st.tuples(st.sampled_from([0, 10, 50]), st.just(0), st.sampled_from([20, 30]), st.just(20))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), BOXES), max_size=6),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), BOXES, st.sampled_from([0.2, 0.9])), max_size=8),
)
@settings(max_examples=60, deadline=None)
def test_figures_are_sam3s(objects: list[Any], found: list[Any]) -> None:
    document = truth(*objects, n_images=3)
    tallies = presence_tallies(*columns(document, results(*found)), 0.3)
    summary = presence_summary(presence_counts(tallies, tallies.image, 3))
    expected = sam3(tallies.n_truths.tolist(), tallies.n_answers.tolist(), tallies.n_right[:, 0].tolist())
    for name, value in expected.items():
        ours = getattr(summary, name)
        if ours is not None:
            assert ours == pytest.approx(value, abs=3e-4), name
    assert len(tallies.image) == 6


def test_presence_is_measured_on_masks_where_there_are_some(tmp_path: Path) -> None:
    document = truth((1, 1, HERE))
    assert scored(tmp_path, document, results((1, 1, HERE, 0.9))).presence_kind == "segm"
    assert scored(tmp_path, document, results((1, 1, HERE, 0.9), masks=False)).presence_kind == "bbox"
    data_set, predictions = loaded(tmp_path, document, results((1, 1, HERE, 0.9)))
    assert data_set.has_masks
    assert predictions[0].mask is not None


def test_many_questions_are_counted_in_little_memory() -> None:
    # As many classes as LVIS has; a Python row for each question would take more than 400 bytes.
    n_images, n_classes = 1500, 1200
    index = Index(tuple(range(n_images)), tuple(range(n_classes)), tuple(map(str, range(n_classes))))
    rng = np.random.default_rng(0)

    def shapes(n: int, scores: npt.NDArray[np.float64]) -> ScoredShapes:
        boxes = rng.integers(1, 40, (n, 4)).astype(np.float64)
        image, category = rng.integers(0, n_images, n), rng.integers(0, n_classes, n)
        return ScoredShapes(index, boxes, (), image, category, boxes[:, 2] * boxes[:, 3], scores, rng.random(n) < 0.1)

    truths, predictions = shapes(3000, np.ones(3000)), shapes(5000, rng.random(5000))
    tracemalloc.start()
    try:
        tallies = presence_tallies(truths, predictions, 0.3)
        by_image, by_class = (
            presence_counts(tallies, tallies.image, n_images),
            presence_counts(tallies, tallies.category, n_classes),
        )
        summaries = [presence_summary(by_image), presence_summary(by_class)]
        per_class = [presence_summary(by_class.of_group(number)) for number in range(n_classes)]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    n_questions = len(tallies.image)
    assert n_questions > 1_799_000
    assert peak_bytes < 60 * n_questions
    assert summaries[0] == summaries[1]
    assert sum(one.n_positive + one.n_negative for one in per_class) == n_questions
    assert summaries[0].n_positive == sum(one.n_positive for one in per_class) > 2000


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), BOXES, st.booleans()), max_size=6),
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 2), BOXES, st.sampled_from([0.2, 0.9])), max_size=8),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
)
@settings(max_examples=40, deadline=None)
def test_counts_by_image_weigh_as_the_questions_do(objects: list[Any], found: list[Any], weights: list[int]) -> None:
    document = truth(*((image, category, box) for image, category, box, _ in objects), n_images=3)
    for annotation, (*_, is_crowd) in zip(document["annotations"], objects, strict=True):
        annotation["iscrowd"] = int(is_crowd)
    tallies = presence_tallies(*columns(document, results(*found)), 0.3)
    rows = np.repeat(np.arange(len(tallies.image)), np.array(weights)[tallies.image])
    names = ("image", "category", "n_truths", "n_answers", "n_right")
    repeated = PresenceTallies.from_columns(**{name: getattr(tallies, name)[rows] for name in names})
    weighted = presence_summary(presence_counts(tallies, tallies.image, 3), np.array(weights, dtype=np.float64))
    assert weighted == presence_summary(presence_counts(repeated, repeated.category, 2))
