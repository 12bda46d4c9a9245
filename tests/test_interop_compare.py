"""What `make interop` compares with: a right reading passes, and each loss is told."""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from paths import TESTS

sys.path.insert(0, str(TESTS / "interop"))

from compare_labels import Check, Outcome, compare, compare_joined
from reader_output import runs

from grounded_seg.export.settings import LabelFormat, MaskForm
from grounded_seg.export.writer import Losses
from grounded_seg.export.yolo import JOINED
from grounded_seg.geometry.masks import (
    coco_from_run_length,
    mask_from_run_length,
    run_length_from_coco,
    run_length_from_mask,
)

CHECK = Check("tool", LabelFormat.COCO, MaskForm.RLE, 0.98, has_scores=True)
MASK = np.zeros((20, 30), np.bool_)
MASK[3:13, 5:15] = True


@pytest.fixture
def source(tmp_path: Path) -> Path:
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 1,
        "bbox": [5, 3, 10, 10],
        "area": 100,
        "segmentation": coco_from_run_length(run_length_from_mask(MASK)),
        "iscrowd": 0,
        "score": 0.5,
    }
    images = [{"id": 1, "file_name": "a.jpg", "width": 30, "height": 20}]
    document = {"images": images, "categories": [{"id": 1, "name": "car"}], "annotations": [annotation]}
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def problems(source: Path, **change: Any) -> list[str]:
    read = {"class": "car", "box": [5, 3, 15, 13], "mask": runs(MASK), "score": 0.5, **change}
    outcome = Outcome("tool", "coco", "rle", "test")
    compare(CHECK, source, {"a.jpg": [read]}, outcome)
    return outcome.problems


def test_a_right_reading_has_no_problems(source: Path) -> None:
    assert problems(source) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"class": "dog"}, "no car was read"),
        ({"box": [5, 3, 15, 14.5]}, "1.50 px off"),
        ({"score": 0.4}, "came back as 0.4"),
        ({"mask": None}, "is lost"),
        ({"mask": runs(MASK & (np.arange(30) < 14))}, "IoU of 0.9000"),
    ],
)
def test_each_loss_is_told(source: Path, change: dict[str, Any], problem: str) -> None:
    [told] = problems(source, **change)
    assert problem in told


@pytest.mark.parametrize(
    ("read", "told"),
    [
        ({"label": "Auto", "n": 2, "is_crowd": False}, []),
        ({"label": "car", "n": 2}, ["a.jpg: the attribute label, 'Auto', came back as 'car'"]),
        ({"label": "Auto"}, ["a.jpg: the attribute n of a car is lost"]),
        (None, ["a.jpg: the attribute label of a car is lost", "a.jpg: the attribute n of a car is lost"]),
    ],
)
def test_attributes_are_compared_one_by_one(source: Path, read: dict[str, Any] | None, told: list[str]) -> None:
    document = json.loads(source.read_text())
    document["annotations"][0]["attributes"] = {"label": "Auto", "n": 2}
    source.write_text(json.dumps(document))
    one = {"class": "car", "box": [5, 3, 15, 13], "mask": runs(MASK), "score": 0.5, "attributes": read}
    outcome = Outcome("tool", "coco", "rle", "test")
    compare(replace(CHECK, has_attributes=True), source, {"a.jpg": [one]}, outcome)
    assert (outcome.problems, outcome.n_attributes) == (told, 2)


def test_a_mask_may_be_off_along_its_edges_only(source: Path) -> None:
    check = replace(CHECK, iou_least=None, edge_off_px=1)
    wider, shifted = np.zeros_like(MASK), np.zeros_like(MASK)
    wider[3:14, 5:16] = True
    shifted[3:13, 7:15] = True

    def told(mask: Any) -> list[str]:
        outcome = Outcome("tool", "coco", "polygon", "test")
        one = {"class": "car", "box": [5, 3, 15, 13], "mask": runs(mask), "score": 0.5}
        compare(check, source, {"a.jpg": [one]}, outcome)
        return outcome.problems

    assert told(wider) == []
    assert told(shifted) == told(np.pad(MASK, 2)[:-4, :-4]) == ["a.jpg: the mask of a car is more than 1 px off"]
    assert len(told(np.pad(MASK, 2)[2:-2, 4:])) == 1
    threaded = wider.copy()
    threaded[0] = True
    assert len(told(threaded)) == 1
    # A person's polygon, whose threads are drawn too.
    document = json.loads(source.read_text())
    document["annotations"][0]["segmentation"] = [[5, 3, 15, 3, 15, 13, 5, 13]]
    source.write_text(json.dumps(document))
    assert told(threaded) == []
    assert len(told(shifted)) == 1


