"""Resizing to Segment Anything's input: the longer side to the model's side, the shorter one in proportion.

As segment-anything's `ResizeLongestSide` does, except that a side is at least a pixel: 5000 x 1 becomes 1024 x 1, where
the original fails on 1024 x 0.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import PIL.Image

from grounded_seg.records import BoxXyxy, ImageSize


def resized_size(size: ImageSize, longest_side: int) -> ImageSize:
    """The size whose longer side has `longest_side` pixels, rounded half up.

    >>> resized_size(ImageSize(1280, 720), 1024)
    ImageSize(width=1024, height=576)
    """
    scale = longest_side * 1.0 / max(size.width, size.height)
    return ImageSize(width=max(1, int(size.width * scale + 0.5)), height=max(1, int(size.height * scale + 0.5)))


def resized_pixels(pixels: npt.NDArray[np.uint8], size: ImageSize) -> npt.NDArray[np.uint8]:
    """RGB pixels (height, width, 3) resized by Pillow's antialiased bilinear filter."""
    resized = PIL.Image.fromarray(pixels).resize((size.width, size.height), PIL.Image.Resampling.BILINEAR)
    return np.array(resized)


def resized_boxes(boxes_xyxy: Sequence[BoxXyxy], size: ImageSize, resized: ImageSize) -> npt.NDArray[np.float32]:
    """Boxes in pixels of the resized image, (n, 4); (0, 4) for no boxes.

    Raises:
        ValueError: If a box isn't finite, has no area, or lies outside the image altogether.
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    for index, box in enumerate(boxes):
        _check_box(box, size, index)
    scale_xy = (resized.width / size.width, resized.height / size.height)
    scaled: npt.NDArray[np.float32] = (boxes * np.tile(scale_xy, 2)).astype(np.float32)
    return scaled


def _check_box(box_xyxy: npt.NDArray[np.float64], size: ImageSize, index: int) -> None:
    x0, y0, x1, y1 = box_xyxy.tolist()
    named = f"box {index} ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not np.isfinite(box_xyxy).all():
        raise ValueError(f"{named} isn't finite")
    if x0 >= x1 or y0 >= y1:
        raise ValueError(f"{named} has no area: x0 < x1 and y0 < y1 are required")
    if x1 <= 0 or y1 <= 0 or x0 >= size.width or y0 >= size.height:
        raise ValueError(f"{named} lies outside the image of {size.width} x {size.height} pixels")
