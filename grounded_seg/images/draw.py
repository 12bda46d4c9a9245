"""Draw what was found on a copy of the image: masks with an outline around them, boxes, and labels with scores.

Objects keep their own colour: the tint is thin, and the outline lies outside of the mask, in the colour of the prompt
between two dark lines, so that it shows on any ground. Labels stand where they hide as little as possible of objects.
"""

import io
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import PIL.Image
import PIL.ImageShow

from grounded_seg.files import UNFINISHED, name_within_limit
from grounded_seg.geometry.boxes import array_from_boxes
from grounded_seg.geometry.masks import mask_from_run_length, opencv, tight_box_xyxy
from grounded_seg.records import BoxXyxy, Image, ImageResult, ImageSize, Instance, RunLength

Canvas: TypeAlias = npt.NDArray[np.uint8]
"""RGB, (height, width, 3), C-contiguous; drawn on in place."""
Colour: TypeAlias = tuple[int, int, int]

PALETTE: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)
"""RGB of one colour per prompt, told apart by people with any kind of colour vision (Okabe and Ito, 2008)."""

_MASK_OPACITY = 0.15
_SMALL_SHARE = 12.0
"""Lines around a small object are at most its side divided by this."""
_FAR = 1e3
"""Cost of hiding another label."""
_TEXT_WEIGHT = 600


