"""Objects and predictions as columns: what matching, error types and presence all work on.

Images and classes are numbered by their index in the sorted ids, the order in which pycocotools goes through them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.data_set import DataSet, DataSetObject
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import Kind, xyxy_from_xywh
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px, coco_overlaps, run_length_from_box
from grounded_seg.records import RunLength

KIND_NAMES: Mapping[Kind, str] = {"bbox": "boxes", "segm": "masks"}
"""As reports, tables and plots call them."""

Indices: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Index:
    """The order of a data set's images and classes."""

    image_ids: tuple[int, ...]
    """Sorted, distinct."""
    category_ids: tuple[int, ...]
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

    boxes_xywh: npt.NDArray[np.float64] | None
    """In pixels, (n, 4); None where masks are compared."""
    masks: tuple[RunLength, ...]
    """Empty where boxes are compared."""
    image: Indices
    """Index of each one's image, (n,)."""
    category: Indices
    """Index of each one's class, (n,)."""
    area: npt.NDArray[np.float64]
    """By which a size range is chosen, (n,): square pixels, or shares of the image."""
    score: npt.NDArray[np.float64]
    """(n,); 1 for objects."""
    is_crowd: npt.NDArray[np.bool_]
    """(n,); always False for predictions."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.image)

    def shapes_at(self, indices: Indices) -> npt.NDArray[np.float64] | list[RunLength]:
        """Boxes or masks at some indices, in that order."""
        if self.boxes_xywh is not None:
            return self.boxes_xywh[indices]
        return [self.masks[index] for index in indices.tolist()]

    def chosen(self, rows: npt.NDArray[np.bool_]) -> "ScoredShapes":
        """Keep some, (n,) says which."""
        return ScoredShapes(
            boxes_xywh=None if self.boxes_xywh is None else self.boxes_xywh[rows],
            masks=tuple(mask for mask, is_kept in zip(self.masks, rows.tolist(), strict=False) if is_kept),
            image=self.image[rows],
            category=self.category[rows],
            area=self.area[rows],
            score=self.score[rows],
            is_crowd=self.is_crowd[rows],
        )


def index_of(data_set: DataSet) -> Index:
    """Number the images and classes of a data set."""
    category_ids = tuple(sorted(data_set.classes))
    return Index(
        image_ids=tuple(sorted({image.id for image in data_set.images})),
        category_ids=category_ids,
        names=tuple(data_set.classes[category_id] for category_id in category_ids),
    )


def truths_from(data_set: DataSet, index: Index, kind: Kind, *, relative: bool = False) -> ScoredShapes:
    """Columns of a data set's objects.

    For masks, an object that has none becomes a crowd of its box's form, as far as its image's size is known: what is
    predicted there is neither right nor wrong.

    Args:
        data_set: The truth.
        index: Of the data set.
        kind: Whether boxes or masks are taken.
        relative: Areas are shares of the image's area.

    Raises:
        InputError: If a number is not finite, or an object names an image that isn't listed.
    """
    objects = data_set.objects if kind == "bbox" else tuple(_with_masks(data_set))
    # The size of an object is what its annotator says, for boxes the mask's area too.
    return _columns(
        objects,
        [one.bbox_xywh for one in objects],
        [one.area for one in objects],
        data_set,
        index,
        kind,
        relative,
        is_crowd=[one.is_crowd for one in objects],
    )


def predictions_from(
    predictions: Iterable[Prediction], data_set: DataSet, index: Index, kind: Kind, *, relative: bool = False
) -> ScoredShapes:
    """Columns of the predictions that `measurable` keeps; the arguments are those of `truths_from`.

    Raises:
        InputError: If a number is not finite, or a prediction names an image that isn't listed.
    """
    kept = measurable(predictions, data_set, kind)
    boxes = [one.box_xywh for one in kept]
    areas = [float(width * height) for _, _, width, height in boxes]
    if kind == "segm":
        areas = [float(area_px(one.mask)) for one in kept if one.mask is not None]
    scores = [one.score for one in kept]
    return _columns(kept, boxes, areas, data_set, index, kind, relative, score=scores)


def measurable(predictions: Iterable[Prediction], data_set: DataSet, kind: Kind) -> list[Prediction]:
    """Leave out predictions of classes that the data set lacks and, for masks, those without one."""
    return [
        one for one in predictions if one.category_id in data_set.classes and (kind == "bbox" or one.mask is not None)
    ]


def overlaps(
    predictions: ScoredShapes, chosen: Indices, truths: ScoredShapes, objects: Indices
) -> npt.NDArray[np.float64]:
    """IoU of predictions with objects, (k, g); with a crowd, the share of the prediction that lies in it."""
    return coco_overlaps(predictions.shapes_at(chosen), truths.shapes_at(objects), truths.is_crowd[objects])


def _with_masks(data_set: DataSet) -> Iterable[DataSetObject]:
    sizes = {image.id: image.size for image in data_set.images}
    for one in data_set.objects:
        if one.mask is not None:
            yield one
        elif (size := sizes[one.image_id]) is not None:
            yield replace(one, mask=run_length_from_box(xyxy_from_xywh(one.bbox_xywh), size), is_crowd=True)


def _columns(
    records: Sequence[DataSetObject] | Sequence[Prediction],
    boxes_xywh: Sequence[tuple[float, float, float, float]],
    areas: Sequence[float],
    data_set: DataSet,
    index: Index,
    kind: Kind,
    relative: bool,
    *,
    score: Sequence[float] | None = None,
    is_crowd: Sequence[bool] | None = None,
) -> ScoredShapes:
    n = len(records)
    image_indices = {image_id: number for number, image_id in enumerate(index.image_ids)}
    class_indices = {category_id: number for number, category_id in enumerate(index.category_ids)}
    try:
        image = np.array([image_indices[one.image_id] for one in records], dtype=np.int64)
    except KeyError as error:
        raise InputError(f"image {error} isn't listed in {data_set.path}; add it there") from error
    boxes = np.array(boxes_xywh, dtype=np.float64).reshape(n, 4)
    area = np.array(areas, dtype=np.float64)
    scores = np.ones(n) if score is None else np.array(score, dtype=np.float64)
    for values in (boxes, scores):
        if not np.isfinite(values).all():
            raise InputError(f"a box or score measured on {data_set.path} is not a finite number; export it again")
    if relative:
        sides = [(one.size.width, one.size.height) if one.size else (np.nan, np.nan) for one in data_set.images]
        area /= np.prod(np.array(sides, dtype=np.float64).reshape(-1, 2), axis=1)[image]
    return ScoredShapes(
        boxes_xywh=boxes if kind == "bbox" else None,
        masks=() if kind == "bbox" else tuple(one.mask for one in records if one.mask is not None),
        image=image,
        category=np.array([class_indices[one.category_id] for one in records], dtype=np.int64),
        area=area,
        score=scores,
        is_crowd=np.zeros(n, dtype=np.bool_) if is_crowd is None else np.array(is_crowd, dtype=np.bool_),
    )
