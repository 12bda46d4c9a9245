"""Examples from a COCO file with its images beside it, and the line of each of its entries, for messages."""

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject, read_data_set
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.values import Notes
from grounded_seg.errors import ImageError, InputError
from grounded_seg.images.read import upright_size
from grounded_seg.records import ImageSize
from grounded_seg.text.decoding import read_text
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError, checked_box, image_beside
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData, split_from

_ENTRY = re.compile(r"\b(images|annotations|categories)\[(\d+)\]")
_CONSTANT = re.compile(r"(?:NaN|-?Infinity)\b")
_TEXT_OR_CONSTANT = re.compile(rf'"(?:[^"\\]|\\.)*"|({_CONSTANT.pattern})')
_SPACE = re.compile(r"[ \t\r\n]*")


def read_coco(path: Path, sizes: ImageSizes) -> tuple[SplitData, DataSet]:
    """Read a file; images that can't be used, or that hold a box that can't, become faults with their line.

    An image is left out whole: without one of its objects it would teach that the object isn't there.
    """
    objects: dict[int, list[tuple[int, DataSetObject | InputError]]] = defaultdict(list)

    def on_fault(index: int, image_id: int, wrong: InputError) -> None:
        objects[image_id].append((index, wrong))

    try:
        data_set = read_data_set(path, on_fault, lambda images: _missing_sizes(path.parent, images))
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise InputError(with_line(path, text) if text != str(error) else text) from error
    image_lines, object_lines = lines_of(path, "images"), lines_of(path, "annotations")
    # The reader sorts images by id, and keeps objects in the order of the file.
    line_by_id = dict(zip(data_set.image_ids.values(), image_lines, strict=False))
    for one in data_set.objects:
        objects[one.image_id].append((one.index, one))
    sizes.read(path.parent, (image.file_name for image in data_set.images))
    found = [
        _example(path, line_by_id[image.id], image, objects[image.id], object_lines, data_set, sizes)
        for image in data_set.images
    ]
    return split_from(found), replace(data_set, notes=(*data_set.notes, *_of_names(path.parent, data_set)))


def _missing_sizes(folder: Path, images: Sequence[DataSetImage]) -> dict[str, ImageSize]:
    """Upright sizes of the images for which the file gives none; what can't be read is a fault later."""
    sizes = {}
    for image in images:
        if image.size is None:
            with suppress(UnusableRowError, ImageError):
                sizes[image.file_name] = upright_size(image_beside(folder, image.file_name))
    return sizes


def _of_names(folder: Path, data_set: DataSet) -> tuple[str, ...]:
    """Note the images that were found by another form of their letters."""
    notes = Notes()
    for image in data_set.images:
        if not image.file_name.isascii():
            beside = file_of(folder, image.file_name, notes)
            if beside is None:
                file_of(folder / "images", image.file_name, notes)
    return notes.lines()


def _example(
    path: Path,
    line: int,
    image: DataSetImage,
    objects: Sequence[tuple[int, DataSetObject | InputError]],
    object_lines: Sequence[int],
    data_set: DataSet,
    sizes: ImageSizes,
) -> BoxExample | Fault:
    image_path = path.parent / image.file_name
    try:
        image_path = image_beside(path.parent, image.file_name)
        size = sizes.of(image_path, image.size)
    except UnusableRowError as error:
        return Fault(f"{path}:{line}", str(error), image_path)
    boxes, unsure = [], set()
    for index, one in objects:
        entry = f"annotations[{index}]: "
        try:
            if isinstance(one, InputError):
                raise UnusableRowError(str(one).removeprefix(f"{path}: {entry}"))
            label = data_set.classes[one.category_id]
            if one.is_crowd:
                unsure.add(label)
            else:
                boxes.append(LabelledBox(label, checked_box(xyxy_from_xywh(one.bbox_xywh), size), one.mask))
        except UnusableRowError as error:
            return Fault(f"{path}:{object_lines[index]}", f"{entry}{error}", image_path)
    kept = tuple(box for box in boxes if box.label not in unsure)
    return BoxExample(image_path, size, kept, f"{path}:{line}", frozenset(unsure))


def with_line(path: Path, where: str) -> str:
    """Put file and line in front of a text like `annotations[3]: ...`, or `NaN ...`; the file where no line is known.

    Args:
        path: A JSON file that was read without a fault, but for a NaN in it.
        where: Text that names such an entry, or begins with the constant that is no number.
    """
    line = None
    if _CONSTANT.match(where):
        text = read_text(path)
        line = next((text.count("\n", 0, one.start()) + 1 for one in _TEXT_OR_CONSTANT.finditer(text) if one[1]), None)
    elif found := _ENTRY.search(where):
        line = next(iter(lines_of(path, found[1])[int(found[2]) :]), None)
    return f"{path}: {where}" if line is None else f"{path}:{line}: {where}"


def lines_of(path: Path, key: str) -> list[int]:
    """The line, from 1, on which each entry of a list at the top of a JSON object starts; none without one."""
    text = read_text(path)
    lines: list[int] = []
    line, counted_to = 1, 0
    try:
        start = next(offset for name, offset in _members(text, 0) if name == key and text[offset] == "[")
        for _, offset in _members(text, start):
            line, counted_to = line + text.count("\n", counted_to, offset), offset
            lines.append(line)
    except (ValueError, IndexError, StopIteration):
        return []
    return lines


def _members(text: str, offset: int) -> Iterator[tuple[str, int]]:
    """Name (empty in a list) and offset of each value in the object or the list that begins at an offset."""
    decoder = json.JSONDecoder()
    offset = _after_space(text, offset)
    is_object = text[offset] == "{"
    while text[offset] in "{[,":
        name, offset = "", _after_space(text, offset + 1)
        if text[offset] in "}]":
            return
        if is_object:
            name, offset = decoder.raw_decode(text, offset)
            # Over the colon.
            offset = _after_space(text, _after_space(text, offset) + 1)
        yield name, offset
        _, offset = decoder.raw_decode(text, offset)
        offset = _after_space(text, offset)


def _after_space(text: str, offset: int) -> int:
    match = _SPACE.match(text, offset)
    return match.end() if match else offset
