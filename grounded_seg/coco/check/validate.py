"""Faults of a COCO file, each by rule, place and reason: of its text, its records and its shapes."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias

from grounded_seg.coco.check.readers import reader_warnings
from grounded_seg.coco.check.rules import Fault
from grounded_seg.coco.check.shapes import by_image, group_of, look_swapped, shape_faults, turned
from grounded_seg.coco.entries import leaves_folder, other_kind_of
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.schema import SECTIONS
from grounded_seg.coco.text import parse_file
from grounded_seg.coco.values import Notes, is_plain_id, plain_numbers, plain_size
from grounded_seg.errors import ImageError
from grounded_seg.images.read import upright_size
from grounded_seg.records import ImageSize

_Placed: TypeAlias = tuple[str, Mapping[str, Any]]


def validate_file(path: Path, images: Path | None = None) -> list[Fault]:
    """Faults of a file: of its text, its records, its shapes, and for its readers, in this order.

    The image files are looked at only in a folder of `images`, to which their names are relative.
    """
    document, faults = parse_file(path)
    return faults if document is None else faults + validate_document(document, images)


def validate_document(document: Any, images: Path | None = None) -> list[Fault]:
    """Faults of a document in memory; `images` is as for `validate_file`.

    With the images at hand their sizes come first. Where the file gives width and height swapped, labels are held
    against the image; where it gives a size of its own, as of an image that was scaled, against that.
    """
    if not isinstance(document, Mapping):
        what = "a list, as of results" if isinstance(document, list) else f"{document!r:.40}"
        return [Fault("wrong-top-level", "$", f"it is {what}; it must be an object with {', '.join(SECTIONS)}")]
    faults = [fault for name in SECTIONS for fault in _section_faults(document, name)]
    records = {name: _records(document.get(name), name) for name in SECTIONS}
    pictures: dict[str, ImageSize] = {}
    if images is not None:
        faults += [fault for item in records["images"] for fault in _file_faults(*item, images, pictures)]
    for name in SECTIONS:
        faults += _id_faults(records[name], _rule_of_zero(name, records["annotations"]))
    faults += _image_faults(records["images"])
    faults += _category_faults(records["categories"])
    if hold_captions(document.get("annotations")):
        return [*faults, Fault("captions", "annotations", "the file holds captions, no boxes and no masks")]
    faults += _annotation_faults(records, pictures)
    if not any(fault.rule in ("missing-section", "section-not-a-list") for fault in faults):
        faults += reader_warnings(records["images"], records["annotations"], len(records["categories"]))
    return faults


def hold_captions(annotations: Any) -> bool:
    """Whether annotations are captions, without a box or a mask in any."""
    return isinstance(annotations, list) and other_kind_of(annotations) == "captions"


def has_portable_name(record: Mapping[str, Any]) -> bool:
    """Whether an image's name is a path that every system reads alike, below the folder of the images."""
    name = str(record.get("file_name", ""))
    is_below = bool(PurePosixPath(name).name) and not leaves_folder(name)
    return is_below and not PureWindowsPath(name).anchor and not {"\\", "\0"} & set(name)


def _section_faults(document: Mapping[str, Any], name: str) -> Iterator[Fault]:
    if name not in document:
        yield Fault("missing-section", "$", f"there is no {name}")
    elif not isinstance(document[name], list):
        yield Fault("section-not-a-list", name, f"it is {document[name]!r:.40}")
    else:
        for index, record in enumerate(document[name]):
            if not isinstance(record, Mapping):
                yield Fault("record-not-an-object", f"{name}[{index}]", f"it is {record!r:.40}")


def _records(section: Any, name: str) -> list[_Placed]:
    """Records of a section that are objects, each with its place."""
    items = section if isinstance(section, list) else []
    return [(f"{name}[{place}]", record) for place, record in enumerate(items) if isinstance(record, Mapping)]


