"""Filters, orders and counts, against the same worked out one by one."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grounded_seg.errors import UsageError
from grounded_seg.review.page.journal_index import Columns, Flag, JournalIndex
from grounded_seg.review.page.selection import (
    ACCEPTED,
    REJECTED,
    RELABELLED,
    RIGHT,
    UNDECIDED,
    UNJUDGED,
    WRONG,
    Filter,
    Marks,
    Verdicts,
    counts_by_threshold,
    select,
)

CLASSES = ["cat", "dog"]
NAMES = ["a/Cat-1.jpg", "a/2.jpg", "b/cat.jpg", "b/4.jpg", "b/5.jpg"]
# Image, class, score, mask score, flags and state of each instance.
ROWS = (
    (0, 0, 0.9, 0.8, 0, UNDECIDED),
    (0, 1, 0.3, 0.6, Flag.LEAVES_BOX, UNDECIDED),
    (1, 0, 0.2, 0.9, Flag.TOUCHES_BORDER, ACCEPTED),
    (1, 0, 0.7, np.nan, 0, REJECTED),
    (1, 0, 0.6, 0.5, 0, UNDECIDED),
    (3, 1, 0.4, 0.4, Flag.LEAVES_BOX | Flag.TOUCHES_BORDER, RELABELLED),
)


def columns() -> Columns:
    names = b"".join(name.encode() + b"\0" for name in NAMES)
    image, _, score, mask_score, flags, _ = zip(*ROWS, strict=True)
    return Columns(
        start=np.arange(6, dtype=np.int64),
        first=np.searchsorted(image, np.arange(6)),
        skipped=np.array([0, 0, 0, 0, 1], np.uint8),
        name_start=np.cumsum([0, *(len(name) + 1 for name in NAMES)]),
        names=names,
        image=np.array(image, np.int32),
        prompt=np.zeros(len(ROWS), np.int32),
        score=np.array(score),
        mask_score=np.array(mask_score),
        flags=np.array(flags, np.uint8),
    )


def marks(*thresholds: float) -> Marks:
    return Marks(
        state=np.array([row[5] for row in ROWS], np.uint8),
        label=np.array([row[1] for row in ROWS], np.int32),
        threshold=np.array(thresholds or (0.0, 0.0)),
        looked=np.array([0, 0, 1, 0, 0], np.uint8),
        added=np.zeros(5, np.int32),
    )


@pytest.mark.parametrize(
    ("wanted", "images"),
    [
        ({}, [0, 1, 2, 3, 4]),
        ({"class_name": "dog"}, [0, 3]),
        ({"class_name": "bird"}, []),
        ({"min_score": 0.7}, [0, 1]),
        ({"max_score": 0.3}, [0, 1]),
        ({"min_score": 0.35, "max_score": 0.45}, [3]),
        ({"class_name": "cat", "max_score": 0.5}, [1]),
        ({"min_mask": 0.85}, [1]),
        ({"max_mask": 0.45}, [3]),
        ({"leaves_box": True}, [0, 3]),
        ({"touches_border": True}, [1, 3]),
        ({"leaves_box": True, "touches_border": True}, [3]),
        ({"decided": "undecided"}, [0, 1]),
        ({"decided": "decided"}, [1, 2, 3]),
        ({"decided": "accepted"}, [1]),
        ({"decided": "rejected"}, [1]),
        ({"decided": "relabelled"}, [3]),
        ({"decided": "undecided", "class_name": "cat"}, [0, 1]),
        ({"images": "with"}, [0, 1, 3]),
        ({"images": "without"}, [2]),
        ({"images": "skipped"}, [4]),
        ({"name": "CAT"}, [0, 2]),
        ({"name": "b/"}, [2, 3, 4]),
        ({"name": "jpga"}, []),
        ({"name": "b/", "images": "with"}, [3]),
        ({"order": "lowest"}, [1, 0, 3, 2, 4]),
        ({"order": "lowest", "class_name": "cat"}, [1, 0]),
        ({"order": "most"}, [1, 0, 3, 2, 4]),
        ({"order": "most", "class_name": "dog"}, [0, 3]),
    ],
)
def test_each_filter(wanted: dict[str, Any], images: list[int]) -> None:
    assert select(columns(), marks(), Filter(**wanted), CLASSES).tolist() == images


@pytest.mark.parametrize(
    ("wanted", "images"),
    [
        # The thresholds drop the undecided dog of image 0 and the undecided cat of image 1; decisions beat them.
        ({"class_name": "dog"}, [3]),
        ({"class_name": "dog", "dropped": True}, [0, 3]),
        ({"decided": "undecided"}, [0]),
        ({"decided": "accepted"}, [1]),
        ({"max_score": 0.3}, [1]),
    ],
)
def test_what_a_threshold_drops_is_out_of_sight(wanted: dict[str, Any], images: list[int]) -> None:
    assert select(columns(), marks(0.65, 0.5), Filter(**wanted), CLASSES).tolist() == images


def test_an_image_of_which_nothing_stays_is_without_instances() -> None:
    assert select(columns(), marks(0.95, 0.95), Filter(images="without"), CLASSES).tolist() == [0, 2]
    assert select(columns(), marks(0.95, 0.95), Filter(decided="undecided"), CLASSES).tolist() == [0]


def test_the_worst_come_first() -> None:
    # Image 0: one right, one wrong, F1 2/3. Image 1: the rejected one, right, counts no more. Image 3: two missed.
    verdict = np.array([RIGHT, WRONG, RIGHT, RIGHT, WRONG, UNJUDGED], np.uint8)
    verdicts = Verdicts(verdict, np.array([1, 2, 0, 2, 0], np.int32))
    f1 = verdicts.f1(columns(), marks().state != REJECTED)
    np.testing.assert_allclose(f1, [2 / 3, 2 / 4, 1, 0, 1])
    ordered = select(columns(), marks(), Filter(order="worst"), CLASSES, verdicts)
    assert ordered.tolist() == [3, 1, 0, 2, 4]


def test_counts_by_threshold_are_those_of_counting_again() -> None:
    rng = np.random.default_rng(0)
    n = 400
    score = np.concatenate([rng.uniform(0, 1, n - 101), np.arange(101) / 100])
    state, label = rng.integers(0, 4, n).astype(np.uint8), rng.integers(0, 3, n).astype(np.int32)
    none = np.zeros(n, np.int32)
    made = Columns(*[none] * 4, b"", none, none, score, score, none.astype(np.uint8))
    table = counts_by_threshold(made, Marks(state, label, np.zeros(3), none.astype(np.uint8), none))
    for number in range(3):
        for step in range(101):
            stays = (state == ACCEPTED) | (state == RELABELLED) | ((state == UNDECIDED) & (score >= step / 100))
            assert table[number, step] == (stays & (label == number)).sum()


def test_wrong_values_are_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"min-score is 2.*; order is 'best'"):
        Filter(min_score=2, order="best")


def test_an_empty_run_has_no_image(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    with JournalIndex(tmp_path / "results.jsonl", ["a cat"]) as index:
        index.update()
    none = np.zeros(0)
    empty = Marks(
        none.astype(np.uint8), none.astype(np.int32), np.zeros(1), none.astype(np.uint8), none.astype(np.int32)
    )
    for order in ("run", "lowest", "most"):
        assert select(index.columns, empty, Filter(order=order, name="a"), ["cat"]).tolist() == []
    assert counts_by_threshold(index.columns, empty).tolist() == [[0] * 101]
