"""Repairs of an annotation's box, mask and area. What the commands read stays, in the form that every reader takes."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from grounded_seg.coco.check.shapes import shape_faults
from grounded_seg.coco.objects import BoxXywh, object_of
from grounded_seg.coco.values import (
    Notes,
    box_xywh,
    list_from_text,
    mask_of,
    number_or_none,
    plain_numbers,
    plain_segmentation,
)
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.records import ImageSize, RunLength

_OF_BOX = {"bbox-outside", "bbox-beyond-image", "bbox-malformed", "bbox-negative", "bbox-empty", "bbox-as-text"}


@dataclass
class Repairs:
    """List of what was done, a line each."""

    lines: list[str] = field(default_factory=list)

    def add(self, place: str, what: str) -> None:
        """Note a repair."""
        self.lines.append(f"{place}: {what}")


def repair_shape(place: str, annotation: dict[str, Any], size: ImageSize, repairs: Repairs) -> bool:
    """Correct the shape of an annotation; False if there is none, and it must be left out."""
    mask = _corrected_mask(place, annotation, size, repairs)
    box = _box_or_none(annotation)
    if mask is None and box is None:
        repairs.add(place, "left out, it has neither a box nor a mask")
        return False
    if box is not None:
        _write_numbers(place, annotation, "bbox", list(box), repairs)
    faults = {fault.rule for fault in shape_faults(place, annotation, size)}
    if box is None or faults & _OF_BOX:
        corrected = _corrected_box(box, mask, size)
        if corrected is None and "bbox-empty" not in faults:
            repairs.add(place, "left out, its box lies outside the image")
            return False
        # A box that is a line is an object for the commands.
        if corrected is not None:
            repairs.add(f"{place}.bbox", f"{annotation.get('bbox')!r:.60} became {corrected}")
            annotation["bbox"] = corrected
    area = number_or_none(annotation.get("area"))
    if area is not None:
        _write_numbers(place, annotation, "area", area, repairs)
        faults = {fault.rule for fault in shape_faults(place, annotation, size)}
    if faults & {"area-off", "area-malformed", "area-odd"}:
        area = area_px(mask) if mask is not None else annotation["bbox"][2] * annotation["bbox"][3]
        repairs.add(f"{place}.area", f"{annotation.get('area')!r:.40} became {area:g}")
        annotation["area"] = area
    return True


def write_plainly(place: str, annotation: dict[str, Any], repairs: Repairs) -> None:
    """Give an annotation the form that every reader takes, as far as that needs no size of its image.

    Nothing is cut, and nothing left out.
    """
    raw, polygons = annotation.get("segmentation"), False
    with suppress(ValueError):
        form = plain_segmentation(raw, place, Notes())
        polygons = isinstance(form, list)
        _write_numbers(place, annotation, "segmentation", [] if form is None else form, repairs)
    with suppress(ValueError):
        # Polygons aren't measured without a size.
        read = object_of(annotation | ({"segmentation": []} if polygons else {}), None, place, Notes())
        plain = {} if read is None else read.plain(annotation)
        for key in ("bbox", "area"):
            if key in plain and not (key == "area" and polygons and annotation.get("area") is None):
                _write_numbers(place, annotation, key, plain[key], repairs)


def _write_numbers(place: str, annotation: dict[str, Any], key: str, value: Any, repairs: Repairs) -> None:
    """Put a value in the place of one that says the same in another form."""
    old = annotation.get(key)
    if old == value and key in annotation:
        return
    what = (
        "it was missing" if old is None else "text became numbers" if _holds_text(old) else "brought into COCO's form"
    )
    repairs.add(f"{place}.{key}", f"{what}: {value!r:.60}" if old is None else what)
    annotation[key] = value


def _holds_text(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_text, value.values()))
    return any(map(_holds_text, value)) if isinstance(value, list) else isinstance(value, str)


def _box_or_none(annotation: Mapping[str, Any]) -> BoxXywh | None:
    """The box that the commands read, text too; None where it says nothing."""
    with suppress(ValueError):
        box = box_xywh(annotation.get("bbox"), "", Notes())
        return box if box is not None and min(box[2:]) >= 0 and any(box[2:]) else None
    return None


def _corrected_box(box: BoxXywh | None, mask: RunLength | None, size: ImageSize) -> list[float] | None:
    """Take the mask's box, or the part of the box that lies in the image."""
    if mask is not None:
        x0, y0, x1, y1 = tight_box_xyxy(mask)
    elif box is not None:
        x0, y0 = max(box[0], 0.0), max(box[1], 0.0)
        x1, y1 = min(box[0] + box[2], float(size.width)), min(box[1] + box[3], float(size.height))
    else:
        return None
    return [x0, y0, x1 - x0, y1 - y0] if x1 > x0 and y1 > y0 else None


