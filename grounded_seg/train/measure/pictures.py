"""The pictures of `report.md`: an image a row, as it is and with the true, the base's and the tuned model's boxes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.files import as_output_error
from grounded_seg.images.draw import draw, save_overlay
from grounded_seg.images.read import read_image
from grounded_seg.records import BoxXyxy, Detection, ImageResult, Instance
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.records import BoxExample
from grounded_seg.train.measure.comparison import Pair
from grounded_seg.train.measure.metrics import Answered

_FOLDER = "report"


@dataclass(frozen=True)
class Shown:
    """One image and the boxes of all three sides, in its pixels."""

    path: Path
    name: str
    truth: tuple[Instance, ...]
    base: tuple[Instance, ...]
    tuned: tuple[Instance, ...]


def shown_of_pair(pair: Pair, images: Path) -> Iterator[Shown]:
    """Give what two measurements on one COCO file found, image by image, at the confidence threshold of `run`."""
    data_set = pair.base.scores.data_set
    for image in data_set.images:
        yield Shown(
            images / image.file_name,
            image.file_name,
            tuple(
                _instance(data_set.classes[one.category_id], xyxy_from_xywh(one.bbox_xywh))
                for one in data_set.objects_by_image.get(image.id, ())
                if not one.is_crowd
            ),
            _predicted(data_set, pair.base.predictions, image.id),
            _predicted(data_set, pair.tuned.predictions, image.id),
        )


def shown_of_answers(base: Sequence[Answered], tuned: Sequence[Answered]) -> Iterator[Shown]:
    """Give two models' answers to the same questions, those about boxes; each asks for all boxes of its image."""
    for before, after in zip(base, tuned, strict=True):
        example = before.question.example
        if isinstance(example, BoxExample):
            truth = tuple(_instance(box.label, box.box_xyxy) for box in example.boxes)
            yield Shown(example.image, example.image.name, truth, _answered(before), _answered(after))


def picture_rows(shown: Iterator[Shown], classes: Sequence[str], root: Path) -> list[tuple[str, ...]]:
    """Draw every image, plain and with each side's boxes, into a folder beside `report.md`.

    Args:
        shown: The images.
        classes: All of them, so that each has its colour in all pictures.
        root: Where `report.md` lies.

    Returns:
        A row of Markdown cells for each: image with its name, truth, base, tuned.
    """
    rows = []
    for number, one in enumerate(shown, start=1):
        image = read_image(one.path)
        cells = []
        sides = {"image": (), "truth": one.truth, "base": one.base, "tuned": one.tuned}
        for side, instances in sides.items():
            relative = f"{_FOLDER}/{number:03}-{side}.jpg"
            result = ImageResult(path=image.path, size=image.size, instances=instances)
            with as_output_error():
                save_overlay(root / relative, draw(image, result, tuple(classes), with_scores=side != "truth"))
            cells.append(f"![{side}]({relative})")
        rows.append((f"{one.name} {cells[0]}", *cells[1:]))
    return rows


def _predicted(data_set: DataSet, predictions: Sequence[Prediction], image_id: int) -> tuple[Instance, ...]:
    threshold = DetectSettings().score_threshold
    return tuple(
        _instance(data_set.classes[one.category_id], xyxy_from_xywh(one.box_xywh), one.score)
        for one in predictions
        if one.image_id == image_id and one.score >= threshold
    )


def _answered(answer: Answered) -> tuple[Instance, ...]:
    threshold = DetectSettings().score_threshold
    return tuple(Instance(one, mask=None, mask_score=None) for one in answer.detections if one.score >= threshold)


def _instance(name: str, box_xyxy: BoxXyxy, score: float = 1.0) -> Instance:
    detection = Detection(label=name, prompt=name, box_xyxy=box_xyxy, score=score)
    return Instance(detection, mask=None, mask_score=None)
