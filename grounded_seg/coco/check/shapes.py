"""Faults of an annotation's shape: box, mask and area, each by itself and against the others; labels against sizes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from grounded_seg.coco.check.rules import Fault
from grounded_seg.coco.values import id_text, mask_of, plain_numbers
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.records import ImageSize, RunLength

OUTSIDE_PX = 1.0
"""How far a label may reach out of its image: people's tools round."""
_ORDINALS = ("first", "second", "third", "fourth")
_N_NAMED = 4
"""So many wrong values of a list are named one by one."""


def shape_faults(place: str, annotation: Mapping[str, Any], size: ImageSize | None) -> Iterator[Fault]:
    """Faults of an annotation's shape, checked against its image where the size is known."""
    box = plain_numbers(annotation.get("bbox"))
    yield from _box_faults(f"{place}.bbox", annotation, size)
    segmentation, its_place = annotation.get("segmentation", []), f"{place}.segmentation"
    faults: list[Fault] = []
    mask = None
    if "segmentation" not in annotation:
        yield Fault("segmentation-missing", place, "it has no segmentation; no mask is []")
    elif not segmentation and not isinstance(segmentation, list):
        yield Fault("segmentation-malformed", its_place, f"it is {_word_of(segmentation)}; no mask is []")
    elif isinstance(segmentation, str):
        yield Fault("segmentation-as-text", its_place, f"it is the text {segmentation!r:.40}")
    elif isinstance(segmentation, Mapping):
        faults, mask = _run_length(its_place, segmentation, size)
    elif isinstance(segmentation, list):
        faults, mask = _polygons(its_place, segmentation, size)
    else:
        yield Fault("segmentation-malformed", its_place, f"it is {_word_of(segmentation)}")
    yield from faults
    yield from _agreement_faults(place, annotation, box, mask)


def what_is_malformed(raw: Any, *, is_there: bool = True) -> str:
    """Say what is wrong with a list that should hold plain numbers; empty where that is all it holds.

    >>> what_is_malformed([1, 2, "3", "4"])
    'the third and fourth are text'
    """
    if not is_there:
        return "it is missing"
    if not isinstance(raw, list):
        return f"it is {_word_of(raw)}, no list"
    wrong: dict[str, list[int]] = {}
    for index, value in enumerate(raw):
        if plain_numbers([value]) is None:
            wrong.setdefault(_word_of(value), []).append(index)
    told = []
    for word, places in wrong.items():
        if len(raw) > 1 and len(places) == len(raw):
            told.append(f"all {len(raw)} are {word}")
            continue
        names = [_ORDINALS[index] if index < len(_ORDINALS) else f"{index + 1}th" for index in places[:_N_NAMED]]
        names += [f"{len(places) - _N_NAMED} more"] * (len(places) > _N_NAMED)
        listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
        told.append(f"the {listed} {'are' if len(places) > 1 else 'is'} {word}")
    return ", ".join(told)


