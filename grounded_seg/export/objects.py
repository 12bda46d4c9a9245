"""What of an image's labels a format has room for; what it hasn't is counted."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from grounded_seg.coco.labels import Label, LabelledImage, Losses
from grounded_seg.export.settings import MaskForm
from grounded_seg.geometry.masks import area_px, run_length_from_mask
from grounded_seg.geometry.polygons import Ring
from grounded_seg.records import ImageSize, RunLength

_IMAGE_KEYS = frozenset({"id", "file_name", "width", "height"})
_LABEL_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "score"})
"""What every format writes in its own way, or counts by itself."""


def single_objects(image: LabelledImage, losses: Losses, *, keeps_attributes: bool = True) -> Iterator[Label]:
    """Give the labels of single objects, for formats without a word for crowds; those are counted.

    So is what else the file says of the image and its labels, and these formats have no word for.

    Args:
        image: Its labels are given in their order.
        losses: Told what is left out.
        keeps_attributes: Whether the format has room for the labels' attributes.
    """
    losses.add_all("images", _further(image.record, _IMAGE_KEYS))
    for label in image.labels:
        if label.is_crowd:
            losses.add("crowd regions left out")
            continue
        known = _LABEL_KEYS | {"attributes"} if keeps_attributes else _LABEL_KEYS
        losses.add_all("labels", _further(label.record, known))
        yield label


def _further(record: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    return [key for key, value in record.items() if key not in known and value not in (None, "", [], {})]


def mask_to_write(label: Label, form: MaskForm, losses: Losses) -> RunLength | None:
    """Give the mask to write, or None to write the box; a mask that isn't to be written, or is empty, is counted."""
    if label.mask is None:
        return None
    is_empty = area_px(label.mask) == 0
    losses.add("empty masks written as their boxes", is_empty and form is not MaskForm.NONE)
    losses.add("masks left out", form is MaskForm.NONE)
    return None if is_empty or form is MaskForm.NONE else label.mask


def drawn_mask(rings: Sequence[Ring], size: ImageSize) -> RunLength:
    """Fill pixel-centre polygons as readers do that draw an outline along with its inside."""
    canvas = np.zeros((size.height, size.width), np.uint8)
    for ring in rings:
        # One by one: together, what two of them cover would be left out.
        cv2.fillPoly(canvas, [np.floor(ring).astype(np.int32)], 1)
    return run_length_from_mask(canvas.astype(np.bool_))
