"""The values of a COCO file: ids, numbers, sizes, boxes and masks, each kind read here and nowhere else.

Each function takes the raw JSON value and gives a clean one, or raises `ValueError` with what is wrong; the caller
knows the file and the place in it. With `Notes` a value may be written as people's tools write it, for instance as
text, and the notes say so; without, as COCO says.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, TypeGuard

from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import MOST_PX, run_length_from_coco, run_length_from_polygons
from grounded_seg.records import ImageSize, RunLength
from grounded_seg.text.documents import json_of

_BEYOND_64_BITS = 2**63
_WHOLE_NUMBER = re.compile(r"[0-9]+(\.0*)?")
_AS_TEXT = "numbers written as text were read"


class AmbiguousError(ValueError):
    """Two values contradict each other or one is missing, so that a shape can be read in two ways or in none."""


class Notes:
    """Notes of unusual forms that were read: how often each, and where first."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int, str]] = {}

    def add(self, what: str, place: str = "", n: int = 1) -> None:
        """Count one more of this kind, or several; none where `n` is 0."""
        if n:
            n_before, first = self._seen.get(what, (0, place))
            self._seen[what] = (n_before + n, first)

    def lines(self) -> tuple[str, ...]:
        """Give a line for each kind: how often, and where first."""
        return tuple(
            what if not first else f"{what} ({'once' if n == 1 else f'{n} times'}, first in {first})"
            for what, (n, first) in self._seen.items()
        )


def id_text(raw: Any) -> str:
    """Text of an id, by which references are followed: 7, 7.0 and "7" are one id."""
    if isinstance(raw, bool) or not isinstance(raw, int | float | str) or raw == "":
        raise ValueError(f"{shown(raw)} is no id")
    if isinstance(raw, float) and raw.is_integer():
        raw = int(raw)
    text = str(raw).strip()
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(f"{shown(raw)} is no id: it holds half a character") from error
    return str(int(text.partition(".")[0])) if _WHOLE_NUMBER.fullmatch(text) else text


def is_plain_id(raw: Any) -> TypeGuard[int]:
    """Whether an id is as every reader wants it: a whole number from 1 that 64 bits hold."""
    return type(raw) is int and 1 <= raw < _BEYOND_64_BITS


def number(raw: Any, name: str = "") -> float:
    """Finite number, also from text; an error begins with its name."""
    try:
        value = math.nan if isinstance(raw, bool) else float(raw)
    except (TypeError, ValueError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} {shown(raw)} is no number".strip())
    return value


def noted_number(raw: Any, name: str, place: str, notes: Notes) -> float:
    """Finite number, with a note where it is text; an error begins with its name."""
    value = number(raw, name)
    if isinstance(raw, str):
        notes.add(_AS_TEXT, place)
    return value


def number_or_none(raw: Any) -> float | None:
    """Finite number, also from text; None where it is none."""
    try:
        return number(raw)
    except ValueError:
        return None


def plain_numbers(raw: Any) -> list[float] | None:
    """List of finite numbers; None for anything else: text is no number, nor is what 64 bits don't hold."""
    # Whole numbers have no end in JSON and in Python.
    if not isinstance(raw, list) or not all(
        math.isfinite(one) if isinstance(one, float) else type(one) is int and abs(one) < _BEYOND_64_BITS for one in raw
    ):
        return None
    return list(map(float, raw))


def image_size(image: Mapping[str, Any], place: str = "", notes: Notes | None = None) -> ImageSize | None:
    """Size that an image's record gives; None where it gives none."""
    if image.get("width") is None or image.get("height") is None:
        return None
    if notes is not None and any(isinstance(image[side], str) for side in ("width", "height")):
        notes.add(_AS_TEXT, place)
    width, height = (number(image[side], "width or height") for side in ("width", "height"))
    # Beyond the last, no mask can be made, and sums of pixels leave 64 bits.
    if min(width, height) < 1 or not (width.is_integer() and height.is_integer()) or width * height > MOST_PX:
        raise ValueError(f"its size is {width:g} x {height:g} px")
    return ImageSize(width=int(width), height=int(height))


def plain_size(image: Mapping[str, Any]) -> ImageSize | None:
    """Size that an image's record gives as two whole numbers; None where it gives another, or no image is so large."""
    width, height = image.get("width"), image.get("height")
    if type(width) is not int or type(height) is not int or min(width, height) < 1 or width * height > MOST_PX:
        return None
    return ImageSize(width, height)


def is_crowd(annotation: Mapping[str, Any], place: str = "", notes: Notes | None = None) -> bool:
    """Whether an annotation stands for a region of many objects; without `iscrowd` it doesn't."""
    raw = annotation.get("iscrowd")
    if isinstance(raw, bool):
        if notes is not None:
            notes.add("iscrowd written as true or false was read as 1 or 0", place)
        return raw
    if notes is not None and isinstance(raw, str) and raw:
        notes.add(_AS_TEXT, place)
    return bool(number(raw, "iscrowd")) if raw else False


