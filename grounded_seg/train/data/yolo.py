"""Examples from YOLO: `data.yaml`, a text file per image, a line per object, in normalized coordinates.

A row is `class x y width height`, a box by its centre; that and keypoints; or `class x y x y x y ...`, an outline or
the corners of a rotated box. supervision reads boxes too, but stops at a broken line without saying which; the tests
hold both to the same boxes.
"""

import re
from pathlib import Path

from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.records import BoxXyxy, ImageSize
from grounded_seg.text.decoding import read_text
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError, checked_box
from grounded_seg.train.data.data_yaml import DataYaml, read_data_yaml
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData, split_from
from grounded_seg.train.data.yolo_images import LabelFiles, found_place, images_at

_DECIMALS = 2
"""Of a pixel, that normalized coordinates with six digits still tell."""
_N_BOX = 4
_N_CORNERS = 8
_OF_TASK = {
    "detect": "outlines under `task: detect` were read by the box around them",
    "segment": "boxes under `task: segment`, where Ultralytics takes them for two corners, were read as boxes",
    "obb": "rows under `task: obb` that aren't four corners were read as boxes, or by the box around them",
}
"""What is noted of rows that another task has."""
_LARGEST = 1.01
"""Normalized coordinate; what is larger are pixels, or a mistake."""
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def read_yolo(path: Path, sizes: ImageSizes) -> tuple[dict[str, SplitData], list[str], list[str]]:
    """Splits that a `data.yaml` names, its classes, and notes; an image without labels is a background image."""
    notes = Notes()
    files = LabelFiles(notes)
    data = read_data_yaml(path, notes)
    splits = {}
    for split, places in data.places.items():
        rows: dict[Path | Fault, None] = {}
        labels: dict[Path, Path | None] = {}
        for place in places:
            if split == "test" and found_place(place, data, notes) is None:
                # Roboflow names one in every export; Ultralytics doesn't look before it is used.
                notes.add("test names what isn't there, and was left out", f"{path}:{place.line}")
                continue
            folder, images = images_at(place, data, notes)
            found = {image: files.of(image) for image in images if isinstance(image, Path)}
            if folder.is_dir():
                rows |= dict.fromkeys(files.without_image(folder, set(found.values())))
            if found and not any(found.values()):
                notes.add("no image of a folder or list has labels: nothing is there on any of them", str(folder))
            labels |= found
            rows |= dict.fromkeys(images)
        sizes.read_paths(labels)
        read = [_read_image(row, labels[row], data, sizes, notes) if isinstance(row, Path) else [row] for row in rows]
        splits[split] = split_from([row for one in read for row in one])
    return splits, list(data.names.values()), [f"{path.name}: {note}" for note in notes.lines()]


def _read_image(
    image: Path, labels: Path | None, data: DataYaml, sizes: ImageSizes, notes: Notes
) -> list[BoxExample | Fault]:
    """Give an image with all of its objects, or a fault for each row that can't be used.

    With one of them it is left out whole: it would teach that the object isn't there.
    """
    try:
        size = sizes.of(image)
    except UnusableRowError as error:
        return [Fault(str(image), str(error))]
    if labels is None:
        return [BoxExample(image, size, (), str(image))]
    try:
        lines = read_text(labels).splitlines()
    except InputError as error:
        return [Fault(str(labels), str(error).removeprefix(str(labels)).lstrip(": "))]
    boxes, faults = _objects(lines, labels, size, data, notes)
    return [*faults] if faults else [BoxExample(image, size, boxes, str(labels))]


def _objects(
    lines: list[str], labels: Path, size: ImageSize, data: DataYaml, notes: Notes
) -> tuple[tuple[LabelledBox, ...], list[Fault]]:
    """Read the rows of a label file, each once."""
    rows: dict[tuple[float, ...], LabelledBox] = {}
    faults = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{labels}:{number}"
        try:
            numbers, box = _row(line, size, data)
        except UnusableRowError as error:
            faults.append(Fault(where, str(error)))
            continue
        if numbers in rows:
            notes.add("rows that stand twice in a file were read once", where)
        if data.is_pose and len(numbers) > _N_BOX + 1:
            notes.add("keypoints were left out, and their rows read by the box", where)
        if not _fits(len(numbers) - 1, data):
            notes.add(_OF_TASK[data.task], where)
        rows[numbers] = box
    if not data.is_pose and len({len(numbers) == _N_BOX + 1 for numbers in rows}) > 1:
        notes.add("boxes and outlines stand in one file, where Ultralytics takes a box for two corners", str(labels))
    return tuple(rows.values()), faults


def _fits(n_numbers: int, data: DataYaml) -> bool:
    """Whether a row has as many numbers behind its class as those of the task."""
    if data.is_pose or not data.task:
        return True
    if data.task == "obb":
        return n_numbers == _N_CORNERS
    return (n_numbers == _N_BOX) == (data.task == "detect")


def _row(line: str, size: ImageSize, data: DataYaml) -> tuple[tuple[float, ...], LabelledBox]:
    """Read a row: its numbers, and its object."""
    shown, words = repr(line.strip()[:40]), line.split()
    odd = next((word for word in words if not _NUMBER.fullmatch(word)), None)
    if odd is not None:
        remedy = "write spaces instead of commas" if "," in line else "correct it"
        told = f"could not convert {odd[:40]!r} to a number"
        raise UnusableRowError(f"{shown} isn't a class with a box or an outline: {told}; {remedy}")
    class_number, *numbers = map(float, words)
    n = len(numbers)
    if data.is_pose:
        is_known, needed = n in (_N_BOX, data.n_pose_numbers or max(n, _N_BOX)), "or as many as kpt_shape says"
    else:
        is_known, needed = n == _N_BOX or (n > _N_BOX and n % 2 == 0), "or x and y of three corners or more"
    if not is_known:
        told = f"{n} numbers follow the class"
        raise UnusableRowError(f"{shown} isn't a class with a box or an outline: {told}; write {_N_BOX}, {needed}")
    if class_number not in data.names:
        raise UnusableRowError(f"there is no class {class_number:g} in data.yaml; add it there or correct the line")
    used = numbers[:_N_BOX] if data.is_pose else numbers
    if (largest := max(used)) > _LARGEST:
        told = f"{largest:g} is no normalized coordinate, from 0 to 1"
        raise UnusableRowError(f"{shown}: {told}; correct it, or divide pixels by the sides of the image")
    return (class_number, *numbers), LabelledBox(data.names[int(class_number)], checked_box(_xyxy(used, size), size))


def _xyxy(numbers: list[float], size: ImageSize) -> BoxXyxy:
    if len(numbers) == _N_BOX:
        x, y, width, height = numbers
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    else:
        xs, ys = numbers[0::2], numbers[1::2]
        edges = (min(xs), min(ys), max(xs), max(ys))
    sides = (size.width, size.height) * 2
    # Half a width taken from a centre in six digits isn't the edge that was meant, to the last bit, and floors differ.
    x0, y0, x1, y1 = (round(edge * side, _DECIMALS) for edge, side in zip(edges, sides, strict=True))
    return x0, y0, x1, y1
