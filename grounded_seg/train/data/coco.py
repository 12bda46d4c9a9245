"""Examples from a COCO file with its images beside it, and the line of each of its entries, for messages."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject
from grounded_seg.coco.dataset_reader import read_data_set
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.errors import InputError
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError, checked_box, image_beside
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData

_ENTRY = re.compile(r"\b(images|annotations|categories)\[(\d+)\]")
_CONSTANT = re.compile(r"(?:NaN|-?Infinity)\b")
_TEXT_OR_CONSTANT = re.compile(rf'"(?:[^"\\]|\\.)*"|({_CONSTANT.pattern})')
_SPACE = re.compile(r"[ \t\r\n]*")


def read_coco(path: Path, sizes: ImageSizes) -> tuple[SplitData, DataSet]:
    """Read a file; images that can't be used, or that hold a box that can't, become faults with their line.

    An image is left out whole: without one of its objects it would teach that the object isn't there.

    Raises:
        InputError: If the file is no COCO data set, or holds what can't be understood; names the line.
    """
    spoilt: dict[int, tuple[int, InputError]] = {}

    def on_fault(place: int, image_id: int, wrong: InputError) -> None:
        spoilt[place] = image_id, wrong

    try:
        data_set = read_data_set(path, on_fault)
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise InputError(with_line(path, text) if text != str(error) else text) from error
    image_lines, object_lines = lines_of(path, "images"), lines_of(path, "annotations")
    # The reader sorts images by id, and keeps objects in the order of the file.
    index_by_id = {image_id: place for place, image_id in enumerate(data_set.image_ids.values())}
    objects: dict[int, list[tuple[int, DataSetObject | InputError]]] = {}
    for place, (image_id, wrong) in spoilt.items():
        objects.setdefault(image_id, []).append((place, wrong))
    kept_places = (place for place in range(len(object_lines)) if place not in spoilt)
    for place, one in zip(kept_places, data_set.objects, strict=True):
        objects.setdefault(one.image_id, []).append((place, one))
    sizes.read(_present(path.parent, data_set))
    examples, faults = [], []
    for image in data_set.images:
        line = image_lines[index_by_id[image.id]]
        try:
            examples.append(_example(path, image, line, objects.get(image.id, []), object_lines, data_set, sizes))
        except _FaultError as error:
            faults.append(error.fault)
    return SplitData(tuple(examples), tuple(faults)), data_set


def _present(folder: Path, data_set: DataSet) -> Iterator[Path]:
    for image in data_set.images:
        with suppress(UnusableRowError):
            yield image_beside(folder, image.file_name)


class _FaultError(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault


def _example(
    path: Path,
    image: DataSetImage,
    line: int,
    objects: Sequence[tuple[int, DataSetObject | InputError]],
    object_lines: Sequence[int],
    data_set: DataSet,
    sizes: ImageSizes,
) -> BoxExample:
    image_path = path.parent / image.file_name
    try:
        image_path = image_beside(path.parent, image.file_name)
        size = sizes.of(image_path, image.size)
    except UnusableRowError as error:
        raise _FaultError(Fault(f"{path}:{line}", str(error), image_path)) from error
    boxes, unsure = [], set()
    for place, one in objects:
        try:
            if isinstance(one, InputError):
                raise UnusableRowError(str(one).removeprefix(f"{path}: annotations[{place}]: ")) from one
            label = data_set.classes[one.category_id]
            if one.is_crowd:
                unsure.add(label)
            else:
                boxes.append(LabelledBox(label, checked_box(xyxy_from_xywh(one.bbox_xywh), size), one.mask))
        except UnusableRowError as error:
            fault = Fault(f"{path}:{object_lines[place]}", f"annotations[{place}]: {error}", image_path)
            raise _FaultError(fault) from error
    kept = tuple(box for box in boxes if box.label not in unsure)
    return BoxExample(image_path, size, kept, f"{path}:{line}", frozenset(unsure))


def with_line(path: Path, place: str) -> str:
    """Put the line in front of a place as `annotations[3]`; the file alone where the place can't be found.

    Args:
        path: A JSON file that was read without a fault, but for a NaN in it.
        place: Text that holds such a place, or begins with the constant that is no number.
    """
    if _CONSTANT.match(place):
        text = path.read_text(encoding="utf-8-sig")
        first = next((found for found in _TEXT_OR_CONSTANT.finditer(text) if found[1]), None)
        return f"{path}:{text.count(chr(10), 0, first.start()) + 1}: {place}" if first else f"{path}: {place}"
    found = _ENTRY.search(place)
    lines = lines_of(path, found[1]) if found else []
    number = int(found[2]) if found else 0
    return f"{path}:{lines[number]}: {place}" if number < len(lines) else f"{path}: {place}"


def lines_of(path: Path, key: str) -> list[int]:
    """Give the line, from 1, in which each entry of a list at the top of a JSON object starts; none without one."""
    text = path.read_text(encoding="utf-8-sig")
    decoder = json.JSONDecoder()
    place = _after_space(text, 0)
    try:
        while text[place] in "{,":
            name, place = decoder.raw_decode(text, _after_space(text, place + 1))
            # Over the colon.
            place = _after_space(text, _after_space(text, place) + 1)
            if name == key and text[place] == "[":
                return _entry_lines(text, place, decoder)
            _, place = decoder.raw_decode(text, place)
            place = _after_space(text, place)
    except (ValueError, IndexError):
        return []
    return []


def _entry_lines(text: str, place: int, decoder: json.JSONDecoder) -> list[int]:
    lines: list[int] = []
    line, counted_to = 1, 0
    while text[place] in "[,":
        place = _after_space(text, place + 1)
        if text[place] == "]":
            break
        line, counted_to = line + text.count("\n", counted_to, place), place
        lines.append(line)
        _, place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
    return lines


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
