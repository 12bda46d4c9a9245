"""Read the values of an annotation as people's tools write them: ids, numbers, boxes and masks, also as text.

Each function takes the raw JSON value and gives a clean one, or raises `ValueError` with what is wrong; the caller
knows the file and place. What was read although it isn't written as COCO says is told to `Notes`.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import run_length_from_coco, run_length_from_polygons
from grounded_seg.records import ImageSize, RunLength


class Notes:
    """Counts what was read in spite of its form, and remembers where it was first seen."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: str = "") -> None:
        """Count one more of this kind."""
        n, first = self._seen.get(what, (0, place))
        self._seen[what] = (n + 1, first)

    def lines(self) -> tuple[str, ...]:
        """Give a line for each kind: how often, and where first."""
        return tuple(
            what if not first else f"{what} ({'once' if n == 1 else f'{n} times'}, first in {first})"
            for what, (n, first) in self._seen.items()
        )


def id_text(raw: Any) -> str:
    """Give an id's text, by which references are followed: 7, 7.0 and "7" are one id.

    Raises:
        ValueError: If it is no id.
    """
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or raw == "":
        raise ValueError(f"{_shown(raw)} is no id")
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    text = str(raw).strip()
    return str(int(text)) if text.isascii() and text.isdigit() else text


def number(raw: Any) -> float:
    """Read a finite number, also from text.

    Raises:
        ValueError: If it is none.
    """
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{_shown(raw)} is no number")
    return value


def box_xywh(raw: Any, place: str, notes: Notes) -> list[float] | None:
    """Read a box: left, top, width, height in pixels; None where there is none.

    Raises:
        ValueError: If it isn't four numbers, or a side is negative.
    """
    value = _from_text(raw, "boxes written as text were read as numbers", place, notes)
    if value is None or value == []:
        return None
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError(f"bbox {_shown(raw)} isn't x, y, width, height")
    box = [number(one) for one in value]
    if box[2] < 0 or box[3] < 0:
        raise ValueError(f"bbox {_shown(raw)} has a negative side; COCO's boxes are x, y, width, height")
    return box


def mask_of(raw: Any, size: ImageSize | None, place: str, notes: Notes) -> RunLength | None:
    """Read a segmentation: polygons, plain or compressed run lengths; None where there is none.

    Raises:
        ValueError: If it is neither, or not of the image's size.
    """
    value = _from_text(raw, "segmentations written as text were read", place, notes)
    if not value or value == [[]]:
        return None
    if isinstance(value, Mapping):
        try:
            run_length = run_length_from_coco(value)
        except InputError as error:
            raise ValueError(str(error)) from error
        if size is not None and run_length.size != size:
            mask = run_length.size
            raise ValueError(f"the mask is {mask.width} x {mask.height} px, its image {size.width} x {size.height} px")
        return run_length
    if size is None:
        raise ValueError("its image has no width and height, which polygons need")
    return _from_polygons(value, size, place, notes)


def mask_of_box(box_xywh: tuple[float, float, float, float], size: ImageSize) -> RunLength:
    """Fill the part of a box that is within the image: x, y, width, height in pixels."""
    x, y, width, height = box_xywh
    x0, x1 = np.clip([x, x + width], 0, size.width)
    y0, y1 = np.clip([y, y + height], 0, size.height)
    within = np.array([[x0, y0, x1 - x0, y1 - y0]], dtype=np.float64)
    [filled] = coco_mask.frPyObjects(within, size.height, size.width)
    return RunLength(size=size, counts=filled["counts"])


def _from_polygons(value: Any, size: ImageSize, place: str, notes: Notes) -> RunLength | None:
    """Rasterise polygons as pycocotools does, all parts together."""
    if not isinstance(value, list):
        raise ValueError(f"segmentation {_shown(value)} is neither polygons nor run lengths")
    if not isinstance(value[0], list | str):
        notes.add("polygons that are not in a list of parts were read as one part", place)
        value = [value]
    parts = []
    for raw in value:
        part = _from_text(raw, "segmentations written as text were read", place, notes)
        if not isinstance(part, list) or len(part) % 2:
            raise ValueError(f"polygon {_shown(part)} isn't x, y, x, y, ...")
        corners = [number(one) for one in part]
        if len(corners) < 6:
            # pycocotools takes four numbers for a box, and stops at two.
            notes.add("polygon parts with fewer than three corners were left out", place)
        else:
            parts.append(corners)
    if not parts:
        return None
    try:
        return run_length_from_polygons(parts, size)
    except InputError as error:
        raise ValueError(str(error)) from error


def _from_text(raw: Any, what: str, place: str, notes: Notes) -> Any:
    """Read a list that was written as text: "[1, 2, 3, 4]" or "1 2 3 4"."""
    if not isinstance(raw, str):
        return raw
    try:
        value = json.loads(raw) if raw.strip().startswith(("[", "{")) else raw.replace(",", " ").split()
    except json.JSONDecodeError as error:
        raise ValueError(f"{_shown(raw)} is text that is no list of numbers") from error
    notes.add(what, place)
    return value


def _shown(raw: Any) -> str:
    """Quote a value, shortened, on one line."""
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
