"""Find out what form a data set has, read it, and split it where it isn't split."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from grounded_seg.errors import InputError
from grounded_seg.train.data.checks import ImageSizes, Progress
from grounded_seg.train.data.coco import read_coco
from grounded_seg.train.data.jsonl import read_jsonl
from grounded_seg.train.data.records import BoxExample, Example, Fault, SplitData, TrainingData, fault_lines
from grounded_seg.train.data.reviewed import read_reviewed
from grounded_seg.train.data.yolo import read_yolo
from grounded_seg.train.settings import TrainSettings

_LOG = logging.getLogger(__name__)

JSONL_NAME, COCO_NAME = "annotations.jsonl", "_annotations.coco.json"
YOLO_NAMES = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_YAML_ENDINGS = (".yaml", ".yml")
_SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}
_Read = tuple[dict[str, SplitData], list[str], list[str]]
"""Splits by name (only `train` where there are none), classes, notes."""


def read_training_data(settings: TrainSettings, progress: Progress = lambda _done, _all: None) -> TrainingData:
    """Read a data set in any of its forms, and every image of it.

    `settings.dataset` is a folder with `train`, `valid` and `test`, each with `annotations.jsonl` or
    `_annotations.coco.json` and its images; a folder with one such file; a folder with YOLO's `data.yaml`; or one file:
    that, a `.jsonl` or a COCO `.json`, its images beside it or in `images` there. With `settings.reviewed` it is the
    folder of a run.

    Raises:
        InputError: If there is no data set, nothing of it can be used, it is too small to be split, or a row can't be
            used and `strict` is on; names file and line.
    """
    path = settings.dataset
    sizes = ImageSizes(settings.max_pixels, progress)
    if settings.reviewed is None:
        splits, classes, notes = _read(path, sizes)
    else:
        reviewed, classes, notes = read_reviewed(path, sizes)
        splits = {"train": reviewed}
    splits = {name: _joined(one) for name, one in splits.items()}
    faults = [fault for one in splits.values() for fault in one.faults]
    if settings.strict and faults:
        more = f" (and {len(faults) - 1} more; without --strict they are left out)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}")
    if not any(one.examples for one in splits.values()):
        first = f"; the first: {faults[0]}" if faults else ""
        raise InputError(f"{path} has no row that can be used{first}")
    try:
        splits = _completed(path, splits, settings.split, settings.seed)
    except InputError:
        # Nobody else gets to know them.
        for line in fault_lines(faults):
            _LOG.warning("%s", line)
        raise
    rows = [row for one in splits.values() for row in one.examples if isinstance(row, BoxExample)]
    used = {box.label for row in rows for box in row.boxes}
    # A class without a single object is a folder's name or a leftover: asking about it would teach it as absent.
    ordered = [name for name in classes if name in used] or sorted(used)
    return TrainingData(**splits, classes=tuple(dict.fromkeys(ordered)), notes=tuple(notes))


def check_is_there(path: Path) -> None:
    """Refuse a path with neither a file nor a folder, as an `InputError`."""
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"no data set is at {path}; check the path")


def _read(path: Path, sizes: ImageSizes) -> _Read:
    if path.is_file():
        is_yolo = path.suffix.lower() in _YAML_ENDINGS
        return read_yolo(path, sizes) if is_yolo else _read_files({"train": path}, sizes)
    check_is_there(path)
    folders = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    files = {split: found for split, folder in folders.items() if folder and (found := _annotation_file(folder))}
    yolo = _yolo_file(path)
    for chosen in (files, {"train": own} if (own := _annotation_file(path)) else {}):
        # Beside a data.yaml, a JSON file of any other name isn't the data set.
        if "train" in chosen and (yolo is None or chosen["train"].name in (JSONL_NAME, COCO_NAME)):
            return _read_files(chosen, sizes)
    if yolo is not None:
        return read_yolo(yolo, sizes)
    raise InputError(
        f"{path} holds no data set; put {JSONL_NAME}, {COCO_NAME} or data.yaml there, or in its folders train, valid "
        "and test"
    )


def _annotation_file(folder: Path) -> Path | None:
    for name in (JSONL_NAME, COCO_NAME):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.json"))
    return others[0] if len(others) == 1 else None


def _yolo_file(folder: Path) -> Path | None:
    for name in YOLO_NAMES:
        if (folder / name).is_file():
            return folder / name
    others = sorted(path for path in folder.iterdir() if path.suffix.lower() in _YAML_ENDINGS)
    return others[0] if len(others) == 1 else None


def _read_files(files: dict[str, Path], sizes: ImageSizes) -> _Read:
    splits: dict[str, SplitData] = {}
    classes: list[str] = []
    notes: list[str] = []
    for split, path in files.items():
        # The files of the splits have one name.
        name = path.name if len(files) == 1 else f"{path.parent.name}/{path.name}"
        if path.suffix.lower() == ".jsonl":
            splits[split], found = read_jsonl(path, sizes)
            notes += [f"{name}: {note}" for note in found]
        else:
            splits[split], data_set = read_coco(path, sizes)
            classes += data_set.classes.values()
            notes += [f"{name}: {note}" for note in data_set.notes]
    return splits, classes, notes


def _joined(split: SplitData) -> SplitData:
    """Make one example of all rows about the boxes of an image: one alone would deny what another one lists.

    For the same reason all of them are left out where one can't be used.
    """
    lost = {fault.image: fault.source for fault in split.faults if fault.image is not None}
    faults = list(split.faults)
    joined: dict[Path, BoxExample] = {}
    texts: list[Example] = []
    for row in split.examples:
        if not isinstance(row, BoxExample):
            texts.append(row)
        elif row.image in lost:
            told = f"{lost[row.image]} is about boxes of the same image, which are incomplete"
            faults.append(Fault(row.source, told))
        else:
            first = joined.setdefault(row.image, row)
            if first is not row:
                unsure = first.unsure | row.unsure
                boxes = (*first.boxes, *(box for box in row.boxes if box not in first.boxes))
                kept = tuple(box for box in boxes if box.label not in unsure)
                joined[row.image] = replace(first, boxes=kept, unsure=unsure)
    return SplitData((*joined.values(), *texts), tuple(faults))


def _completed(
    path: Path, splits: dict[str, SplitData], split: tuple[int, int, int], seed: int
) -> dict[str, SplitData]:
    """Take missing splits out of `train` by seed, image by image, each at least one image."""
    shares = dict(zip(("train", "valid", "test"), split, strict=True))
    missing = [name for name in shares if not splits.get(name, SplitData()).examples]
    if "train" in missing:
        raise InputError(f"{path} has no rows to train on; fill its split train")
    if not missing:
        return splits
    images = sorted({str(row.image) for row in splits["train"].examples})
    if len(images) <= len(missing):
        raise InputError(
            f"{path} has {len(images)} usable images, too few for {len(missing) + 1} splits; add some, or give splits"
        )
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    whole = shares["train"] + sum(shares[name] for name in missing)
    split_by_image = dict.fromkeys(images, "train")
    for number, name in enumerate(missing):
        # One image at least for this split, for each of those that follow, and for train.
        most = len(order) - (len(missing) - number)
        n = min(max(1, round(len(images) * shares[name] / whole)), most)
        split_by_image |= {images[index]: name for index in order[:n]}
        order = order[n:]
    return splits | {
        name: SplitData(
            tuple(row for row in splits["train"].examples if split_by_image[str(row.image)] == name),
            splits.get(name, SplitData()).faults,
        )
        for name in ("train", *missing)
    }
