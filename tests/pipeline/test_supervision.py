"""Results as supervision's detections, without supervision: its arguments by hand, and the clear error."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.pipeline.chain import PromptedResult
from grounded_seg.records import Detection, ImageSize, Instance

MASK = np.zeros((10, 20), np.bool_)
MASK[2:8, 3:5] = True


def result(*, with_masks: bool, n: int = 2) -> PromptedResult:
    prompts = prompts_from(["dog", "red car"])
    instances = tuple(
        Instance(
            Detection(label="Auto", prompt="red car", box_xyxy=(2.5, 1.0, 10.0, 8.0), score=0.75),
            run_length_from_mask(MASK) if with_masks else None,
            0.5 if with_masks else None,
        )
        for _ in range(n)
    )
    return PromptedResult(Path("a.jpg"), ImageSize(20, 10), instances, asked=prompts)


@pytest.fixture
def detections(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Collects the arguments of every `supervision.Detections` that is made."""
    made: list[dict[str, Any]] = []
    module = ModuleType("supervision")
    module.Detections = lambda **arguments: made.append(arguments)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "supervision", module)
    return made


def test_masks_bring_their_tight_boxes(detections: list[dict[str, Any]]) -> None:
    result(with_masks=True).to_supervision()
    [made] = detections
    assert made["xyxy"].tolist() == [[3, 2, 5, 8]] * 2
    assert np.array_equal(made["mask"], np.stack([MASK, MASK]))
    assert made["class_id"].tolist() == [1, 1]
    assert made["confidence"].tolist() == [0.75, 0.75]
    assert made["data"]["class_name"].tolist() == ["red car", "red car"]
    assert made["data"]["detector_xyxy"].tolist() == [[2.5, 1.0, 10.0, 8.0]] * 2


def test_boxes_alone(detections: list[dict[str, Any]]) -> None:
    result(with_masks=False).to_supervision()
    assert detections[0]["xyxy"].tolist() == [[2.5, 1.0, 10.0, 8.0]] * 2
    assert detections[0]["mask"] is None


def test_nothing_found(detections: list[dict[str, Any]]) -> None:
    result(with_masks=True, n=0).to_supervision()
    assert detections[0]["xyxy"].shape == (0, 4)
    assert detections[0]["class_id"].shape == (0,)


def test_without_the_package_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(UsageError, match="pip install supervision"):
        result(with_masks=True).to_supervision()
