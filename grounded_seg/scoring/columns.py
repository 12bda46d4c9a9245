"""Objects and predictions as columns: what matching, error types and presence all work on.

Images and classes are numbered by their index in the sorted ids, the order in which pycocotools goes through them.
"""

from collections.abc import Iterable, Mapping
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
"""In reports, tables and plots."""

Floats: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
_COLUMNS = ("image", "category", "area", "score", "is_crowd", "detector_score")
_Row: TypeAlias = tuple[int, int, tuple[float, float, float, float], RunLength | None, float, float, float, bool]
"""Ids of image and class, box, mask, area, score, score of the detector, whether it is a crowd."""


@dataclass(frozen=True)
class Index:
    """The order of a data set's images and classes."""

    image_ids: tuple[int, ...]
    """Sorted and distinct, as the classes', whose names follow."""
    category_ids: tuple[int, ...]
    names: tuple[str, ...]

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
    """Objects or predictions of one kind, in the order they were given; n of them."""

    index: Index
    boxes_xywh: Floats | None
    """In pixels, (n, 4); None where masks are compared."""
    masks: tuple[RunLength, ...]
    """Empty where boxes are compared."""
    image: Indices
    """Index of each one's image, (n,)."""
    category: Indices
    """Index of each one's class, (n,)."""
    area: Floats
    """By which a size range is chosen, (n,): square pixels, or shares of the image."""
    score: Floats
    """(n,); 1 for objects."""
    is_crowd: Flags
    """(n,); always False for predictions."""
    detector_score: Floats | None = None
    """(n,), decides where scores are equal; None for the scores themselves."""

    def __len__(self) -> int:
        """How many there are."""
        return len(self.image)

    @property
    def falling(self) -> tuple[Floats, Floats]:
        """Keys that sort from high to low score, for `np.lexsort`: the last one decides first."""
        return (-(self.score if self.detector_score is None else self.detector_score), -self.score)

    def shapes_at(self, indices: Indices) -> Floats | list[RunLength]:
        """Boxes or masks at some indices, in that order."""
        if self.boxes_xywh is not None:
            return self.boxes_xywh[indices]
        return [self.masks[index] for index in indices.tolist()]

    def chosen(self, rows: Flags) -> "ScoredShapes":
        """Those that (n,) says."""
        columns = {name: column[rows] for name in _COLUMNS if (column := getattr(self, name)) is not None}
        boxes = None if self.boxes_xywh is None else self.boxes_xywh[rows]
        masks = tuple(mask for mask, is_kept in zip(self.masks, rows.tolist(), strict=False) if is_kept)
        return ScoredShapes(self.index, boxes, masks, **columns)


def truths_from(data_set: DataSet, kind: Kind, *, relative: bool = False) -> ScoredShapes:
    """Columns of a data set's objects.

    For masks, an object that has none becomes a crowd of its box's form, as far as its image's size is known: what is
    predicted there is neither right nor wrong. With `relative`, areas are shares of the image's area.
    """
    objects = data_set.objects if kind == "bbox" else _with_masks(data_set)
    # The size of an object is what its annotator says, for boxes the mask's area too.
    rows = [(o.image_id, o.category_id, o.bbox_xywh, o.mask, o.area, 1.0, 1.0, o.is_crowd) for o in objects]
    return _columns(rows, data_set, kind, relative)


def predictions_from(
    predictions: Iterable[Prediction], data_set: DataSet, kind: Kind, *, relative: bool = False
) -> ScoredShapes:
    """Columns of those predictions that `measurable` keeps."""
    rows = [
        (one.image_id, one.category_id, one.box_xywh, one.mask, _area(one, kind), one.score, _raw(one), False)
        for one in measurable(predictions, data_set, kind)
    ]
    return _columns(rows, data_set, kind, relative)


def measurable(predictions: Iterable[Prediction], data_set: DataSet, kind: Kind) -> list[Prediction]:
    """Predictions of the data set's classes and, for masks, that have one."""
    known = (one for one in predictions if one.category_id in data_set.classes)
    return [one for one in known if kind == "bbox" or one.mask is not None]


def overlaps(predictions: ScoredShapes, chosen: Indices, truths: ScoredShapes, objects: Indices) -> Floats:
    """IoU of predictions with objects, (k, g); with a crowd, the share of the prediction that lies in it."""
    return coco_overlaps(predictions.shapes_at(chosen), truths.shapes_at(objects), truths.is_crowd[objects])


def _with_masks(data_set: DataSet) -> Iterable[DataSetObject]:
    sizes = {image.id: image.size for image in data_set.images}
    for one in data_set.objects:
        if one.mask is not None:
            yield one
        elif (size := sizes[one.image_id]) is not None:
            yield replace(one, mask=run_length_from_box(xyxy_from_xywh(one.bbox_xywh), size), is_crowd=True)


def _raw(prediction: Prediction) -> float:
    return prediction.score if prediction.detector_score is None else prediction.detector_score


def _area(prediction: Prediction, kind: Kind) -> float:
    mask, (_, _, width, height) = prediction.mask, prediction.box_xywh
    return float(area_px(mask)) if kind == "segm" and mask is not None else width * height


def _columns(rows: list[_Row], data_set: DataSet, kind: Kind, relative: bool) -> ScoredShapes:
    known = tuple(sorted(data_set.classes))
    names = tuple(data_set.classes[category_id] for category_id in known)
    index = Index(tuple(sorted({image.id for image in data_set.images})), known, names)
    image_ids, category_ids, boxes, masks, areas, scores, raw, crowds = zip(*rows, strict=True) if rows else ((),) * 8
    numbers_of_classes = {category_id: number for number, category_id in enumerate(known)}
    if unlisted := set(image_ids) - set(index.image_ids):
        raise InputError(f"image {min(unlisted)} isn't listed in {data_set.path}; add it there")
    image = np.searchsorted(index.image_ids, image_ids)
    area, score = np.array(areas, dtype=np.float64), np.array(scores, dtype=np.float64)
    boxes_xywh = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    if not (np.isfinite(boxes_xywh).all() and np.isfinite(score).all()):
        raise InputError(f"a box or score measured on {data_set.path} is not a finite number; export it again")
    if relative:
        sides = [(one.size.width, one.size.height) if one.size else (np.nan, np.nan) for one in data_set.images]
        area /= np.prod(np.array(sides, dtype=np.float64).reshape(-1, 2), axis=1)[image]
    return ScoredShapes(
        index=index,
        boxes_xywh=boxes_xywh if kind == "bbox" else None,
        masks=() if kind == "bbox" else masks,
        image=image,
        category=np.array([numbers_of_classes[one] for one in category_ids], dtype=np.int64),
        area=area,
        score=score,
        detector_score=np.array(raw, dtype=np.float64),
        is_crowd=np.array(crowds, dtype=np.bool_),
    )
