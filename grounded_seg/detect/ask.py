"""One question of any task to one image: the whole of Florence-2, beside the detector's own three tasks."""

import re
from typing import TYPE_CHECKING

import numpy as np

from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.detect.answer.tokens import bins_from_boxes, text_from_bins
from grounded_seg.detect.prompts import check_is_text
from grounded_seg.detect.tasks import MAX_NEW_TOKENS, Task, TaskInput
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import UsageError
from grounded_seg.records import Answer, Image, ImageSize

if TYPE_CHECKING:
    # It imports torch, which takes seconds: a question is checked before.
    from grounded_seg.detect.model.florence import FlorenceModel

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(",".join([_NUMBER] * 4))
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

    Args:
        model: A loaded Florence-2.
        task: What is asked.
        image: Of any size.
        text: The phrase that the task needs, or the region, see `region_text`; empty where none is needed.
        adapter: Which of the adapters that are loaded beside the weights to use; None for none of them.
        beams: Beam width; 1 is greedy.
        max_new_tokens: Longest answer; of a longer one the complete parts are read.

    Raises:
        UsageError: As `question_about` does; if the text is too long for the model, or no adapter has this name.
        DeviceMemoryError: If the device runs out of memory.
    """
    question = question_about(task, text, image.size)
    with out_of_memory_as_device_error("looking at the image", "Use a smaller preset."), model.using(adapter):
        [said] = model.answer(model.encode_images([image]), [question], beams=beams, max_new_tokens=max_new_tokens)
    return parse_answer(
        task,
        said.token_ids,
        image.size,
        prompt=text.strip(),
        tokenizer=model.vocabulary,
        evidence=said.evidence,
    )


def question_about(task: Task, text: str, size: ImageSize) -> str:
    """A task's question with the user's phrase or region in it.

    Args:
        task: What is asked.
        text: The phrase or the region; empty for a task that needs nothing.
        size: The upright image.

    Raises:
        UsageError: If the task needs a text and there is none, takes none and there is one, the text isn't a region
            where one is needed, or isn't UTF-8.
    """
    check_is_text("text", text)
    is_region = task.takes is TaskInput.REGION and text.strip()
    return task.question(region_text(text, size) if is_region else text)


def region_text(text: str, size: ImageSize) -> str:
    """A region as the model reads it: four location tokens.

    Args:
        text: "x0,y0,x1,y1" in pixels, corners in any order, or four location tokens.
        size: The upright image.

    Raises:
        UsageError: If it is neither.

    >>> region_text("0, 20, 320, 480", ImageSize(640, 480))
    '<loc_0><loc_41><loc_500><loc_999>'
    """
    if _LOCATIONS.fullmatch(text.strip()):
        return text.strip()
    numbers = _BOX.fullmatch(text)
    if numbers is None:
        raise UsageError(f'{text!r} is no region; write it in pixels as "x0,y0,x1,y1"')
    corners = np.array(numbers.groups(), dtype=np.float64).reshape(2, 2)
    box_xyxy = np.concatenate([corners.min(axis=0), corners.max(axis=0)])[None]
    return text_from_bins(bins_from_boxes(box_xyxy, size))