def box_xywh(raw: Any, place: str = "", notes: Notes | None = None) -> tuple[float, float, float, float] | None:
    """Box as left, top, width, height in pixels; None where there is none. Sides may be negative."""
    value = _from_text(raw, "boxes written as text were read as numbers", place, notes)
    if value is None or value == []:
        return None
    if not isinstance(value, list | tuple) or len(value) != 4:
        raise ValueError(f"bbox {shown(raw)} isn't x, y, width, height")
    x, y, width, height = map(number, value)
    if notes is not None and value is raw and any(isinstance(one, str) for one in value):
        notes.add(_AS_TEXT, place)
    return (x, y, width, height)


def mask_of(raw: Any, size: ImageSize | None, place: str = "", notes: Notes | None = None) -> RunLength | None:
    """Mask of polygons, plain or compressed run lengths, of the image's size where that is known; None for none.

    Raises:
        AmbiguousError: If the mask's size isn't the image's, or polygons come without a size.
        ValueError: If it is no mask.
    """
    value = raw if notes is None else plain_segmentation(raw, place, notes)
    if not value:
        return None
    try:
        if not isinstance(value, Mapping):
            return _mask_of_polygons(value, size)
        mask = run_length_from_coco(value)
    except InputError as error:
        raise ValueError(str(error)) from error
    if size is not None and mask.size != size:
        own = mask.size
        swapped = "; width and height are swapped" if own == ImageSize(size.height, size.width) else ""
        raise AmbiguousError(
            f"the mask is {own.width} x {own.height} px, its image {size.width} x {size.height} px{swapped}"
        )
    return mask


def plain_segmentation(raw: Any, place: str, notes: Notes) -> list[list[float]] | Mapping[str, Any] | None:
    """Segmentation in COCO's own form, polygons or run lengths, of the forms that tools write; None for none."""
    value = _from_text(raw, "segmentations written as text were read", place, notes)
    if not value or value == [[]]:
        return None
    if isinstance(value, Mapping):
        return _plain_run_lengths(value, place, notes)
    if not isinstance(value, list):
        raise ValueError(f"segmentation {shown(value)} is neither polygons nor run lengths")
    is_flat = not isinstance(value[0], list | str)
    read = [_from_text(part, "segmentations written as text were read", place, notes) for part in _parts(value)]
    for part in read:
        if not isinstance(part, list) or len(part) % 2:
            raise ValueError(f"polygon {shown(part)} isn't x, y, x, y, ...")
    # pycocotools takes four numbers for a box, and stops at two.
    whole = [part for part in read if len(part) >= 6]
    if not whole:
        raise ValueError(f"polygon {shown(read[0])} has fewer than three corners")
    polygons = [list(map(number, part)) for part in whole]
    if is_flat:
        notes.add("polygons that are not in a list of parts were read as one part", place)
    if len(whole) < len(read):
        notes.add("polygon parts with fewer than three corners were left out", place)
    if value is raw and any(isinstance(one, str) for part in whole for one in part):
        notes.add(_AS_TEXT, place)
    return raw if polygons == raw else polygons


def list_from_text(text: str) -> Any:
    """JSON value that was written as text, or words between spaces and commas: "[1, 2]", "1, 2" or "1 2"."""
    if text.strip().startswith(("[", "{")):
        try:
            return json_of(text)
        except ValueError as error:
            raise ValueError(f"{shown(text)} is text that is no list of numbers") from error
    return text.replace(",", " ").split()


def _parts(value: list[Any]) -> list[Any]:
    return value if isinstance(value[0], list | str) else [value]


def _plain_run_lengths(value: Mapping[str, Any], place: str, notes: Notes) -> Mapping[str, Any]:
    """Run lengths of whole numbers, or compressed; what else is in them is refused where the mask is made."""
    plain = dict(value)
    for key in ("size", "counts"):
        if key not in value:
            raise ValueError(f'the mask has no "{key}"')
        listed = value[key]
        # Compressed counts in memory are bytes, as pycocotools makes them.
        if not isinstance(listed, list | tuple | str | bytes) or (key == "size" and len(listed) != 2):
            raise ValueError(
                f"{key} of the mask is {shown(listed)}, no list of {'two ' * (key == 'size')}whole numbers"
            )
        # A list of thousands is looked at once, as it nearly always is what it has to be.
        if isinstance(listed, list) and any(type(one) is not int for one in listed):
            numbers = [number(one) for one in listed]
            if not all(one.is_integer() for one in numbers):
                raise ValueError(f"{key} of the mask are no whole numbers")
            plain[key] = list(map(int, numbers))
            notes.add(_AS_TEXT, place, any(isinstance(one, str) for one in listed))
    return value if plain == value else plain


def _mask_of_polygons(value: Any, size: ImageSize | None) -> RunLength:
    """Rasterise polygons as pycocotools does, all parts together."""
    if not isinstance(value, list):
        raise ValueError(f"segmentation {shown(value)} is neither polygons nor run lengths")
    if size is None:
        raise AmbiguousError("its image has no width and height, which polygons need")
    if not all(isinstance(part, list) for part in value):
        raise ValueError(f"segmentation {shown(value)} is no list of polygons")
    return run_length_from_polygons(value, size)


def _from_text(raw: Any, what: str, place: str, notes: Notes | None) -> Any:
    """Read a list that was written as text, where there are notes to say so."""
    if not isinstance(raw, str) or notes is None:
        return raw
    value = list_from_text(raw)
    notes.add(what, place)
    return value


def shown(raw: Any) -> str:
    """Quote a value, shortened, on one line."""
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:57]}..."