def _rule_of_zero(section: str, annotations: list[_Placed]) -> str:
    """The rule that an entry of the id 0 breaks."""
    if section == "annotations":
        return "annotation-zero"
    is_used = section == "categories" and any(one.get("category_id") == 0 for _, one in annotations)
    return "category-zero" if is_used else "id-below-one"


def _id_faults(records: list[_Placed], rule_of_zero: str) -> Iterator[Fault]:
    seen: dict[Any, str] = {}
    for place, record in records:
        number = record.get("id")
        if number is None:
            yield Fault("id-missing", place, "it has no id")
        elif type(number) is not int:
            yield Fault("id-not-an-integer", f"{place}.id", f"{number!r} is no whole number")
        elif number < 1:
            rule = "id-below-one" if number else rule_of_zero
            yield Fault(rule, f"{place}.id", f"it is {number}, ids are counted from 1")
        elif not is_plain_id(number):
            yield Fault("id-too-large", f"{place}.id", f"{number!r:.40} is more than 64 bits hold")
        if isinstance(number, str | int | float):
            first = seen.setdefault(number, place)
            if first != place:
                yield Fault("duplicate-id", f"{place}.id", f"{first} has the id {number!r} too")


def _image_faults(records: list[_Placed]) -> Iterator[Fault]:
    names: dict[str, str] = {}
    base_names: dict[str, str] = {}
    for place, record in records:
        if plain_size(record) is None:
            size = f"{record.get('width')!r:.40} x {record.get('height')!r:.40}"
            missing = [side for side in ("width", "height") if side not in record]
            told = f"it has no {' and no '.join(missing)}" if missing else f"its size is {size}"
            yield Fault("size-missing", place, f"{told}; it must be two whole numbers from 1")
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            told = f"its file_name is {name!r:.40}" if "file_name" in record else "it has no file_name"
            yield Fault("file-name-missing", place, told)
            continue
        if not has_portable_name(record):
            yield Fault("file-name-not-relative", f"{place}.file_name", f"{name!a} is no path below a folder, with /")
        if names.setdefault(name, place) != place:
            yield Fault("duplicate-file-name", f"{place}.file_name", f"{names[name]} is {name!a} too")
        elif base_names.setdefault(PurePosixPath(name).name, place) != place:
            other = base_names[PurePosixPath(name).name]
            yield Fault("same-base-name", f"{place}.file_name", f"tools that drop folders take it for {other}")


def _file_faults(
    place: str, record: Mapping[str, Any], folder: Path, pictures: dict[str, ImageSize]
) -> Iterator[Fault]:
    """Look at an image's file, whose size is added to those of the pictures; only below its folder."""
    name = record.get("file_name")
    if not isinstance(name, str) or not name or not has_portable_name(record):
        return
    notes = Notes()
    path = file_of(folder, name, notes)
    if path is None:
        yield Fault("image-file-missing", f"{place}.file_name", f"no file is at {str(folder / name)!r}")
        return
    try:
        size = upright_size(path)
    except ImageError as error:
        yield Fault("image-file-unreadable", f"{place}.file_name", str(error))
        return
    if notes.lines():
        yield Fault("image-name-form", f"{place}.file_name", f"{name!r} is on the disk in another form of its letters")
    stated = plain_size(record)
    is_turned = stated == turned(size) != size
    if stated is None or stated == size or is_turned:
        pictures[place] = size
    if stated is None or stated == size:
        return
    rule = "image-size-swapped" if is_turned else "image-size-wrong"
    told = ": width and height are swapped, as before an EXIF turn" if is_turned else ""
    sides = f"the image is {size.width} x {size.height} px upright, not {stated.width} x {stated.height}"
    yield Fault(rule, place, sides + told)


def _category_faults(records: list[_Placed]) -> Iterator[Fault]:
    names: dict[str, str] = {}
    for place, record in records:
        name = record.get("name")
        if not isinstance(name, str) or not name.strip():
            told = f"its name is {name!r:.40}" if "name" in record else "it has no name"
            yield Fault("category-name-missing", place, told)
        elif names.setdefault(name, place) != place:
            yield Fault("duplicate-category-name", f"{place}.name", f"{names[name]} is {name!a} too")


