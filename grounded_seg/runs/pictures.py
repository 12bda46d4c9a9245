"""The pictures that a run writes for an image: an overlay, a mask or a cut-out for each instance."""

import math

import numpy as np
import numpy.typing as npt

from grounded_seg.files import as_output_error
from grounded_seg.geometry.masks import mask_from_run_length
from grounded_seg.images.draw import draw, save_picture
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import BoxXyxy, Image
from grounded_seg.runs.folder import RunFolder
from grounded_seg.settings import Drawn

_JPEG_MAX_SIDE_PX = 65_500
"""The most that libjpeg takes."""


def write_pictures(
    folder: RunFolder, file_name: str, image: Image, result: PromptedResult, save: frozenset[Drawn]
) -> None:
    """Write those pictures of an image that were asked for."""
    with as_output_error(folder.root):
        if Drawn.OVERLAY in save:
            # For a picture to look at: a JPEG takes a fiftieth of a PNG's time.
            ending = "jpg" if max(image.width, image.height) <= _JPEG_MAX_SIDE_PX else "png"
            save_picture(folder.overlay(file_name, ending), draw(image, result, result.asked.prompts))
        for number, instance in enumerate(result.instances, start=1):
            if Drawn.MASKS in save and instance.mask is not None:
                # White where the object is, black elsewhere.
                save_picture(folder.mask(file_name, number), mask_from_run_length(instance.mask) * np.uint8(255))
            if Drawn.CROPS in save:
                save_picture(folder.crop(file_name, number), crop(image.pixels, instance.box_xyxy))


def crop(pixels: npt.NDArray[np.uint8], box_xyxy: BoxXyxy) -> npt.NDArray[np.uint8]:
    """Cut a box out of an image, (height, width, 3), every pixel that it touches.

    >>> crop(np.zeros((10, 10, 3), np.uint8), (2.5, 0.0, 4.5, 1.0)).shape
    (1, 3, 3)
    """
    x0, y0, x1, y1 = box_xyxy
    return pixels[max(0, math.floor(y0)) : math.ceil(y1), max(0, math.floor(x0)) : math.ceil(x1)]
