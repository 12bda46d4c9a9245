"""Objects of a COCO file, read in one way by every command: box, mask, area, crowd and score.

What can be read in one way is read, and the notes count it. A mask that can't be read is lost, its box is kept. What
could be read in two ways, or not at all, is a `ValueError`; the caller knows the file and the place in it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from grounded_seg.coco.values import (
    AmbiguousError,
    Notes,
    box_xywh,
    is_crowd,
    mask_of,
    noted_number,
    plain_numbers,
    plain_segmentation,
    shown,
)
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.records import ImageSize, RunLength

BoxXywh: TypeAlias = tuple[float, float, float, float]
"""Left, top, width, height in pixels."""


@dataclass(frozen=True)
class Shape:
    """Where an object is."""

    box_xywh: BoxXywh
    mask: RunLength | None
    """None where there is only a box; never without a pixel."""
    segmentation: list[Any] | Mapping[str, Any]
    """The mask in COCO's own form, [] for none: what the file gives, where that is in this form."""


@dataclass(frozen=True)
class CocoObject:
    """An annotation whose image and class the caller knows."""

    shape: Shape
    area: float
    """In square pixels, as the annotator says, or the mask's or box's own."""
    is_crowd: bool
    score: float | None

    def plain(self, raw: Mapping[str, Any]) -> dict[str, Any]:
        """The annotation in the form that every reader takes; what is in it already stays as it is."""
        plain = dict(raw)
        box, score = plain_numbers(raw.get("bbox")), raw.get("score")
        if box != list(self.shape.box_xywh):
            plain["bbox"] = [_short(value) for value in self.shape.box_xywh]
        if raw.get("segmentation") != self.shape.segmentation:
            plain["segmentation"] = _short_polygons(self.shape.segmentation)
        if plain_numbers([raw.get("area")]) is None:
            plain["area"] = _short(self.area)
        if type(raw.get("iscrowd")) is not int or raw["iscrowd"] not in (0, 1):
            plain["iscrowd"] = int(self.is_crowd)
        if isinstance(score, str):
            plain["score"] = self.score
        return plain


def object_of(raw: Mapping[str, Any], size: ImageSize | None, place: str, notes: Notes) -> CocoObject | None:
    """Read an annotation on an image of this size; None where it stands for nothing, with a box of no extent."""
    crowd = is_crowd(raw, place, notes)
    if raw.get("iscrowd") is None:
        notes.add("objects without iscrowd were taken as single ones", place)
    shape = shape_of(raw.get("bbox"), raw.get("segmentation"), size, place, notes, "objects")
    if shape is None:
        return None
    if isinstance(shape.segmentation, Mapping) and isinstance(shape.segmentation["counts"], list) and not crowd:
        # COCO writes crowds so.
        notes.add("run lengths written as lists of counts were read", f"{place}.segmentation")
    if raw.get("area") is None:
        notes.add("objects without an area were measured", place)
        width, height = shape.box_xywh[2:]
        area = width * height if shape.mask is None else float(area_px(shape.mask))
    else:
        area = noted_number(raw["area"], "area", f"{place}.area", notes)
    score = raw.get("score")
    return CocoObject(
        shape, area, crowd, None if score is None else noted_number(score, "score", f"{place}.score", notes)
    )


def is_plain(raw: Mapping[str, Any]) -> bool:
    """Whether an annotation has the form that our own runs write, seen without looking into its mask."""
    match plain_numbers(raw.get("bbox")):
        case [_, _, width, height] if min(width, height) >= 0 and width + height > 0:
            pass
        case _:
            return False
    mask = raw.get("segmentation")
    is_mask = mask == [] or (isinstance(mask, Mapping) and isinstance(mask.get("counts"), str) and "size" in mask)
    numbers = plain_numbers([raw.get("area"), raw.get("score", 0.0)])
    return is_mask and numbers is not None and type(raw.get("iscrowd")) is int and raw["iscrowd"] in (0, 1)


def shape_of(
    bbox: Any, segmentation: Any, size: ImageSize | None, place: str, notes: Notes, whose: str
) -> Shape | None:
    """Box and mask, either of which may be missing; None for a box of no extent without a mask.

    Without a box, or with one of no extent, the mask's tight box is taken. A mask without a pixel is none.

    Raises:
        ValueError: If there is neither, the box is no box, or the mask is of another size than its image.
    """
    box = box_xywh(bbox, f"{place}.bbox", notes)
    if box is not None and min(box[2:]) < 0:
        raise ValueError(f"bbox {shown(bbox)} has a negative side; COCO's boxes are x, y, width, height")
    form, mask = _mask_or_none(segmentation, size, f"{place}.segmentation", notes, has_box=box is not None)
    if box is None and mask is None:
        raise ValueError("it has neither bbox nor segmentation")
    if box is None or not any(box[2:]):
        if mask is None:
            notes.add(f"{whose} with a box of no width and no height were left out", place)
            return None
        notes.add(f"{whose} without a bbox got their mask's", place)
        x0, y0, x1, y1 = tight_box_xyxy(mask)
        box = (x0, y0, x1 - x0, y1 - y0)
    return Shape(box, mask, [] if mask is None or form is None else form)


def _mask_or_none(
    raw: Any, size: ImageSize | None, place: str, notes: Notes, *, has_box: bool
) -> tuple[list[Any] | Mapping[str, Any] | None, RunLength | None]:
    """Mask with its plain form; one that can't be read, or has no pixel, is none where there is a box to keep."""
    try:
        form = plain_segmentation(raw, place, notes)
        mask = mask_of(form, size)
    except AmbiguousError:
        raise
    except ValueError as error:
        if not has_box:
            raise
        reason = str(error).partition("; ")[0]
        notes.add("masks that can't be read were left out, and their boxes kept", f"{place}: {reason}")
        return None, None
    if mask is not None and not area_px(mask):
        notes.add("masks without a pixel were left out, and their boxes kept", place)
        return None, None
    return form, mask


def _short_polygons(form: list[Any] | Mapping[str, Any]) -> list[Any] | Mapping[str, Any]:
    return form if isinstance(form, Mapping) else [[_short(value) for value in part] for part in form]


def _short(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value