def _annotation_faults(records: Mapping[str, list[_Placed]], pictures: Mapping[str, ImageSize]) -> Iterator[Fault]:
    # Lists and objects are no ids, and can't be looked up.
    known = [(place, one) for place, one in records["images"] if _is_reference(one.get("id"))]
    sizes = {one["id"]: pictures.get(place, plain_size(one)) for place, one in known}
    categories = {one["id"] for _, one in records["categories"] if _is_reference(one.get("id"))}
    annotations = records["annotations"]
    yield from _whole_file_faults(known, [one for _, one in annotations], pictures)
    seen: dict[tuple[str, ...], str] = {}
    for place, annotation in annotations:
        for key, listed in (("image_id", sizes), ("category_id", categories)):
            number = annotation.get(key)
            what = key.removesuffix("_id")
            if key not in annotation:
                yield Fault("key-missing", place, f"it has no {key}")
            elif not _is_reference(number) or number not in listed:
                yield Fault(f"unknown-{what}", f"{place}.{key}", f"no {what} has the id {number!r:.40}")
        image_id = annotation.get("image_id")
        yield from _value_faults(place, annotation)
        yield from shape_faults(place, annotation, sizes.get(image_id) if _is_reference(image_id) else None)
        same = tuple(repr(annotation.get(key)) for key in ("image_id", "category_id", "bbox", "segmentation"))
        if seen.setdefault(same, place) != place:
            yield Fault("duplicate-annotation", place, f"it is the same as {seen[same]}")


def _whole_file_faults(
    images: list[_Placed], annotations: list[Mapping[str, Any]], pictures: Mapping[str, ImageSize]
) -> Iterator[Fault]:
    """Find what single annotations don't tell: sizes that look swapped, boxes that look normalized."""
    groups = by_image(annotations)
    for place, image in images:
        size = plain_size(image)
        if size and place not in pictures and look_swapped(groups.get(group_of(image["id"]), ()), size):
            told = f"its labels leave {size.width} x {size.height} px and fit {size.height} x {size.width}"
            yield Fault("size-looks-swapped", place, f"{told}; name the folder of the images with --images")
    boxes = [box for one in annotations if (box := plain_numbers(one.get("bbox"))) and len(box) == 4]
    filled = [box for box in boxes if min(box[2:]) > 0]
    if filled and all(box[0] + box[2] <= 1 and box[1] + box[3] <= 1 and min(box) >= 0 for box in filled):
        told = f"all {len(filled)} boxes" if len(filled) > 1 else "the only box"
        lies = "lie" if len(filled) > 1 else "lies"
        what = f"{told} {lies} within 0 to 1, as normalized coordinates do; COCO's boxes are in pixels"
        yield Fault("bbox-normalized", "annotations", what)


def _is_reference(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _value_faults(place: str, annotation: Mapping[str, Any]) -> Iterator[Fault]:
    crowd = annotation.get("iscrowd")
    if "iscrowd" not in annotation:
        yield Fault("iscrowd-missing", place, "it has no iscrowd")
    elif isinstance(crowd, bool) or (type(crowd) in (int, float) and crowd not in (0, 1)):
        yield Fault("iscrowd-odd", f"{place}.iscrowd", f"it is {str(crowd).lower()}, not 0 or 1")
    elif type(crowd) is not int:
        yield Fault("iscrowd-wrong", f"{place}.iscrowd", f"it is {crowd!r:.40}, it must be 0 or 1")
    elif crowd == 1 and isinstance(annotation.get("segmentation"), list):
        yield Fault("crowd-with-polygons", f"{place}.iscrowd", "a crowd whose mask is polygons")
    score = annotation.get("score", 0.0)
    if isinstance(score, bool) or not isinstance(score, int | float):
        yield Fault("score-wrong", f"{place}.score", f"it is {score!r:.40}, it must be a number from 0 to 1")
    elif not 0 <= score <= 1:
        yield Fault("score-odd", f"{place}.score", f"it is {score!r:.40}, scores are from 0 to 1")
