"""One question of any task to one image, and its answer as JSON or as a picture."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.detect.answer.tokens import bins_from_boxes, text_from_bins
from grounded_seg.detect.prompts import check_is_text
from grounded_seg.detect.tasks import MAX_NEW_TOKENS, Task, TaskInput
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import area_px, coco_from_run_length
from grounded_seg.geometry.polygons import run_length_from_outline
from grounded_seg.images.draw import Canvas, draw
from grounded_seg.records import Answer, Detection, Image, ImageResult, ImageSize, Instance, LabelledPolygons

if TYPE_CHECKING:
    # It imports torch, which takes seconds: a question is checked before.
    from grounded_seg.detect.model.florence import FlorenceModel

_BOX = re.compile(",".join([r"\s*(-?\d+(?:\.\d+)?)\s*"] * 4))
_LOCATIONS = re.compile(r"(?:<loc_[0-9]{1,3}>){4}")


def ask(
    model: "FlorenceModel",
    task: Task,
    image: Image,
    text: str = "",
    *,
    adapter: str | None = None,
    beams: int = 1,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> Answer:
    """The answer of a model to one question, every box, outline and quad with its score.

    `text` is the phrase or the region (see `region_text`) that the task needs; `adapter` one of those that are loaded
    beside the weights. The answer has the task's form; one longer than `max_new_tokens` ends with a whole part.

    Raises:
        UsageError: If the text is not what the task needs or too long for the model, or no adapter has this name.
        DeviceMemoryError: If the device runs out of memory.
    """
    question = question_about(task, text, image.size)
    with out_of_memory_as_device_error("looking at the image", "Use a smaller preset."), model.using(adapter):
        [said] = model.answer(
            model.encode_images([image]), [question], beams=beams, max_new_tokens=max_new_tokens, tasks=[task]
        )
    return parse_answer(
        task,
        said.token_ids,
        image.size,
        prompt=text.strip(),
        tokenizer=model.vocabulary,
        evidence=said.evidence,
    )


def question_about(task: Task, text: str, size: ImageSize) -> str:
    """A task's question with the user's phrase or region in it; a `UsageError` if the task needs another text."""
    check_is_text("text", text)
    is_region = task.takes is TaskInput.REGION and text.strip()
    return task.question(region_text(text, size) if is_region else text)


def region_text(text: str, size: ImageSize) -> str:
    """A region as the model reads it: four location tokens.

    `text` is "x0,y0,x1,y1" in pixels of the upright image, corners in any order, or four location tokens. What is
    outside the image is cut off; a `UsageError` if that is all.

    >>> region_text("0, 20, 320, 480", ImageSize(640, 480))
    '<loc_0><loc_41><loc_500><loc_999>'
    """
    if _LOCATIONS.fullmatch(text.strip()):
        return text.strip()
    numbers = _BOX.fullmatch(text)
    if numbers is None:
        raise UsageError(f'{text!r} is no region; write it in pixels as "x0,y0,x1,y1"')
    corners = np.array(numbers.groups(), dtype=np.float64).reshape(2, 2)
    if (corners.max(axis=0) <= 0).any() or (corners.min(axis=0) >= (size.width, size.height)).any():
        raise UsageError(f"the region {text!r} is outside the image of {size.width} x {size.height} pixels")
    box_xyxy = np.concatenate([corners.min(axis=0), corners.max(axis=0)])[None]
    return text_from_bins(bins_from_boxes(box_xyxy, size))


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


def _outline_as_json(outline: LabelledPolygons, size: ImageSize) -> dict[str, Any]:
    mask = run_length_from_outline(outline.polygons, size)
    return {
        "label": outline.label,
        "polygons": outline.polygons,
        "mask": None if mask is None else coco_from_run_length(mask),
        "area": 0 if mask is None else area_px(mask),
        "score": outline.score,
    }


def draw_answer(image: Image, answer: Answer) -> Canvas:
    """A copy of the image with boxes, filled outlines and quads on it, a colour for each label; text isn't drawn."""
    # The overlay has a colour for each prompt; here the words of the answer are what tells things apart.
    instances = [Instance(replace(one, prompt=one.label), None, None) for one in answer.boxes]
    quads = (LabelledPolygons(one.label, (one.quad,), one.score) for one in answer.quads)
    for outline in (*answer.polygons, *quads):
        xs, ys = zip(*(point for ring in outline.polygons for point in ring), strict=True)
        around = Detection(outline.label, outline.label, (min(xs), min(ys), max(xs), max(ys)), outline.score)
        instances.append(Instance(around, run_length_from_outline(outline.polygons, image.size), None))
    return draw(image, ImageResult(image.path, image.size, tuple(instances)))