def _corrected_mask(place: str, annotation: dict[str, Any], size: ImageSize, repairs: Repairs) -> RunLength | None:
    """Correct the segmentation, or empty it where it can't be; give its mask."""
    old: Any = annotation.get("segmentation")
    read = _list_or_none(old) if isinstance(old, str) else old
    corrected: Any = []
    n_dropped = 0
    if isinstance(read, dict):
        corrected = _corrected_run_lengths(read, size)
    elif isinstance(read, list) and read:
        corrected, n_dropped = _corrected_polygons(read, size)
    try:
        mask = mask_of(corrected, size)
    except ValueError:
        mask = None
    if mask is None or area_px(mask) == 0:
        corrected, mask = [], None
    if corrected != old:
        if mask is None:
            what = "taken out, it was damaged or missing"
        elif n_dropped:
            what = f"{n_dropped} of {n_dropped + len(corrected)} polygons dropped, damaged or outside the image"
            what += "" if all(polygon in read for polygon in corrected) else "; the others corrected"
        else:
            what = "text became numbers" if not isinstance(old, dict) and _holds_text(old) else "corrected"
        repairs.add(f"{place}.segmentation", what)
        annotation["segmentation"] = corrected
    return mask


def _corrected_run_lengths(mask: dict[str, Any], size: ImageSize) -> Mapping[str, Any]:
    """Run lengths in COCO's own form, with swapped sides turned back."""
    form: Any = mask
    with suppress(ValueError):
        form = plain_segmentation(mask, "", Notes()) or {}
    is_swapped = size.width != size.height and form.get("size") == [size.width, size.height]
    return {**form, "size": [size.height, size.width]} if is_swapped else form


def _corrected_polygons(segmentation: list[Any], size: ImageSize) -> tuple[list[list[float]], int]:
    """Keep the parts that are polygons, with their corners within the image; and count those dropped."""
    parts = segmentation if any(isinstance(part, list | str) for part in segmentation) else [segmentation]
    kept = []
    for part in map(_numbers_or_none, parts):
        if part is not None and len(part) >= 6 and len(part) % 2 == 0 and _meets(part, size):
            kept += _moved_within(part, size)
    return kept, len(parts) - len(kept)


def _moved_within(polygon: list[float], size: ImageSize) -> list[list[float]]:
    """The polygon with its corners within the image, if that is the same mask, or as it is; none if it is no mask."""
    limits = (float(size.width), float(size.height))
    moved = [min(max(value, 0.0), limits[index % 2]) for index, value in enumerate(polygon)]
    if moved == polygon:
        return [polygon]
    try:
        return [moved] if mask_of([moved], size) == mask_of([polygon], size) else [polygon]
    except ValueError:
        return []


def _meets(polygon: list[float], size: ImageSize) -> bool:
    """Tell whether any of a polygon's frame lies in the image; moved there, the rest would be a line on its edge."""
    xs, ys = polygon[0::2], polygon[1::2]
    return min(xs) < size.width and max(xs) > 0 and min(ys) < size.height and max(ys) > 0


def _list_or_none(text: str) -> Any:
    with suppress(ValueError):
        return list_from_text(text)
    return None


def _numbers_or_none(raw: Any) -> list[float] | None:
    """List of numbers, any of which and the whole list may be written as text; None if it is no such thing."""
    listed = _list_or_none(raw) if isinstance(raw, str) else raw
    numbers = plain_numbers(listed)
    if numbers is not None or not isinstance(listed, list):
        return numbers
    read = [number_or_none(one) for one in listed]
    return [one for one in read if one is not None] if None not in read else None
