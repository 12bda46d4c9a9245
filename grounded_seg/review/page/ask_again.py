"""Another prompt for one image of a run, while somebody looks at it."""

import threading
from collections.abc import Sequence

from grounded_seg.coco.schema import JournalInstance, xyxy_from_xywh
from grounded_seg.coco.write import annotation_from_instance
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.records import BoxXyxy, Image

_SAME_IOU = 0.8
"""A box of the same prompt that overlaps so much with one that is there already is the same object again."""


class AskAgain:
    """Models that are loaded, and asked by one thread at a time."""

    def __init__(self, models: GroundedSegmenter) -> None:
        """Keep the models."""
        self._models = models
        self._lock = threading.Lock()

    def __call__(self, image: Image, prompt: str, known: Sequence[JournalInstance]) -> list[JournalInstance]:
        """Ask, and give what isn't known yet, as a run would have it.

        Raises:
            UsageError: If nothing is asked for.
            DeviceMemoryError: If it is too much for the device.
        """
        # A list: a text that begins with @ would name a file.
        with self._lock:
            found = [annotation_from_instance(one) for one in self._models(image, prompt.split(";")).instances]
        return [one for one in found if not _is_known(one, known)]


def _is_known(one: JournalInstance, known: Sequence[JournalInstance]) -> bool:
    prompt = one["attributes"]["prompt"]
    boxes = [_box_xyxy(other) for other in known if other["attributes"]["prompt"] == prompt]
    ious = pairwise_iou(array_from_boxes([_box_xyxy(one)]), array_from_boxes(boxes))
    return bool((ious >= _SAME_IOU).any())


def _box_xyxy(one: JournalInstance) -> BoxXyxy:
    x, y, width, height = one["detector_bbox"]
    return xyxy_from_xywh((x, y, width, height))
