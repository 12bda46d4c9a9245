"""Each kind of error by itself: the split names it, and mending everything gives 1."""

from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, columns, records, results, scored, truth
from hypothesis import given, settings
from hypothesis import strategies as st

from grounded_seg.coco.schema import Kind
from grounded_seg.scoring.average_precision import SizeRanges, evaluate
from grounded_seg.scoring.error_types import ErrorKind, error_summary, errors_of
from grounded_seg.scoring.matching import match

CAR, DOG = 1, 2
HERE: Box = (10, 10, 40, 40)
# 40 x 40 moved by 20: 800 of 2400 in common, IoU 1/3.
NEAR: Box = (30, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)

CASES: dict[ErrorKind, list[tuple[int, int, Box, float]]] = {
    ErrorKind.CLASS: [(1, DOG, HERE, 0.9), (1, DOG, FAR, 0.8)],
    ErrorKind.LOCALISATION: [(1, CAR, NEAR, 0.9), (1, DOG, FAR, 0.8)],
    ErrorKind.BOTH: [(1, DOG, NEAR, 0.9), (1, CAR, HERE, 0.8), (1, DOG, FAR, 0.8)],
    ErrorKind.DUPLICATE: [(1, CAR, HERE, 0.9), (1, CAR, (12, 10, 40, 40), 0.8), (1, DOG, FAR, 0.7)],
    ErrorKind.BACKGROUND: [(1, CAR, HERE, 0.8), (1, CAR, (0, 80, 10, 10), 0.9), (1, DOG, FAR, 0.7)],
    ErrorKind.MISSED: [(1, DOG, FAR, 0.8)],
}


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("error", list(ErrorKind))
def test_one_kind_of_error_is_named(tmp_path: Path, error: ErrorKind, kind: Kind) -> None:
    scores = scored(tmp_path, truth((1, CAR, HERE), (1, DOG, FAR)), results(*CASES[error]))
    summary = scores.error_summaries[kind]
    assert {name: cost.n for name, cost in summary.per_kind.items() if cost.n} == {error: 1}
    assert summary.AP50_all_mended == pytest.approx(1)
    costs = {name: cost.AP50_cost for name, cost in summary.per_kind.items() if cost.AP50_cost}
    # A duplicate comes after its object is found, and lowers nothing here.
    assert set(costs) == ({error} if error is not ErrorKind.DUPLICATE else set())
    assert summary.AP50 is not None
    if costs:
        assert summary.AP50 + costs[error] == pytest.approx(1)


def test_the_cost_by_hand(tmp_path: Path) -> None:
    # One class: a false box on nothing before the only object, precision 1/2 at every recall.
    document = truth((1, CAR, HERE), classes=("car",))
    scores = scored(tmp_path, document, results((1, CAR, FAR, 0.9), (1, CAR, HERE, 0.8)))
    background = scores.error_summaries["bbox"].per_kind[ErrorKind.BACKGROUND]
    assert (background.n, background.AP50_cost) == (1, pytest.approx(0.5))


def test_of_several_that_nearly_found_an_object_the_best_is_mended(tmp_path: Path) -> None:
    document = truth((1, CAR, HERE), classes=("car",))
    found = results((1, CAR, NEAR, 0.9), (1, CAR, (28, 10, 40, 40), 0.8))
    summary = scored(tmp_path, document, found).error_summaries["bbox"]
    localisation = summary.per_kind[ErrorKind.LOCALISATION]
    assert (localisation.n, localisation.AP50_cost) == (2, pytest.approx(1))
    assert summary.per_kind[ErrorKind.MISSED].n == 0


def test_what_lies_on_a_crowd_is_no_error(tmp_path: Path) -> None:
    document = truth((1, CAR, HERE), (1, CAR, FAR))
    document["annotations"][1]["iscrowd"] = 1
    scores = scored(tmp_path, document, results((1, CAR, HERE, 0.9), (1, CAR, FAR, 0.8), (1, CAR, FAR, 0.7)))
    assert all(cost.n == 0 for cost in scores.error_summaries["bbox"].per_kind.values())


def test_without_anything_there_is_nothing_to_cost(tmp_path: Path) -> None:
    summary = scored(tmp_path, truth(), results((1, CAR, HERE, 0.9))).error_summaries["bbox"]
    assert (summary.AP50, summary.AP50_all_mended) == (None, None)
    assert summary.per_kind[ErrorKind.BACKGROUND].n == 1
    assert summary.per_kind[ErrorKind.BACKGROUND].AP50_cost is None


@pytest.mark.parametrize("found", [[], results((1, CAR, (0, 80, 10, 10), 0.9))])
def test_where_every_object_is_missed_that_costs_everything(tmp_path: Path, found: list[Any]) -> None:
    summary = scored(tmp_path, truth((1, CAR, HERE), (1, DOG, FAR)), found).error_summaries["bbox"]
    assert (summary.AP50, summary.AP50_all_mended) == (0, 1)
    missed = summary.per_kind[ErrorKind.MISSED]
    assert (missed.n, missed.AP50_cost) == (2, 1)
    assert all(cost.AP50_cost == 0 for kind, cost in summary.per_kind.items() if kind is not ErrorKind.MISSED)


BOXES = st.tuples(*[st.sampled_from([0, 10, 20, 40])] * 2, *[st.sampled_from([20, 30, 40])] * 2)


@given(
    st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2), BOXES), min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(1, 2), st.integers(1, 2), BOXES, st.sampled_from([0.2, 0.5, 0.9])), max_size=12),
)
@settings(max_examples=60, deadline=None)
def test_mending_everything_gives_1_and_costs_are_gains(objects: list[Any], found: list[Any]) -> None:
    document, predicted = truth(*objects, n_images=2), results(*found)
    truths, predictions = columns(document, predicted)
    matches = match(truths, predictions, SizeRanges().as_array())
    summary = error_summary(errors_of(truths, predictions, matches), matches)
    assert pytest.approx(evaluate(*records(document, predicted), "bbox").AP50, abs=1e-12) == summary.AP50
    assert summary.AP50_all_mended == pytest.approx(1, abs=1e-12)
    assert all(0 <= (cost.AP50_cost or 0) <= 1 for cost in summary.per_kind.values())
