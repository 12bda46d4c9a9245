"""An answer of `ask` rendered as JSON or as a picture."""

from typing import Any

from grounded_seg.detect.tasks import Task
from grounded_seg.geometry.masks import area_px, coco_from_run_length
from grounded_seg.geometry.polygons import run_length_from_outline
from grounded_seg.images.draw import Canvas, draw
from grounded_seg.records import (
    Answer,
    Detection,
    Image,
    ImageResult,
    ImageSize,
    Instance,
    LabelledPolygons,
    LabelledQuad,
)


def answer_as_json(task: Task, text: str, image: Image, answer: Answer) -> dict[str, Any]:
    """An answer for `json.dumps`: coordinates in pixels of the upright image, scores in [0, 1].

    `text` is what was asked about, as the user gave it. Outlines bring their mask as COCO's run lengths, or None where
    they enclose nothing.
    """
    return {
        "task": task.name,
        "prompt": text,
        "file_name": image.path.name,
        "width": image.width,
        "height": image.height,
        "text": answer.text,
        "boxes": [{"label": one.label, "box_xyxy": list(one.box_xyxy), "score": one.score} for one in answer.boxes],
        "polygons": [_outline_as_json(outline, image.size) for outline in answer.polygons],
        "quads": [{"label": one.label, "quad": one.quad, "score": one.score} for one in answer.quads],
    }


def draw_answer(image: Image, answer: Answer) -> Canvas:
    """A copy of the image with boxes, filled outlines and quads on it, a colour for each label; text isn't drawn."""
    outlines = [*answer.polygons, *map(_outline_from_quad, answer.quads)]
    instances = [_instance(one.label, one.box_xyxy, one.score) for one in answer.boxes]
    for outline in outlines:
        mask = run_length_from_outline(outline, image.size)
        instances.append(_instance(outline.label, _box_around(outline), outline.score, mask))
    return draw(image, ImageResult(image.path, image.size, tuple(instances)))


def _instance(label: str, box_xyxy: Any, score: float, mask: Any = None) -> Instance:
    # The overlay has a colour for each prompt; here the words of the answer are what tells things apart.
    return Instance(Detection(label, label, box_xyxy, score), mask, None)


def _outline_as_json(outline: LabelledPolygons, size: ImageSize) -> dict[str, Any]:
    mask = run_length_from_outline(outline, size)
    return {
        "label": outline.label,
        "polygons": outline.polygons,
        "mask": None if mask is None else coco_from_run_length(mask),
        "area": 0 if mask is None else area_px(mask),
        "score": outline.score,
    }


def _outline_from_quad(quad: LabelledQuad) -> LabelledPolygons:
    return LabelledPolygons(quad.label, (quad.quad,), quad.score)


def _box_around(outline: LabelledPolygons) -> tuple[float, float, float, float]:
    xs, ys = zip(*(point for ring in outline.polygons for point in ring), strict=True)
    return min(xs), min(ys), max(xs), max(ys)
