"""Ground truth and predictions as columns: what matching, error types and presence all work on.

Images and classes are numbered by their place in the sorted ids, the order in which pycocotools goes through them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import run_length_from_coco
from grounded_seg.records import ImageSize, RunLength

Kind = Literal["bbox", "segm"]
"""What is compared: boxes, or masks."""

KIND_NAMES: Mapping[Kind, str] = {"bbox": "boxes", "segm": "masks"}
"""As reports, tables and plots call them."""

CocoShape: TypeAlias = list[float] | dict[str, Any]
"""x, y, width, height in pixels; or a compressed run-length mask. Both as pycocotools' `iou` takes them."""


@dataclass(frozen=True)
class Index:
    """The places of a data set's images and classes."""

    image_ids: tuple[Any, ...]
    """Sorted, distinct."""
    category_ids: tuple[Any, ...]
    """Sorted, distinct."""
    names: tuple[str, ...]
    """Of each class."""

    @property
    def n_images(self) -> int:
        """Number of images."""
        return len(self.image_ids)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.category_ids)


@dataclass(frozen=True, eq=False)
class ScoredShapes:
    """Objects or predictions of one kind, in the order they were given."""

    shapes: list[CocoShape]
    image: npt.NDArray[np.int64]
    """Place of each one's image, (n,)."""
    category: npt.NDArray[np.int64]
    """Place of each one's class, (n,)."""
    area: npt.NDArray[np.float64]
    """By which a size range is chosen, (n,): square pixels, or shares of the image."""
    score: npt.NDArray[np.float64]
    """(n,); 1 for ground truth."""
    is_crowd: npt.NDArray[np.bool_]
    """(n,); always False for predictions."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.shapes)

    def chosen(self, rows: npt.NDArray[np.bool_]) -> "ScoredShapes":
        """Keep some, (n,) says which."""
        return ScoredShapes(
            shapes=[shape for shape, is_kept in zip(self.shapes, rows.tolist(), strict=True) if is_kept],
            image=self.image[rows],
            category=self.category[rows],
            area=self.area[rows],
            score=self.score[rows],
            is_crowd=self.is_crowd[rows],
        )


def index_of(ground_truth: Mapping[str, Any]) -> Index:
    """Number the images and classes of a COCO file."""
    # A later category of the same id wins, as in pycocotools' index.
    names = {category["id"]: str(category["name"]) for category in ground_truth["categories"]}
    category_ids = tuple(sorted(names))
    return Index(
        image_ids=tuple(sorted({image["id"] for image in ground_truth["images"]})),
        category_ids=category_ids,
        names=tuple(names[category_id] for category_id in category_ids),
    )


def truths_from(ground_truth: Mapping[str, Any], index: Index, kind: Kind, *, relative: bool = False) -> ScoredShapes:
    """Take a COCO file's annotations.

    Args:
        ground_truth: The file; it isn't changed.
        index: Of the same file.
        kind: Whether `bbox` or `segmentation` is read.
        relative: Areas are shares of the image's area.

    Raises:
        InputError: If an annotation lacks a key, or names an image that isn't listed.
    """
    return _columns(ground_truth.get("annotations", ()), ground_truth, index, kind, relative, is_truth=True)


def answers_from(
    ground_truth: Mapping[str, Any],
    predictions: Sequence[Mapping[str, Any]],
    index: Index,
    kind: Kind,
    *,
    relative: bool = False,
) -> ScoredShapes:
    """Take predictions in COCO's result format; those of classes that the ground truth lacks are left out.

    Args:
        ground_truth: The file that they are measured against.
        predictions: Results; they aren't changed.
        index: Of the ground truth.
        kind: Whether `bbox` or `segmentation` is read.
        relative: Areas are shares of the image's area.

    Raises:
        InputError: If a prediction lacks a key, or names an image that isn't listed.
    """
    return _columns(predictions, ground_truth, index, kind, relative, is_truth=False)


def _columns(
    annotations: Iterable[Mapping[str, Any]],
    ground_truth: Mapping[str, Any],
    index: Index,
    kind: Kind,
    relative: bool,
    *,
    is_truth: bool,
) -> ScoredShapes:
    images = {image["id"]: image for image in ground_truth["images"]}
    image_places = {image_id: place for place, image_id in enumerate(index.image_ids)}
    class_places = {category_id: place for place, category_id in enumerate(index.category_ids)}
    shapes: list[CocoShape] = []
    rows: list[tuple[int, int, float, float, bool]] = []
    for number, annotation in enumerate(annotations, start=1):
        try:
            image = images[annotation["image_id"]]
            shape, area = _box(annotation) if kind == "bbox" else _mask(annotation, image)
            if is_truth:
                # The size of an object is what its annotator says, for boxes the mask's area too.
                area, score = float(annotation.get("area", area)), 1.0
            else:
                score = _finite(annotation["score"])
            if relative:
                area /= image["width"] * image["height"]
            category = class_places.get(annotation["category_id"])
        except (KeyError, IndexError, TypeError, ValueError, InputError) as error:
            what = "annotation" if is_truth else "prediction"
            raise InputError(
                f"{what} {number} can't be evaluated as {kind} ({type(error).__name__}: {error}); it needs a listed "
                "image_id, a category_id, a bbox or a segmentation of the image's size, and a score if predicted"
            ) from error
        if category is None:
            continue
        shapes.append(shape)
        is_crowd = is_truth and bool(annotation.get("iscrowd", 0))
        rows.append((image_places[annotation["image_id"]], category, area, score, is_crowd))
    columns = zip(*rows, strict=True) if rows else ((),) * 5
    image_column, category_column, area_column, score_column, crowd_column = columns
    return ScoredShapes(
        shapes=shapes,
        image=np.array(image_column, dtype=np.int64),
        category=np.array(category_column, dtype=np.int64),
        area=np.array(area_column, dtype=np.float64),
        score=np.array(score_column, dtype=np.float64),
        is_crowd=np.array(crowd_column, dtype=np.bool_),
    )


def _box(annotation: Mapping[str, Any]) -> tuple[CocoShape, float]:
    """Read a box and its own area."""
    x, y, width, height = (_finite(number) for number in annotation["bbox"])
    return [x, y, width, height], width * height


def _mask(annotation: Mapping[str, Any], image: Mapping[str, Any]) -> tuple[CocoShape, float]:
    """Read a mask as run lengths, and its own area."""
    segmentation = annotation["segmentation"]
    if isinstance(segmentation, RunLength):
        # Read and checked already.
        mask = {"size": [segmentation.size.height, segmentation.size.width], "counts": segmentation.counts}
        return mask, float(coco_mask.area(mask))
    height, width = image["height"], image["width"]
    if isinstance(segmentation, Mapping):
        run_length = run_length_from_coco(segmentation)
        if run_length.size != ImageSize(width=width, height=height):
            raise ValueError(
                f"the mask is {run_length.size.width} x {run_length.size.height}, not {width} x {height} px"
            )
        mask = {"size": [height, width], "counts": run_length.counts}
    else:
        mask = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    return mask, float(coco_mask.area(mask))


def _finite(number: Any) -> float:
    value = float(number)
    if not np.isfinite(value):
        raise ValueError(f"{value} is no finite number")
    return value
