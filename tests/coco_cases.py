"""Small COCO data sets and predictions, made by hand, that several test modules share."""

import json
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet, data_set_from, read_data_set
from grounded_seg.coco.predictions import Prediction, predictions_from, read_predictions
from grounded_seg.scoring.columns import ScoredShapes, truths_from
from grounded_seg.scoring.columns import predictions_from as predicted_from
from grounded_seg.scoring.measure import Scores, score

Box = tuple[float, float, float, float]


def truth(
    *objects: tuple[int, int, Box], n_images: int = 1, classes: tuple[str, ...] = ("car", "dog")
) -> dict[str, Any]:
    """Images of 100 x 100 px with ids from 1; objects are (image, class from 1, box xywh), the box as mask too."""
    return {
        "info": {"description": "made by hand"},
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": 100, "height": 100}
            for number in range(1, n_images + 1)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(classes, start=1)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
                "segmentation": [polygon(box)],
            }
            for number, (image, category, box) in enumerate(objects, start=1)
        ],
    }


def polygon(box: Box) -> list[float]:
    x, y, width, height = box
    return [x, y, x + width, y, x + width, y + height, x, y + height]


def results(*found: tuple[int, int, Box, float], masks: bool = True) -> list[dict[str, Any]]:
    """Predictions (image, class, box xywh, score), each with its box as mask."""
    return [
        {"image_id": image, "category_id": category, "bbox": list(box), "score": score_}
        | ({"segmentation": [polygon(box)]} if masks else {})
        for image, category, box, score_ in found
    ]


def written(path: Path, document: Any) -> Path:
    path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
    return path


def loaded(folder: Path, document: Any, predicted: list[dict[str, Any]]) -> tuple[DataSet, tuple[Prediction, ...]]:
    """Both by way of files, as a user has them."""
    data_set = read_data_set(written(folder / "truth.json", document))
    return data_set, read_predictions(written(folder / "found.json", predicted), data_set).predictions


def records(document: Any, predicted: list[dict[str, Any]]) -> tuple[DataSet, tuple[Prediction, ...]]:
    """Both without files."""
    data_set = data_set_from(document, Path("truth.json"))
    return data_set, predictions_from(predicted, Path("found.json"), data_set).predictions


def columns(document: Any, predicted: list[dict[str, Any]]) -> tuple[ScoredShapes, ScoredShapes]:
    """Objects and predictions as columns of boxes."""
    data_set, predictions = records(document, predicted)
    return truths_from(data_set, "bbox"), predicted_from(predictions, data_set, "bbox")


def scored(folder: Path, document: Any, predicted: list[dict[str, Any]], **options: Any) -> Scores:
    return score(*loaded(folder, document, predicted), **{"score_threshold": 0.3, **options})
