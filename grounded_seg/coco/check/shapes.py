"""Faults of an annotation's shape: box, mask and area, each by itself and against the others."""

from collections.abc import Iterator, Mapping
from typing import Any

from grounded_seg.coco.text import Fault
from grounded_seg.coco.values import mask_of, plain_numbers
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.records import ImageSize, RunLength

_OUTSIDE_PX = 1.0


def shape_faults(place: str, annotation: Mapping[str, Any], size: ImageSize | None) -> Iterator[Fault]:
    """Faults of an annotation's shape, checked against its image where the size is known."""
    box = plain_numbers(annotation.get("bbox"))
    yield from _box_faults(f"{place}.bbox", annotation.get("bbox"), box, size)
    segmentation, its_place = annotation.get("segmentation", []), f"{place}.segmentation"
    faults: list[Fault] = []
    mask = None
    if not segmentation and not isinstance(segmentation, list):
        yield Fault("segmentation-malformed", its_place, f"it is {segmentation!r}; no mask is []")
    elif isinstance(segmentation, str):
        yield Fault("segmentation-as-text", its_place, f"it is the text {segmentation!r:.40}")
    elif isinstance(segmentation, Mapping):
        faults, mask = _run_length(its_place, segmentation, size)
    elif isinstance(segmentation, list):
        faults, mask = _polygons(its_place, segmentation, size)
    else:
        yield Fault("segmentation-malformed", its_place, f"it is {segmentation!r:.40}")
    yield from faults
    yield from _agreement_faults(place, annotation, box, mask)


def _box_faults(place: str, raw: Any, box: list[float] | None, size: ImageSize | None) -> Iterator[Fault]:
    if isinstance(raw, str):
        yield Fault("bbox-as-text", place, f"it is the text {raw!r:.40}")
    elif box is None or len(box) != 4:
        yield Fault("bbox-malformed", place, f"it is {raw!r:.60}, it must be x, y, width, height")
    elif box[2] <= 0 or box[3] <= 0:
        yield Fault("bbox-empty", place, f"its width is {box[2]:g} and its height {box[3]:g}")
    elif size is not None and _leaves([box[0], box[0] + box[2]], [box[1], box[1] + box[3]], size):
        yield Fault("bbox-outside", place, f"{box} leaves the image of {size.width} x {size.height} px")


def _leaves(xs: list[float], ys: list[float], size: ImageSize) -> bool:
    """Tell whether a shape lies outside its image by more than people's tools round."""
    return max(-min(xs), -min(ys), max(xs) - size.width, max(ys) - size.height) > _OUTSIDE_PX


def _run_length(
    place: str, segmentation: Mapping[str, Any], size: ImageSize | None
) -> tuple[list[Fault], RunLength | None]:
    try:
        mask = mask_of(segmentation, None)
    except ValueError as error:
        sides = plain_numbers(segmentation.get("size"))
        swapped = size is not None and sides == [size.width, size.height] and size.width != size.height
        rule = "rle-size-wrong" if swapped else "rle-damaged"
        return [Fault(rule, place, str(error).split(";")[0])], None
    if size is not None and mask is not None and mask.size != size:
        found, wanted = ([one.height, one.width] for one in (mask.size, size))
        return [Fault("rle-size-wrong", f"{place}.size", f"it is {found}, the image's is {wanted}")], None
    return [], mask


def _polygons(place: str, segmentation: list[Any], size: ImageSize | None) -> tuple[list[Fault], RunLength | None]:
    if segmentation and not isinstance(segmentation[0], list):
        return [Fault("polygon-malformed", place, "it is no list of polygons but of something else")], None
    polygons = []
    for index, raw in enumerate(segmentation):
        polygon = plain_numbers(raw)
        if polygon is None or len(polygon) < 6 or len(polygon) % 2:
            message = f"{raw!r:.40} is no list of at least three x, y pairs"
            return [Fault("polygon-malformed", f"{place}[{index}]", message)], None
        polygons.append(polygon)
    if size is None or not polygons:
        return [], None
    faults = [
        Fault("polygon-outside", f"{place}[{index}]", f"it leaves the image of {size.width} x {size.height} px")
        for index, polygon in enumerate(polygons)
        if _leaves(polygon[0::2], polygon[1::2], size)
    ]
    try:
        return faults, mask_of(polygons, size)
    except ValueError as error:
        return [Fault("polygon-malformed", place, str(error).partition(";")[0])], None


def _agreement_faults(
    place: str, annotation: Mapping[str, Any], box: list[float] | None, mask: RunLength | None
) -> Iterator[Fault]:
    """Compare what is said three times over."""
    raw_area = annotation.get("area")
    area = plain_numbers([raw_area])
    if area is None or area[0] < 0:
        yield Fault("area-malformed", f"{place}.area", f"it is {raw_area!r:.40}, it must be a number of pixels")
    if mask is None:
        return
    n_pixels = area_px(mask)
    if n_pixels == 0:
        yield Fault("mask-empty", f"{place}.segmentation", "it covers no pixel")
        return
    x0, y0, x1, y1 = tight_box_xyxy(mask)
    # An outline's area is counted in pixels by some and measured by others, apart by about half its length.
    if area and area[0] >= 0 and abs(area[0] - n_pixels) > 0.1 * n_pixels + (x1 - x0) + (y1 - y0):
        yield Fault("area-off", f"{place}.area", f"it is {area[0]:g}, the mask has {n_pixels} pixels")
    if box and len(box) == 4 and min(box[2:]) > 0:
        edges = (box[0], box[1], box[0] + box[2], box[1] + box[3])
        off = max(abs(edge - tight) for edge, tight in zip(edges, (x0, y0, x1, y1), strict=True))
        if off > max(3.0, 0.1 * max(x1 - x0, y1 - y0)):
            yield Fault("bbox-off", f"{place}.bbox", f"it is {off:.0f} px away from the box of the mask")
