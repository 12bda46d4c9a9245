"""What a task is asked with: the user's words, or a region of the image written as the model reads it."""

import re

import numpy as np

from grounded_seg.detect.answer.tokens import bins_from_boxes, text_from_bins
from grounded_seg.detect.prompts import check_is_text
from grounded_seg.detect.tasks import Task, TaskInput
from grounded_seg.errors import UsageError
from grounded_seg.records import ImageSize

_NUMBER = r"\s*(-?\d+(?:\.\d+)?)\s*"
_BOX = re.compile(",".join([_NUMBER] * 4))
_LOCATIONS = re.compile(r"(?:<loc_[0-9]{1,3}>){4}")


def question_about(task: Task, text: str, size: ImageSize) -> str:
    """Put the user's words, or a region, into a task's question.

    Args:
        task: What is asked.
        text: The words that the task needs, or the region, see `region_text`; empty for a task that needs nothing.
        size: The upright image.

    Raises:
        UsageError: If the task needs a text and there is none, takes none and there is one, the text isn't a region
            where one is needed, or isn't UTF-8.
    """
    check_is_text("text", text)
    is_region = task.takes is TaskInput.REGION and text.strip()
    return task.question(region_text(text, size) if is_region else text)


def region_text(text: str, size: ImageSize) -> str:
    """Write a region as the model reads it: four location tokens.

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
