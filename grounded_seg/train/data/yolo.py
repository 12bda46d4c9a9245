"""Examples from YOLO: `data.yaml`, a text file per image, a line per object, in shares of the image's sides.

supervision reads this form too, but stops at a broken line without saying which; the tests hold both to the same boxes.
"""

import math
import os
from pathlib import Path
from typing import Any

import yaml

from grounded_seg.errors import InputError
from grounded_seg.images.find import find_images
from grounded_seg.records import BoxXyxy, ImageSize
from grounded_seg.train.data.checks import ImageSizes, UnusableRowError, checked_box
from grounded_seg.train.data.records import BoxExample, Fault, LabelledBox, SplitData, split_from

_DECIMALS = 2
"""Of a pixel, that shares with six digits still tell."""
_CLASSES_FILE = "classes.txt"
"""Some tools put the names of the classes among the labels."""
_SPLIT_KEYS = {"train": ("train",), "valid": ("val", "valid"), "test": ("test",)}


def read_yolo(path: Path, sizes: ImageSizes) -> tuple[dict[str, SplitData], list[str]]:
    """Read the splits that a `data.yaml` names, and its classes; an image without labels is a background image."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        names = _names(document)
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        raise InputError(f"{path} is no data.yaml of YOLO ({' '.join(str(error).split())}); export it again") from error
    splits = {}
    for split, keys in _SPLIT_KEYS.items():
        entry = next((document[key] for key in keys if document.get(key)), None)
        if entry is not None:
            folders = [_folder(path, document, str(one)) for one in (entry if isinstance(entry, list) else [entry])]
            rows = [row for folder in folders for row in _rows(folder, names, sizes)]
            splits[split] = split_from(rows)
    if not splits:
        raise InputError(f"{path} names no train, val or test images; add them")
    return splits, list(names.values())


def _names(document: Any) -> dict[int, str]:
    names = document.get("names") if isinstance(document, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    if not isinstance(names, dict) or not names:
        raise ValueError("it has no names")
    return {int(number): str(name).strip() for number, name in names.items()}


def _folder(path: Path, document: dict[str, Any], entry: str) -> Path:
    root = path.parent / str(document.get("path") or "")
    # Roboflow writes ../train/images, which means the folder beside data.yaml all the same.
    for folder in (root / entry, path.parent / entry, path.parent / entry.removeprefix("../")):
        if os.path.isdir(folder):
            return folder
    raise InputError(f"{path} names the folder {entry[:255]!r}, which isn't there; correct the path")


def _rows(folder: Path, names: dict[int, str], sizes: ImageSizes) -> list[BoxExample | Fault]:
    found = find_images([folder])
    sizes.read(found.root, found.file_names)
    images = [found.path(name) for name in found.file_names]
    without_image = _without_image(folder, set(map(_label_file, images)))
    return [*without_image, *(_example(image, _label_file(image), names, sizes) for image in images)]


def _example(image: Path, labels: Path, names: dict[int, str], sizes: ImageSizes) -> BoxExample | Fault:
    source = str(image)
    try:
        size = sizes.of(image)
        if not labels.is_file():
            return BoxExample(image, size, (), source)
        boxes = []
        source = str(labels)
        for number, line in enumerate(labels.read_text(encoding="utf-8").splitlines(), start=1):
            source = f"{labels}:{number}"
            if line.strip():
                boxes.append(_box(line, size, names))
    except UnusableRowError as error:
        return Fault(source, str(error))
    except (OSError, UnicodeDecodeError) as error:
        return Fault(str(labels), f"it can't be read ({error}); write it again")
    return BoxExample(image, size, tuple(boxes), str(labels))


def _without_image(folder: Path, known: set[Path]) -> list[Fault]:
    """Name the label files that no image belongs to; among the images themselves, other texts may lie."""
    labels = _label_file(folder / "any.jpg").parent
    if labels == folder:
        return []
    return [
        Fault(f"{path}:1", "there is no image of this name; add it or take the file out")
        for path in sorted(labels.rglob("*.txt"))
        if path not in known and path.name != _CLASSES_FILE
    ]


def _label_file(image: Path) -> Path:
    """Swap the last folder `images` of the path for `labels`, as YOLO does."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _box(line: str, size: ImageSize, names: dict[int, str]) -> LabelledBox:
    """Read `class x y width height`, a box by its centre, or `class x y x y x y ...`, an outline."""
    try:
        numbers = [float(word) for word in line.split()]
    except ValueError as error:
        raise UnusableRowError(f"{error}; a line is a class and numbers") from error
    shares = numbers[1:]
    if not all(map(math.isfinite, numbers)) or len(shares) < 4 or (len(shares) != 4 and len(shares) % 2):
        raise UnusableRowError(f"{line.strip()[:40]!r} isn't a class with a box or an outline; correct it")
    if numbers[0] not in names:
        raise UnusableRowError(f"there is no class {numbers[0]:g} in data.yaml; add it there or correct the line")
    return LabelledBox(names[int(numbers[0])], checked_box(_xyxy(shares, size), size))


def _xyxy(shares: list[float], size: ImageSize) -> BoxXyxy:
    if len(shares) == 4:
        x, y, width, height = shares
        xs, ys = [x - width / 2, x + width / 2], [y - height / 2, y + height / 2]
    else:
        xs, ys = shares[0::2], shares[1::2]
    edges = (min(xs) * size.width, min(ys) * size.height, max(xs) * size.width, max(ys) * size.height)
    # Half a width taken from a centre in six digits isn't the edge that was meant, to the last bit, and floors differ.
    x0, y0, x1, y1 = (round(edge, _DECIMALS) for edge in edges)
    return x0, y0, x1, y1
