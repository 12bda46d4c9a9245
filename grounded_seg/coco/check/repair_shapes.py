"""Repairs of an annotation's box, mask and area."""

from dataclasses import dataclass, field
from typing import Any

from grounded_seg.coco.check.shapes import shape_faults
from grounded_seg.coco.values import list_from_text, mask_of, number_or_none, plain_numbers
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
    for key in ("bbox", "segmentation"):
        if isinstance(annotation.get(key), str):
            annotation[key] = _numbers_from_text(annotation[key])
            repairs.add(f"{place}.{key}", "text became numbers")
    mask = _corrected_mask(place, annotation, size, repairs)
    box = plain_numbers(annotation.get("bbox"))
    if box is None or len(box) != 4 or min(box[2:]) <= 0:
        box = None
    if mask is None and box is None:
        repairs.add(place, "left out, it has neither a box nor a mask")
        return False
    faults = {fault.rule for fault in shape_faults(place, annotation, size)}
    if box is None or faults & _OF_BOX:
        box = _corrected_box(box, mask, size)
        if box is None:
            repairs.add(place, "left out, its box lies outside the image")
            return False
        repairs.add(f"{place}.bbox", f"{annotation.get('bbox')!r:.60} became {box}")
        annotation["bbox"] = box
    if faults & {"area-off", "area-malformed", "area-odd"}:
        area = area_px(mask) if mask is not None else box[2] * box[3]
        repairs.add(f"{place}.area", f"{annotation.get('area')!r:.40} became {area:g}")
        annotation["area"] = area
    return True


def _corrected_box(box: list[float] | None, mask: RunLength | None, size: ImageSize) -> list[float] | None:
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
    corrected: Any = []
    n_dropped = 0
    if isinstance(old, dict):
        is_swapped = size.width != size.height and old.get("size") == [size.width, size.height]
        corrected = {**old, "size": [size.height, size.width]} if is_swapped else old
    elif isinstance(old, list) and old:
        corrected, n_dropped = _corrected_polygons(old, size)
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
            what += "" if all(polygon in old for polygon in corrected) else "; the others corrected"
        else:
            what = "corrected"
        repairs.add(f"{place}.segmentation", what)
        annotation["segmentation"] = corrected
    return mask


def _corrected_polygons(segmentation: list[Any], size: ImageSize) -> tuple[list[list[float]], int]:
    """Keep the parts that are polygons, with their corners within the image; and count those dropped."""
    parts = segmentation if any(isinstance(part, list | str) for part in segmentation) else [segmentation]
    read = [plain_numbers(_numbers_from_text(part) if isinstance(part, str) else part) for part in parts]
    limits = (float(size.width), float(size.height))
    kept = [
        [min(max(value, 0.0), limits[index % 2]) for index, value in enumerate(part)]
        for part in read
        if part is not None and len(part) >= 6 and len(part) % 2 == 0 and _meets(part, size)
    ]
    return kept, len(parts) - len(kept)


def _meets(polygon: list[float], size: ImageSize) -> bool:
    """Tell whether any of a polygon's frame lies in the image; moved there, the rest would be a line on its edge."""
    xs, ys = polygon[0::2], polygon[1::2]
    return min(xs) < size.width and max(xs) > 0 and min(ys) < size.height and max(ys) > 0


def _numbers_from_text(text: str) -> Any:
    """List that was written as text, words as numbers; None if it is no such thing."""
    try:
        value = list_from_text(text)
    except ValueError:
        return None
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        return value
    numbers = [number_or_none(word) for word in value]
    return None if None in numbers else numbers
