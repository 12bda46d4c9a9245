"""Faults of a COCO file, each by rule, place and reason: of its text, its records and its shapes."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeAlias

from grounded_seg.coco.check.readers import reader_warnings
from grounded_seg.coco.check.shapes import shape_faults
from grounded_seg.coco.text import Fault, parse_file
from grounded_seg.coco.values import is_plain_id, plain_size
from grounded_seg.errors import ImageError
from grounded_seg.images.read import upright_size

SECTIONS = ("images", "categories", "annotations")
_Placed: TypeAlias = tuple[str, Mapping[str, Any]]


def validate_file(path: Path, images: Path | None = None) -> list[Fault]:
    """Faults of a file: of its text, its records, its shapes, and for its readers, in this order.

    The image files are looked at only in a folder of `images`, to which their names are relative.
    """
    document, faults = parse_file(path)
    return faults if document is None else faults + validate_document(document, images)


def validate_document(document: Any, images: Path | None = None) -> list[Fault]:
    """Faults of a document in memory; `images` is as for `validate_file`."""
    if not isinstance(document, Mapping):
        what = "a list, as of results" if isinstance(document, list) else f"{document!r:.40}"
        return [Fault("wrong-top-level", "$", f"it is {what}; it must be an object with {', '.join(SECTIONS)}")]
    faults = [fault for name in SECTIONS for fault in _section_faults(document, name)]
    records = {name: _records(document.get(name), name) for name in SECTIONS}
    for name in SECTIONS:
        faults += _id_faults(records[name])
    faults += _image_faults(records["images"], images)
    faults += _category_faults(records["categories"])
    faults += _annotation_faults(records)
    if not any(fault.rule in ("missing-section", "section-not-a-list") for fault in faults):
        faults += reader_warnings(records["images"], records["annotations"])
    return faults


def has_portable_name(record: Mapping[str, Any]) -> bool:
    """Whether an image's name is a path that every system reads alike, below the folder of the images."""
    name = str(record.get("file_name", ""))
    windows = PureWindowsPath(name)
    return not (
        PurePosixPath(name).is_absolute() or windows.anchor or ".." in windows.parts or {"\\", "\0"} & set(name)
    )


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


def _id_faults(records: list[_Placed]) -> Iterator[Fault]:
    seen: dict[Any, str] = {}
    for place, record in records:
        number = record.get("id")
        if number is None:
            yield Fault("id-missing", place, "it has no id")
        elif type(number) is not int:
            yield Fault("id-not-an-integer", f"{place}.id", f"{number!r} is no whole number")
        elif number < 1:
            yield Fault("id-below-one", f"{place}.id", f"{number} stands for nothing or background in some readers")
        elif not is_plain_id(number):
            yield Fault("id-too-large", f"{place}.id", f"{number!r:.40} is more than 64 bits hold")
        if isinstance(number, str | int | float):
            first = seen.setdefault(number, place)
            if first != place:
                yield Fault("duplicate-id", f"{place}.id", f"{first} has the id {number!r} too")


def _image_faults(records: list[_Placed], images: Path | None) -> Iterator[Fault]:
    names: dict[str, str] = {}
    base_names: dict[str, str] = {}
    for place, record in records:
        if plain_size(record) is None:
            size = f"{record.get('width')!r} x {record.get('height')!r}"
            yield Fault("size-missing", place, f"its size is {size}, it must be two whole numbers from 1")
        name = record.get("file_name")
        if not isinstance(name, str) or not name:
            yield Fault("file-name-missing", place, f"its file_name is {name!r}")
            continue
        if not has_portable_name(record):
            yield Fault("file-name-not-relative", f"{place}.file_name", f"{name!r} is no path below a folder, with /")
        if names.setdefault(name, place) != place:
            yield Fault("duplicate-file-name", f"{place}.file_name", f"{names[name]} is {name!r} too")
        elif base_names.setdefault(PurePosixPath(name).name, place) != place:
            other = base_names[PurePosixPath(name).name]
            yield Fault("same-base-name", f"{place}.file_name", f"tools that drop folders take it for {other}")
        if images is not None:
            yield from _file_faults(place, record, images / name)


def _file_faults(place: str, record: Mapping[str, Any], path: Path) -> Iterator[Fault]:
    try:
        size = upright_size(path)
    except ImageError as error:
        yield Fault("image-file-missing", f"{place}.file_name", str(error))
        return
    if (size.width, size.height) != (record.get("width"), record.get("height")):
        said = f"{record.get('width')} x {record.get('height')}"
        yield Fault("image-size-wrong", place, f"the image is {size.width} x {size.height} px upright, not {said}")


def _category_faults(records: list[_Placed]) -> Iterator[Fault]:
    names: dict[str, str] = {}
    for place, record in records:
        name = record.get("name")
        if not isinstance(name, str) or not name.strip():
            yield Fault("category-name-missing", place, f"its name is {name!r}")
        elif names.setdefault(name, place) != place:
            yield Fault("duplicate-category-name", f"{place}.name", f"{names[name]} is {name!r} too")


def _annotation_faults(records: Mapping[str, list[_Placed]]) -> Iterator[Fault]:
    # Lists and objects are no ids, and can't be looked up.
    sizes = {one["id"]: plain_size(one) for _, one in records["images"] if _is_reference(one.get("id"))}
    categories = {one["id"] for _, one in records["categories"] if _is_reference(one.get("id"))}
    seen: dict[tuple[str, ...], str] = {}
    for place, annotation in records["annotations"]:
        image_id, category_id = annotation.get("image_id"), annotation.get("category_id")
        if not _is_reference(image_id) or image_id not in sizes:
            yield Fault("unknown-image", f"{place}.image_id", f"no image has the id {image_id!r}")
        if not _is_reference(category_id) or category_id not in categories:
            yield Fault("unknown-category", f"{place}.category_id", f"no category has the id {category_id!r}")
        yield from _value_faults(place, annotation)
        yield from shape_faults(place, annotation, sizes.get(image_id) if _is_reference(image_id) else None)
        same = (repr(image_id), repr(category_id), repr(annotation.get("bbox")), repr(annotation.get("segmentation")))
        if seen.setdefault(same, place) != place:
            yield Fault("duplicate-annotation", place, f"it is the same as {seen[same]}")


def _is_reference(value: Any) -> bool:
    return isinstance(value, str | int | float)


def _value_faults(place: str, annotation: Mapping[str, Any]) -> Iterator[Fault]:
    crowd = annotation.get("iscrowd")
    if type(crowd) is not int or crowd not in (0, 1):
        yield Fault("iscrowd-wrong", f"{place}.iscrowd", f"it is {crowd!r:.40}, it must be 0 or 1")
    elif crowd == 1 and isinstance(annotation.get("segmentation"), list):
        yield Fault("crowd-with-polygons", f"{place}.iscrowd", "a crowd is left out when accuracy is measured")
    score = annotation.get("score", 0.0)
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        yield Fault("score-wrong", f"{place}.score", f"it is {score!r:.40}, it must be from 0 to 1")