def _word_of(value: Any) -> str:
    """Name the kind of a JSON value."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        # NaN alone isn't equal to itself; `math.isnan` stops at the largest whole numbers.
        unusable = "no number" if value != value else "too large a number"
        return unusable if plain_numbers([value]) is None else f"the number {value:g}"
    names: dict[type, str] = {str: "text", list: "a list", dict: "an object", type(None): "null"}
    return names.get(type(value), f"{value!r:.40}")


def _box_faults(place: str, annotation: Mapping[str, Any], size: ImageSize | None) -> Iterator[Fault]:
    raw = annotation.get("bbox")
    box = plain_numbers(raw)
    if isinstance(raw, str):
        yield Fault("bbox-as-text", place, f"it is the text {raw!r:.40}")
    elif box is None or len(box) != 4:
        told = what_is_malformed(raw, is_there="bbox" in annotation) or f"it has {len(box or ())} numbers"
        yield Fault("bbox-malformed", place, f"{told}; it must be x, y, width, height in pixels")
    elif min(box[2:]) < 0:
        yield Fault("bbox-negative", place, f"its width is {box[2]:g} and its height {box[3]:g}")
    elif min(box[2:]) == 0:
        yield Fault("bbox-empty", place, f"its width is {box[2]:g} and its height {box[3]:g}")
    elif size is not None and leaves([box[0], box[0] + box[2]], [box[1], box[1] + box[3]], size):
        centre = (box[0] + box[2] / 2, box[1] + box[3] / 2)
        # Ultralytics goes by centre and sides, each a share from 0 to 1.
        is_beyond = box[2] > size.width or box[3] > size.height
        is_beyond |= not (0 <= centre[0] <= size.width and 0 <= centre[1] <= size.height)
        rule = "bbox-beyond-image" if is_beyond else "bbox-outside"
        yield Fault(rule, place, f"{box} leaves the image of {size.width} x {size.height} px")


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
        told = what_is_malformed(segmentation) or "it is a list of numbers"
        return [Fault("polygon-malformed", place, f"{told}; it must be a list of polygons: [[x, y, x, y, ...]]")], None
    polygons = []
    for index, raw in enumerate(segmentation):
        polygon = plain_numbers(raw)
        if polygon is None or len(polygon) < 6 or len(polygon) % 2:
            told = what_is_malformed(raw) or f"it has {len(polygon or ())} numbers"
            message = f"{told}; a polygon has three or more pairs of x and y"
            return [Fault("polygon-malformed", f"{place}[{index}]", message)], None
        polygons.append(polygon)
    if size is None or not polygons:
        return [], None
    faults = [
        Fault("polygon-outside", f"{place}[{index}]", f"it leaves the image of {size.width} x {size.height} px")
        for index, polygon in enumerate(polygons)
        if leaves(polygon[0::2], polygon[1::2], size)
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
    if "area" not in annotation:
        yield Fault("area-malformed", f"{place}.area", "it is missing; it must be a number of pixels")
    elif (area is None and (isinstance(raw_area, bool) or not isinstance(raw_area, int))) or isinstance(raw_area, str):
        yield Fault("area-malformed", f"{place}.area", f"it is {raw_area!r:.40}; it must be a number of pixels")
    elif area is None or area[0] < 0:
        yield Fault("area-odd", f"{place}.area", f"it is {raw_area!r:.40}")
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


def leaves(xs: list[float], ys: list[float], size: ImageSize) -> bool:
    """Whether a shape lies outside of its image by more than people's tools round."""
    return max(-min(xs), -min(ys), max(xs) - size.width, max(ys) - size.height) > OUTSIDE_PX


def turned(size: ImageSize) -> ImageSize:
    """The size with width and height swapped."""
    return ImageSize(size.height, size.width)


def all_within(annotations: Iterable[Mapping[str, Any]], size: ImageSize) -> bool:
    """Whether every box and polygon lies within the size, and every run-length mask is of it.

    What is no box or mask at all says nothing.
    """
    return all(_is_within(annotation, size) and _is_of(annotation, size) for annotation in annotations)


def look_swapped(annotations: Iterable[Mapping[str, Any]], size: ImageSize) -> bool:
    """Whether boxes or polygons leave the size, and all labels lie within the one with width and height swapped."""
    listed = list(annotations)
    has_left = not all(_is_within(annotation, size) for annotation in listed)
    return size != turned(size) and has_left and all_within(listed, turned(size))


def by_image(annotations: Iterable[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """The annotations of each image, by the `group_of` its id."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for annotation in annotations:
        groups.setdefault(group_of(annotation.get("image_id")), []).append(annotation)
    return groups


def group_of(image_id: Any) -> str:
    """Text by which an id is followed: 7 and "7" are one; and what is no id has its own."""
    try:
        return id_text(image_id)
    except ValueError:
        return repr(image_id)


def _is_within(annotation: Mapping[str, Any], size: ImageSize) -> bool:
    match plain_numbers(annotation.get("bbox")):
        case [x, y, width, height] if leaves([x, x + width], [y, y + height], size):
            return False
    segmentation = annotation.get("segmentation")
    parts = map(plain_numbers, segmentation) if isinstance(segmentation, list) else ()
    return not any(part and len(part) > 1 and leaves(part[0::2], part[1::2], size) for part in parts)


def _is_of(annotation: Mapping[str, Any], size: ImageSize) -> bool:
    """Whether a run-length mask is of a size; what is no such mask says nothing."""
    segmentation = annotation.get("segmentation")
    sides = plain_numbers(segmentation.get("size")) if isinstance(segmentation, Mapping) else None
    return sides in (None, [size.height, size.width])