def test_a_missing_label_is_told(source: Path) -> None:
    outcome = Outcome("tool", "coco", "rle", "test")
    compare(CHECK, source, {}, outcome)
    assert outcome.problems == ["a.jpg: 1 labels written, 0 read", "a.jpg: no car was read"]


def test_parts_are_compared_one_by_one(source: Path) -> None:
    pixels = np.zeros((20, 30), np.bool_)
    pixels[2:6, 3:9] = True
    pixels[10:15, 20:28] = True
    # A hole, which a cut joins to the outline.
    pixels[12, 23:25] = False
    document = json.loads(source.read_text())
    document["annotations"][0].update(
        segmentation=coco_from_run_length(run_length_from_mask(pixels)), area=int(pixels.sum()), bbox=[3, 2, 25, 13]
    )
    source.write_text(json.dumps(document))
    first = [3, 2, 9, 2, 9, 6, 3, 6]
    second = [20, 10, 28, 10, 28, 15, 20, 15, 20, 12, 23, 12, 23, 13, 25, 13, 25, 12, 20, 12]
    read = [
        {"class": "car", "box": box, "mask": None, "polygons": {"size": [20, 30], "rings": [ring]}, "score": 0.5}
        for box, ring in (([20, 10, 28, 15], second), ([3, 2, 9, 6], first))
    ]
    check = replace(CHECK, iou_least=1.0, parts_are_labels=True)
    outcome = Outcome("tool", "labelstudio", "polygon", "test")
    compare(check, source, {"a.jpg": read}, outcome)
    assert (outcome.problems, outcome.n_written, outcome.n_read, outcome.n_parted) == ([], 2, 2, 1)
    outcome = Outcome("tool", "labelstudio", "polygon", "test")
    compare(check, source, {"a.jpg": read[:1]}, outcome)
    assert "a.jpg: 2 labels written, 1 read" in outcome.problems
    assert "a.jpg: no car was read" in outcome.problems


def test_joined_parts_lose_nothing_and_are_as_the_export_says(source: Path) -> None:
    parts = np.zeros((20, 30), np.bool_)
    parts[2:6, 3:9] = parts[10:15, 20:28] = True
    document = json.loads(source.read_text())
    document["annotations"][0].update(
        segmentation=coco_from_run_length(run_length_from_mask(parts)), area=int(parts.sum()), bbox=[3, 2, 25, 13]
    )
    source.write_text(json.dumps(document))
    check = replace(CHECK, parts_may_be_joined=True)
    joined = parts.copy()
    joined[5:11, 8] = joined[10, 8:20] = True

    def outcome_of(mask: Any, n_told: int, iou_told: float) -> Outcome:
        outcome = Outcome("tool", "yolo", "polygon", "test")
        read = {"class": "car", "box": [3, 2, 28, 15], "mask": runs(mask), "score": 0.5}
        compare(check, source, {"a.jpg": [read]}, outcome)
        compare_joined(Losses(Counter({JOINED: n_told}), iou_least=iou_told), outcome)
        return outcome

    # 64 pixels, and 16 of the line between them.
    right = outcome_of(joined, 1, 0.8)
    assert (right.problems, right.n_joined, right.joined_iou_least) == ([], 1, 0.8)
    [lost] = outcome_of(joined & (np.arange(30) < 27), 1, 0.5).problems
    assert "has lost pixels" in lost
    assert "of 0 joined masks, 1 were read" in outcome_of(joined, 0, 0.8).problems[0]
    assert "IoU of 0.8000, the export has said 0.9000" in outcome_of(joined, 1, 0.9).problems[0]


@pytest.mark.parametrize("make", [np.zeros, np.ones], ids=["empty", "full"])
def test_reader_masks_are_coco_runs(make: Callable[..., Any]) -> None:
    mask = make((3, 4), np.bool_)
    assert np.array_equal(mask_from_run_length(run_length_from_coco(runs(mask))), mask)
    assert runs(np.array([[True, False], [True, True]]))["counts"] == [0, 2, 1, 1]
