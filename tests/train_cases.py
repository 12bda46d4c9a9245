"""Small data sets on disk, the same objects in each of the forms that `train` reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import PIL.Image
from fakes import painted

from grounded_seg.settings import ModelSettings, Precision
from grounded_seg.train import TrainSettings
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.records import TrainingData

WIDTH, HEIGHT = 40, 30
Boxes = Mapping[str, Sequence[tuple[int, int, int, int]]]
"""Pixel boxes, x0 y0 x1 y1, by class."""

IMAGES: Mapping[str, Boxes] = {
    "a.png": {"red": [(2, 3, 12, 9), (20, 15, 30, 25)]},
    "b.png": {"green": [(4, 4, 14, 20)]},
    "c.png": {"red": [(0, 0, 40, 15)], "green": [(10, 18, 30, 28)]},
    "d.png": {},
    "e.png": {"red": [(5, 5, 15, 15)]},
    "f.png": {"green": [(8, 2, 38, 12)]},
}


def paint_images(folder: Path, images: Mapping[str, Boxes] = IMAGES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, boxes in images.items():
        shapes = {label: rows[0] for label, rows in boxes.items()}
        PIL.Image.fromarray(painted(WIDTH, HEIGHT, **shapes)).save(folder / name)


def coco_document(images: Mapping[str, Boxes] = IMAGES) -> dict[str, Any]:
    classes = {"red": 1, "green": 2}
    document: dict[str, Any] = {
        "images": [
            {"id": number, "file_name": name, "width": WIDTH, "height": HEIGHT}
            for number, name in enumerate(images, start=1)
        ],
        "categories": [{"id": number, "name": name} for name, number in classes.items()],
        "annotations": [],
    }
    for number, boxes in enumerate(images.values(), start=1):
        for label, rows in boxes.items():
            for x0, y0, x1, y1 in rows:
                document["annotations"].append(
                    {
                        "id": len(document["annotations"]) + 1,
                        "image_id": number,
                        "category_id": classes[label],
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": (x1 - x0) * (y1 - y0),
                        "iscrowd": 0,
                    }
                )
    return document


def write_coco(folder: Path, document: Mapping[str, Any] | None = None) -> Path:
    """One folder with the images and a COCO file, an annotation a line."""
    paint_images(folder)
    path = folder / "_annotations.coco.json"
    path.write_text(json.dumps(document or coco_document(), indent=0))
    return path


def write_jsonl(folder: Path, rows: Sequence[Any]) -> Path:
    """Rows as they are where they are texts, else as JSON."""
    paint_images(folder)
    path = folder / "annotations.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def od_row(name: str, suffix: str, prefix: str = "<OD>") -> dict[str, str]:
    return {"image": name, "prefix": prefix, "suffix": suffix}


def tiny_settings(dataset: Path, output: Path, detector: Path, **more: Any) -> TrainSettings:
    """A training of a few steps on the CPU."""
    options: dict[str, Any] = {"epochs": 2, "batch_size": 4, "lr": 5e-3, "report": False, "split": (60, 20, 20)}
    models = ModelSettings(detector=str(detector), device="cpu", dtype=Precision.FLOAT32)
    return TrainSettings(dataset=dataset, output=output, models=models, **(options | more))


def read_data(path: Path, split: tuple[int, int, int] = (60, 20, 20), seed: int = 0, **more: Any) -> TrainingData:
    return read_training_data(TrainSettings(dataset=path, output=path, split=split, seed=seed, **more))