def draw(image: Image, result: ImageResult, prompts: Sequence[str] = (), *, with_scores: bool = True) -> Canvas:
    """Draw every instance, the best on top, and return a new image; lines and letters grow with it.

    `prompts` are the run's, whose colours are then the same on every image; others follow as they appear.
    """
    canvas = np.array(image.pixels, order="C")
    every_prompt = dict.fromkeys([*prompts, *(instance.detection.prompt for instance in result.instances)])
    colours = dict(zip(every_prompt, cycle(PALETTE), strict=False))
    worst_first = sorted(result.instances, key=lambda instance: instance.detection.score)
    line_px = max(1, round(_unit_px(image.size) / 6))
    for instance in worst_first:
        if instance.mask is not None:
            _draw_mask(canvas, instance.mask, colours[instance.detection.prompt], line_px)
    for instance in worst_first:
        # Beside an outline the box needs no more than a thin line.
        box_px = line_px if instance.mask is None else max(1, line_px // 2)
        _draw_box(canvas, instance.box_xyxy, colours[instance.detection.prompt], box_px)
    for chip in reversed(_placed_chips(result.instances, image.size, with_scores)):
        _draw_chip(canvas, chip, colours[chip.prompt])
    return canvas


def save_picture(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write RGB (height, width, 3) or grey (height, width) pixels in the format of the path's ending.

    Its folder is made where that is missing, an older file replaced. The file is whole, or not there; but for a power
    failure, as it isn't synced.
    """
    encoded = encoded_picture(pixels, path.suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(name_within_limit(f".{path.name}", UNFINISHED))
    # Not by Pillow, whose encoders don't notice when a disk that gets full takes but a part of what they write.
    try:
        unfinished.write_bytes(encoded)
        unfinished.replace(path)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink()
        if error.filename == str(unfinished):
            error.filename = str(path)
        raise


def encoded_picture(pixels: npt.NDArray[np.uint8], ending: str, longest_side_px: int | None = None) -> bytes:
    """Encode RGB (height, width, 3) or grey (height, width) pixels in the format of a file's ending.

    Where a longest side is given, a larger picture is made smaller.
    """
    file_format = PIL.Image.registered_extensions().get(ending.lower())
    if file_format is None:
        raise ValueError(f"{ending!r} is no image format's ending")
    picture = PIL.Image.fromarray(pixels)
    if longest_side_px is not None:
        picture.thumbnail((longest_side_px, longest_side_px))
    encoded = io.BytesIO()
    # Pillow rather than OpenCV: it takes any file name on any system. JPEG at 90 shows no blocks around letters.
    picture.save(encoded, file_format, quality=90)
    return encoded.getvalue()


def show_picture(pixels: npt.NDArray[np.uint8], title: str) -> bool:
    """Open RGB (height, width, 3) pixels in the system's viewer; False where there is none."""
    return PIL.ImageShow.show(PIL.Image.fromarray(pixels), title)


def _unit_px(size: ImageSize) -> float:
    """The height of letters that suits the image: 14 px on 640 x 480, growing with the side of an equal square."""
    return max(11.0, math.sqrt(size.width * size.height) / 40)


def _draw_mask(canvas: Canvas, run_length: RunLength, colour: Colour, line_px: int) -> None:
    """Tint the mask's pixels a little and draw lines around them; only its part of the image is touched."""
    mask = mask_from_run_length(run_length)
    x0, y0, x1, y1 = (int(edge) for edge in tight_box_xyxy(run_length))
    # Thin lines around small objects: they would meet those of the next.
    width_px = min(line_px * 1.5, max(1.0, math.sqrt((x1 - x0) * (y1 - y0)) / _SMALL_SHARE))
    edge_px = max(1.0, width_px / 2)
    margin = math.ceil(width_px + 2 * edge_px) + 1
    rows, columns = slice(max(y0 - margin, 0), y1 + margin), slice(max(x0 - margin, 0), x1 + margin)
    part, inside = canvas[rows, columns], np.ascontiguousarray(mask[rows, columns])
    _blend(part, inside * _MASK_OPACITY, colour)
    cv2 = opencv()
    # Of each pixel outside, how far its centre is from the mask's edge.
    distance = cv2.distanceTransform((~inside).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - 0.5
    outside = ~inside
    _blend(part, outside * _line(distance, 0.0, width_px + 2 * edge_px), _dark(colour))
    _blend(part, outside * _line(distance, edge_px, edge_px + width_px), colour)


def _line(distance: npt.NDArray[np.float32], near: float, far: float) -> npt.NDArray[np.float32]:
    """Opacity of each pixel of a line between two distances, with soft edges but at distance 0."""
    inner = np.ones_like(distance) if near == 0 else np.clip(distance - near + 0.5, 0, 1)
    opacity: npt.NDArray[np.float32] = np.minimum(inner, np.clip(far - distance + 0.5, 0, 1))
    return opacity


def _blend(part: Canvas, opacity: npt.NDArray[np.floating], colour: Colour) -> None:
    """Paint with an opacity for each pixel."""
    rows, columns = np.nonzero(opacity)
    weight = opacity[rows, columns, None]
    part[rows, columns] = np.rint(part[rows, columns] * (1 - weight) + np.array(colour) * weight).astype(np.uint8)


def _dark(colour: Colour) -> Colour:
    return (colour[0] // 4, colour[1] // 4, colour[2] // 4)


def _draw_box(canvas: Canvas, box_xyxy: BoxXyxy, colour: Colour, line_px: int) -> None:
    """Draw the box's edges, a light line on a darker one, so that it shows on any ground."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = (round(edge) for edge in box_xyxy)
    # A half-open box ends before its right and bottom edge, and the image's last pixel is at width - 1.
    corners = (max(x0, 0), max(y0, 0)), (min(x1, width) - 1, min(y1, height) - 1)
    dark = _dark(colour)
    cv2 = opencv()
    cv2.rectangle(canvas, *corners, dark, line_px + 2)
    cv2.rectangle(canvas, *corners, colour, line_px)


@dataclass(frozen=True)
class _Chip:
    """A label's text and its place, in pixels."""

    text: str
    prompt: str
    x: int
    y: int
    width: int
    height: int
    text_px: int
    padding_px: int

    @property
    def box_xyxy(self) -> BoxXyxy:
        """Where it stands."""
        return (self.x, self.y, self.x + self.width, self.y + self.height)


def _placed_chips(instances: Sequence[Instance], size: ImageSize, with_scores: bool) -> list[_Chip]:
    """Give each label a place at its box, the best first: where it hides least of objects, and no other label."""
    cv2 = opencv()
    font, text_px = cv2.FontFace("sans"), round(_unit_px(size))
    padding_px = max(2, text_px // 4)
    height = round(text_px * 1.2) + padding_px
    boxes = array_from_boxes([one.box_xyxy for one in instances])
    placed: list[_Chip] = []
    for instance in sorted(instances, key=lambda one: -one.detection.score):
        detection = instance.detection
        # On one line, and without half characters, at which OpenCV's text crashes.
        words = detection.label.encode("utf-8", "replace").decode("utf-8").split()
        text = " ".join([*words, f"{detection.score:.2f}"] if with_scores else words)
        width = cv2.getTextSize((0, 0), text, (0, 0), font, text_px, _TEXT_WEIGHT)[2] + 2 * padding_px
        x0, y0, x1, y1 = (round(edge) for edge in detection.box_xyxy)
        tries = []
        for x, y in (
            *((x, y) for y in (y0 - height, y1) for x in (x0, x1 - width)),
            *((x, y) for x in (x1, x0 - width) for y in (y0, y1 - height)),
            *((x0, y) for y in (y0, y1 - height)),
        ):
            inside = max(0, min(x, size.width - width)), max(0, min(y, size.height - height))
            tries.append(_Chip(text, detection.prompt, *inside, width, height, text_px, padding_px))
        others = array_from_boxes([one.box_xyxy for one in placed])
        hidden = _hidden_shares(tries, boxes) + _FAR * _hidden_shares(tries, others)
        # A hundredth is no reason to stand elsewhere.
        placed.append(tries[int(np.argmin(hidden.round(2)))])
    return placed


def _hidden_shares(chips: Sequence[_Chip], boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """For each chip the sum, over all boxes (n, 4), of the share of a box that it hides."""
    own = array_from_boxes([one.box_xyxy for one in chips])[:, None]
    sides = np.minimum(own[..., 2:], boxes[:, 2:]) - np.maximum(own[..., :2], boxes[:, :2])
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).clip(0).prod(axis=1), 1.0)
    shares: npt.NDArray[np.float64] = (sides.clip(0).prod(axis=2) / areas).sum(axis=1)
    return shares


def _draw_chip(canvas: Canvas, chip: _Chip, colour: Colour) -> None:
    """Write the text on a ground of the colour, in the ink that reads better on it."""
    cv2 = opencv()
    corner = (chip.x + chip.width - 1, chip.y + chip.height - 1)
    cv2.rectangle(canvas, (chip.x, chip.y), corner, colour, cv2.FILLED)
    # How bright the eye sees the three, from ITU-R BT.601.
    brightness = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = (20, 20, 20) if brightness > 100 else (255, 255, 255)
    # Capital letters are 0.72 of the font's size.
    baseline = chip.y + (chip.height + round(chip.text_px * 0.72)) // 2
    font = cv2.FontFace("sans")
    cv2.putText(canvas, chip.text, (chip.x + chip.padding_px, baseline), ink, font, chip.text_px, _TEXT_WEIGHT)
