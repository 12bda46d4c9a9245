"""What `make interop` compares with: a right reading passes, and each loss is told."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "interop"))

from read_back import Check, Outcome, compare
from reader_output import runs

from grounded_seg.masks import coco_from_run_length, mask_from_run_length, run_length_from_coco, run_length_from_mask
from grounded_seg.settings import LabelFormat, MaskForm

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


@pytest.mark.parametrize("make", [np.zeros, np.ones], ids=["empty", "full"])
def test_reader_masks_are_coco_runs(make: Callable[..., Any]) -> None:
    mask = make((3, 4), np.bool_)
    assert np.array_equal(mask_from_run_length(run_length_from_coco(runs(mask))), mask)
    assert runs(np.array([[True, False], [True, True]]))["counts"] == [0, 2, 1, 1]
