"""Find out what form a data set has, read it, and split it where it isn't split."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from grounded_seg.errors import InputError
from grounded_seg.settings import MAX_PIXELS
from grounded_seg.train.data.checks import ImageSizes, Progress
from grounded_seg.train.data.coco import read_coco
from grounded_seg.train.data.jsonl import read_jsonl
from grounded_seg.train.data.records import BoxExample, Example, Fault, SplitData, TrainingData
from grounded_seg.train.data.yolo import read_yolo

JSONL_NAME, COCO_NAME = "annotations.jsonl", "_annotations.coco.json"
YOLO_NAMES = ("data.yaml", "dataset.yaml")
_SPLIT_FOLDERS = {"train": ("train",), "valid": ("valid", "val", "validation"), "test": ("test",)}


def read_training_data(
    path: Path,
    split: tuple[int, int, int],
    seed: int,
    *,
    strict: bool = False,
    max_pixels: int = MAX_PIXELS,
    progress: Progress = lambda _done, _all: None,
) -> TrainingData:
    """Read a data set in any of its forms, and every image of it.

    Args:
        path: A folder with `train`, `valid` and `test`, each with `annotations.jsonl` or `_annotations.coco.json` and
            its images; a folder with one such file; a folder with YOLO's `data.yaml`; or one `.jsonl` or COCO `.json`
            file, its images beside it or in `images` there.
        split: Percent of train, valid and test, where the data set lacks any of them.
        seed: Of that split.
        strict: Refuse the data set if any row of it can't be used.
        max_pixels: Width x height above which an image can't be used.
        progress: Told how many images have been read, of those that are known so far.

    Raises:
        InputError: If there is no data set, nothing of it can be used, it is too small to be split, or a row can't be
            used and `strict` is on; names file and line.
    """
    splits, classes, notes = _read(path, ImageSizes(max_pixels, progress))
    splits = {name: _joined(one) for name, one in splits.items()}
    faults = [fault for one in splits.values() for fault in one.faults]
    if strict and faults:
        more = f" (and {len(faults) - 1} more; without --strict they are left out)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}")
    if not any(one.examples for one in splits.values()):
        first = f"; the first: {faults[0]}" if faults else ""
        raise InputError(f"{path} has no row that can be learnt from{first}")
    splits = _completed(path, splits, split, seed)
    rows = [row for one in splits.values() for row in one.examples if isinstance(row, BoxExample)]
    used = {box.label for row in rows for box in row.boxes}
    # A class without a single object is a folder's name or a leftover: asking about it would teach it as absent.
    ordered = [name for name in classes if name in used] or sorted(used)
    return TrainingData(**splits, classes=tuple(dict.fromkeys(ordered)), notes=tuple(notes))


def _read(path: Path, sizes: ImageSizes) -> tuple[dict[str, SplitData], list[str], list[str]]:
    """Give the splits by name (only `train` where there are none), the classes, and notes."""
    if path.is_file():
        return _read_files({"train": path}, sizes)
    if not path.is_dir():
        raise InputError(f"no data set is at {path}; check the path")
    folders = {
        split: next((path / name for name in names if (path / name).is_dir()), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    files = {split: found for split, folder in folders.items() if folder and (found := _annotation_file(folder))}
    yolo = next((path / name for name in YOLO_NAMES if (path / name).is_file()), None)
    for chosen in (files, {"train": own} if (own := _annotation_file(path)) else {}):
        # Beside a data.yaml, a JSON file of any other name isn't the data set.
        if "train" in chosen and (yolo is None or chosen["train"].name in (JSONL_NAME, COCO_NAME)):
            return _read_files(chosen, sizes)
    if yolo is not None:
        splits, classes = read_yolo(yolo, sizes)
        return splits, list(classes), []
    raise InputError(
        f"{path} holds no data set; put {JSONL_NAME}, {COCO_NAME} or data.yaml there, or in its folders train, valid "
        "and test"
    )


def _joined(split: SplitData) -> SplitData:
    """Make one example of all rows about the boxes of an image: one alone would deny what another one lists.

    For the same reason all of them are left out where one can't be used.
    """
    lost = {fault.image: fault.place for fault in split.faults if fault.image is not None}
    faults = list(split.faults)
    joined: dict[Path, BoxExample] = {}
    texts: list[Example] = []
    for row in split.examples:
        if not isinstance(row, BoxExample):
            texts.append(row)
            continue
        if row.image in lost:
            faults.append(Fault(row.place, f"{lost[row.image]} is about boxes of the same image, which are incomplete"))
            continue
        first = joined.get(row.image)
        if first is not None:
            unsure = first.unsure | row.unsure
            boxes = (*first.boxes, *(box for box in row.boxes if box not in first.boxes))
            row = replace(first, boxes=tuple(box for box in boxes if box.label not in unsure), unsure=unsure)
        joined[row.image] = row
    return SplitData((*joined.values(), *texts), tuple(faults))


def _annotation_file(folder: Path) -> Path | None:
    for name in (JSONL_NAME, COCO_NAME):
        if (folder / name).is_file():
            return folder / name
    others = sorted(folder.glob("*.json"))
    return others[0] if len(others) == 1 else None


def _read_files(files: dict[str, Path], sizes: ImageSizes) -> tuple[dict[str, SplitData], list[str], list[str]]:
    splits: dict[str, SplitData] = {}
    classes: list[str] = []
    notes: list[str] = []
    for split, path in files.items():
        if path.suffix.lower() == ".jsonl":
            splits[split] = read_jsonl(path, sizes)
        else:
            splits[split], data_set = read_coco(path, sizes)
            classes += data_set.classes.values()
            notes += [f"{path.name}: {note}" for note in data_set.notes]
    return splits, classes, notes


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
    train = splits["train"]
    images = sorted({str(row.image) for row in train.examples})
    if len(images) <= len(missing):
        raise InputError(
            f"{path} has {len(images)} usable images, too few for {len(missing) + 1} splits; add some, or give splits"
        )
    order = np.random.default_rng(seed).permutation(len(images)).tolist()
    whole = shares["train"] + sum(shares[name] for name in missing)
    parts: dict[str, set[str]] = {}
    for name in missing:
        # One image at least for this split, for each of those that follow, and for train.
        most = len(order) - (len(missing) - len(parts))
        n = min(max(1, round(len(images) * shares[name] / whole)), most)
        parts[name] = {images[index] for index in order[:n]}
        order = order[n:]
    taken = set().union(*parts.values())
    found = {
        name: SplitData(_on(train.examples, part), splits.get(name, SplitData()).faults) for name, part in parts.items()
    }
    rest = SplitData(_on(train.examples, set(images) - taken), train.faults)
    return {**splits, **found, "train": rest}


def _on(rows: Sequence[Example], images: set[str]) -> tuple[Example, ...]:
    return tuple(row for row in rows if str(row.image) in images)
