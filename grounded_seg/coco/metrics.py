"""COCO's detection metrics, computed by pycocotools and returned as a record.

The numbers are those that `COCOeval` prints. Around it stand the checks that it lacks: it takes an id of 0 for "no
match", stops at an empty list of predictions, measures a mask by its box where a prediction has both, never matches a
mask of another size than the image's, and changes the dictionaries that it is given.
"""

import contextlib
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from grounded_seg.errors import InputError
from grounded_seg.masks import run_length_from_coco
from grounded_seg.records import ImageSize

Kind = Literal["bbox", "segm"]
"""What is compared: boxes, or masks."""


@dataclass(frozen=True)
class SizeRanges:
    """Where small objects end and large ones begin, by area. The borders belong to both sides, as in COCOeval."""

    small_up_to: float = 32.0**2
    large_from: float = 96.0**2
    relative: bool = False
    """Areas are shares of the image's area, in [0, 1], instead of square pixels."""


@dataclass(frozen=True)
class ClassSummary:
    """The figures of one class, as fractions; None where it has no ground truth."""

    category_id: int
    name: str
    AP: float | None
    AP50: float | None


@dataclass(frozen=True)
class EvaluationSummary:
    """COCO's twelve figures, as fractions; None where there is no ground truth to measure on."""

    AP: float | None
    """Average precision, the mean over IoU thresholds .50, .55, ... .95, at most 100 detections an image and class."""
    AP50: float | None
    AP75: float | None
    AP_small: float | None
    AP_medium: float | None
    AP_large: float | None
    AR1: float | None
    """Average recall over the same thresholds, with the best detection of each image and class only."""
    AR10: float | None
    AR100: float | None
    AR_small: float | None
    AR_medium: float | None
    AR_large: float | None
    per_class: tuple[ClassSummary, ...]
    """In the order of the category ids."""


def evaluate(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    kind: Kind,
    size_ranges: SizeRanges | None = None,
) -> EvaluationSummary:
    """Measure predictions against ground truth.

    Args:
        ground_truth: A COCO file: `images`, `categories`, `annotations`. It is not changed.
        predictions: COCO results: `image_id`, `category_id`, `score`, and `bbox` (for boxes) or `segmentation` (for
            masks: polygons or run lengths). Other keys are ignored, and so are categories that the ground truth lacks.
            None at all is a valid answer.
        kind: Whether boxes or masks are compared.
        size_ranges: The split by object size; None is COCO's own, 32 and 96 pixels squared.

    Raises:
        InputError: If an annotation or a prediction lacks a key, or names an image that isn't listed.
    """
    ranges = size_ranges or SizeRanges()
    images = {image["id"]: image for image in ground_truth["images"]}
    truths = _checked(ground_truth.get("annotations", ()), images, kind, "annotation")
    answers = _checked(predictions, images, kind, "prediction")
    for annotation in (*truths, *answers):
        if ranges.relative:
            image = images[annotation["image_id"]]
            annotation["area"] /= image["width"] * image["height"]
    # COCOeval and COCO print their progress, which would land among the results on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(_indexed(ground_truth, truths), _indexed(ground_truth, answers), kind)
        everything = 1e5**2
        evaluation.params.areaRng = [
            [0.0, everything],
            [0.0, ranges.small_up_to],
            [ranges.small_up_to, ranges.large_from],
            [ranges.large_from, everything],
        ]
        evaluation.evaluate()
        evaluation.accumulate()
    return _summary(evaluation.eval["precision"], evaluation.eval["recall"], ground_truth["categories"])


def _summary(
    precision: npt.NDArray[np.float64], recall: npt.NDArray[np.float64], categories: Iterable[Mapping[str, Any]]
) -> EvaluationSummary:
    """Average COCOeval's tables.

    Args:
        precision: (IoU threshold, recall, class, size range, detections); -1 without ground truth.
        recall: (IoU threshold, class, size range, detections); -1 without ground truth.
        categories: In any order.
    """
    at_50, at_75 = 0, 5
    by_size = [_mean(precision[:, :, :, size, -1]) for size in range(4)]
    recall_by_size = [_mean(recall[:, :, size, -1]) for size in range(4)]
    # COCOeval sorts the category ids and drops double ones.
    names = {category["id"]: category["name"] for category in categories}
    return EvaluationSummary(
        AP=by_size[0],
        AP50=_mean(precision[at_50, :, :, 0, -1]),
        AP75=_mean(precision[at_75, :, :, 0, -1]),
        AP_small=by_size[1],
        AP_medium=by_size[2],
        AP_large=by_size[3],
        AR1=_mean(recall[:, :, 0, 0]),
        AR10=_mean(recall[:, :, 0, 1]),
        AR100=recall_by_size[0],
        AR_small=recall_by_size[1],
        AR_medium=recall_by_size[2],
        AR_large=recall_by_size[3],
        per_class=tuple(
            ClassSummary(
                category_id=category_id,
                name=names[category_id],
                AP=_mean(precision[:, :, place, 0, -1]),
                AP50=_mean(precision[at_50, :, place, 0, -1]),
            )
            for place, category_id in enumerate(sorted(names))
        ),
    )


def _mean(figures: npt.NDArray[np.float64]) -> float | None:
    """Average what was measured, -1 being COCOeval's word for "no ground truth"."""
    measured = figures[figures > -1]
    return float(measured.mean()) if measured.size else None


def _checked(
    annotations: Iterable[Mapping[str, Any]], images: Mapping[int, Mapping[str, Any]], kind: Kind, what: str
) -> list[dict[str, Any]]:
    """Copy what COCOeval needs of each annotation, with new ids from 1."""
    checked = []
    for number, annotation in enumerate(annotations, start=1):
        try:
            image = images[annotation["image_id"]]
            copy = {
                "id": number,
                "image_id": annotation["image_id"],
                "category_id": annotation["category_id"],
                "iscrowd": int(annotation.get("iscrowd", 0)),
                **_shape(annotation, image, kind),
            }
            if what == "prediction":
                copy["score"] = float(annotation["score"])
            elif "area" in annotation:
                # The size of an object is what its annotator says, for boxes the mask's area too.
                copy["area"] = annotation["area"]
        except (KeyError, IndexError, TypeError, ValueError, InputError) as error:
            raise InputError(
                f"{what} {number} can't be evaluated as {kind} ({type(error).__name__}: {error}); it needs a listed "
                "image_id, a category_id, a bbox or a segmentation of the image's size, and a score if predicted"
            ) from error
        checked.append(copy)
    return checked


def _shape(annotation: Mapping[str, Any], image: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """Read the box, or the mask as run lengths, and its own area."""
    if kind == "bbox":
        x, y, width, height = (float(number) for number in annotation["bbox"])
        return {"bbox": [x, y, width, height], "area": width * height}
    height, width = image["height"], image["width"]
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, Mapping):
        run_length = run_length_from_coco(segmentation)
        if run_length.size != ImageSize(width=width, height=height):
            raise ValueError(
                f"the mask is {run_length.size.width} x {run_length.size.height}, not {width} x {height} px"
            )
        mask = {"size": [height, width], "counts": run_length.counts}
    else:
        mask = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return {"segmentation": mask, "area": float(coco_mask.area(mask))}


def _indexed(ground_truth: Mapping[str, Any], annotations: list[dict[str, Any]]) -> COCO:
    """Build pycocotools' index over these annotations of the ground truth's images and categories."""
    index = COCO()
    index.dataset = {**ground_truth, "annotations": annotations}
    index.createIndex()
    return index
