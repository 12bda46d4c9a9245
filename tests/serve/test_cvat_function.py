"""CVAT's function with a stand-in for its library; `make interop` runs it with CVAT's own driver."""

import sys
from dataclasses import dataclass
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import PIL.Image
import pytest
from fakes import ColourDetector, InnerSegmenter, painted

from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import UsageError
from grounded_seg.serve import cvat_function


@dataclass
class Context:
    conf_threshold: float | None = None
    conv_mask_to_poly: bool = False


class Shape(SimpleNamespace):
    attribute_map: ClassVar[dict[str, str]] = {"points": "points", "score": "score"}


def _shape(kind: str) -> Any:
    return lambda label_id, points, **more: Shape(kind=kind, label_id=label_id, points=points, **more)


@pytest.fixture
def cvat(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    parts = {
        name: ModuleType(name) for name in ("cvat_sdk", "cvat_sdk.auto_annotation", "cvat_sdk.masks", "cvat_sdk.models")
    }
    annotation = parts["cvat_sdk.auto_annotation"]
    annotation.__dict__.update(
        {
            **{kind: _shape(kind) for kind in ("rectangle", "polygon", "mask")},
            "label_spec": lambda name, number, **more: SimpleNamespace(name=name, id=number, **more),
            "DetectionFunctionSpec": SimpleNamespace,
        }
    )
    parts["cvat_sdk.masks"].__dict__["encode_mask"] = lambda mask, box: [int(mask.sum()), *box]
    parts["cvat_sdk.models"].__dict__["LabeledShapeRequest"] = Shape
    parts["cvat_sdk"].__dict__["auto_annotation"] = annotation
    for name, module in parts.items():
        monkeypatch.setitem(sys.modules, name, module)
    return annotation


def function(monkeypatch: pytest.MonkeyPatch, *, boxes_only: bool = False, **parameters: Any) -> Any:
    class Threshold(ColourDetector):
        def with_score_threshold(self, score_threshold: float) -> ColourDetector:
            return ColourDetector() if score_threshold < 0.6 else SimpleNamespace(detect=nothing)  # type: ignore[return-value]

    def nothing(images: Any, *_: Any, **__: Any) -> Any:
        return [() for _ in images]

    fake = GroundedSegmenter(Threshold(), None if boxes_only else InnerSegmenter())
    monkeypatch.setattr(GroundedSegmenter, "from_preset", lambda *_, **__: fake)
    return cvat_function.create(boxes_only=boxes_only, **parameters)


IMAGE = PIL.Image.fromarray(painted(40, 30, red=(2, 3, 12, 9), green=(20, 5, 30, 17)))


@pytest.mark.usefixtures("cvat")
def test_classes_are_labels_and_objects_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    made = function(monkeypatch, prompts={"red car": "car", "green": "ball"})
    assert [(one.name, one.id, one.type) for one in made.spec.labels] == [("car", 1, "mask"), ("ball", 2, "mask")]
    shapes = made.detect(Context(), IMAGE)
    assert [(one.kind, one.label_id, one.points) for one in shapes] == [
        ("mask", 1, [32, 3, 4, 11, 8]),
        ("mask", 2, [80, 21, 6, 29, 16]),
    ]
    assert shapes[0].score == pytest.approx(2 / 3)


@pytest.mark.usefixtures("cvat")
def test_cvat_may_want_polygons_and_another_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    made = function(monkeypatch, prompts="red; green")
    shapes = made.detect(Context(conv_mask_to_poly=True), IMAGE)
    assert {one.kind for one in shapes} == {"polygon"}
    corners = np.array(shapes[0].points).reshape(-1, 2)
    assert sorted(corners.tolist()) == [[3, 4], [3, 8], [11, 4], [11, 8]]
    assert made.detect(Context(conf_threshold=0.9), IMAGE) == []
    assert len(made.detect(Context(conf_threshold=0.0), IMAGE)) == 2


@pytest.mark.usefixtures("cvat")
def test_boxes_only_are_rectangles(monkeypatch: pytest.MonkeyPatch) -> None:
    made = function(monkeypatch, prompts="red", boxes_only=True)
    assert [one.type for one in made.spec.labels] == ["rectangle"]
    [shape] = made.detect(Context(), IMAGE)
    assert (shape.kind, shape.points) == ("rectangle", [2.0, 3.0, 12.0, 9.0])


def test_older_releases_have_no_score(cvat: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cvat is not None
    monkeypatch.setattr(Shape, "attribute_map", {"points": "points"})
    [shape] = function(monkeypatch, prompts="red").detect(Context(), IMAGE)
    assert not hasattr(shape, "score")


def test_without_its_library_the_function_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cvat_sdk", None)
    with pytest.raises(UsageError, match="pip install cvat-sdk"):
        cvat_function.create("red")
