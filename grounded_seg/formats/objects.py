"""What of an image's labels a format has room for; what it hasn't is counted."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from grounded_seg.export_settings import MaskForm
from grounded_seg.labels import Label, LabelledImage, Losses
from grounded_seg.masks import area_px, run_length_from_mask
from grounded_seg.polygons import Ring
from grounded_seg.records import ImageSize, RunLength


def single_objects(image: LabelledImage, losses: Losses) -> Iterator[Label]:
    """Give the labels of single objects, for formats without a word for crowds; those are counted."""
    for label in image.labels:
        if label.is_crowd:
            losses.add("crowd regions left out")
        else:
            yield label


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
