"""How what was found on an image and on its tiles comes together: what was found twice is kept once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.geometry.boxes import (
    areas_px,
    array_from_boxes,
    indices_by_group,
    pairwise_containment,
    pairwise_iou,
)
from grounded_seg.geometry.masks import area_px, mask_containment, mask_iou, placed_run_length
from grounded_seg.pipeline.tiling import Tile
from grounded_seg.records import ImageResult, ImageSize, Instance
from grounded_seg.settings import DetectSettings, SuppressionScope

Flags: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

IOU_THRESHOLD = 0.5
"""Two finds of one class that overlap by more than this IoU are one object."""
CONTAINMENT_THRESHOLD = 0.7
"""So are two of which the smaller lies within the other by more than this share, where a tile's edge cuts one of them,
as it shows a part, or where they are from tiles of two sizes. Two that tiles of one size show whole may be one thing on
another."""
_HEAP = 2
"""Finds of smaller tiles within one of a larger tile, or of the whole image, from which on that one is none: it took
several things for one, and would swallow them where its score is higher."""
_EDGE_PX, _EDGE_SHARE = 2.0, 0.01
"""A box that comes this near to a tile's inner edge, in pixels or in shares of the side, is taken to go on beyond it: a
detector's boxes lie on a grid of a thousandth of the side, and are off by several of its steps."""


def merged(
    whole: ImageResult,
    parts: Sequence[tuple[Tile, ImageResult]],
    prompts: PromptSet,
    detect: DetectSettings,
) -> ImageResult:
    """Merge the instances of a whole image and of its tiles.

    Args:
        whole: The instances of the whole image.
        parts: The instances of each tile, in pixels of the tile.
        prompts: What was asked.
        detect: The scope of duplicate removal, and how many instances of a prompt are kept: on the image as a whole,
            just as on one that isn't cut. With scope none, instances of one prompt are still merged.

    Returns:
        Instances in the order of the prompts, from high to low score within a prompt.
    """
    classes = prompts.class_by_prompt
    finds = [_Find(one, is_cut=False, side=max(whole.size.width, whole.size.height)) for one in whole.instances]
    for tile, part in parts:
        finds += [
            _Find(_on_image(one, tile, whole.size), _is_cut(one, tile, whole.size), tile.side) for one in part.instances
        ]
    # A find that its tile cut off gives way to any that shows the object whole, whatever their scores.
    finds.sort(key=lambda find: (find.is_cut, -find.instance.detection.score))
    distinct = _without_duplicates(finds, classes, detect.nms)
    by_prompt = [[one for one in distinct if one.detection.prompt == prompt] for prompt in classes]
    everything = [whole, *(part for _, part in parts)]
    return replace(
        whole,
        instances=tuple(
            one
            for found in by_prompt
            for one in sorted(found, key=lambda one: -one.detection.score)[: detect.max_detections]
        ),
        n_empty_masks=sum(one.n_empty_masks for one in everything),
        n_unusable_boxes=sum(one.n_unusable_boxes for one in everything),
    )


@dataclass(frozen=True, eq=False)
class _Find:
    """What was found, in pixels of the image."""

    instance: Instance
    is_cut: bool
    """Whether its tile's edge cut it."""
    side: int
    """Of the tile that showed it, or of the whole image; in pixels."""


def _without_duplicates(
    best_first: Sequence[_Find], classes: Mapping[str, str], scope: SuppressionScope
) -> list[Instance]:
    """Keep the first of those that are one object, within the scope."""
    prompts = [find.instance.detection.prompt for find in best_first]
    groups = prompts if scope is SuppressionScope.NONE else [classes[prompt] for prompt in prompts]
    distinct: list[int] = []
    for members in indices_by_group(groups):
        distinct += members[
            _distinct([best_first[index] for index in members.tolist()], CONTAINMENT_THRESHOLD)
        ].tolist()
    kept = [best_first[index] for index in sorted(distinct)]
    if scope is SuppressionScope.AGNOSTIC:
        # What lies within a thing of another class is no part of it that a tile shows: a driver stays beside the car.
        kept = [kept[index] for index in _distinct(kept, 1.0)]
    return [find.instance for find in kept]


def _distinct(best_first: Sequence[_Find], containment_threshold: float) -> list[int]:
    """Ascending indices of the first of those that are one object; heaps of several are none."""
    overlaps = _Overlaps([find.instance for find in best_first])
    is_cut = np.array([find.is_cut for find in best_first], dtype=np.bool_)
    side = np.array([find.side for find in best_first])
    kept: list[int] = []
    for index in sorted(set(range(len(best_first))) - _heaps(overlaps, is_cut, side, containment_threshold)):
        iou, containment = overlaps.of(index, kept)
        may_be_part = is_cut[kept] | is_cut[index] | (side[kept] != side[index])
        if not ((may_be_part & (containment > containment_threshold)) | (iou > IOU_THRESHOLD)).any():
            kept.append(index)
    return kept


def _heaps(overlaps: "_Overlaps", is_cut: Flags, side: Indices, containment_threshold: float) -> set[int]:
    """Indices of finds in which several of smaller tiles lie, all of them shown whole."""
    heaps: set[int] = set()
    finer: list[int] = []
    for one_side in np.unique(side).tolist():
        own = np.flatnonzero((side == one_side) & ~is_cut).tolist()
        for index in own:
            is_within = overlaps.of(index, finer)[1] > containment_threshold
            if (is_within & (overlaps.area[finer] < overlaps.area[index])).sum() >= _HEAP:
                heaps.add(index)
        for index in own:
            # Each thing is counted once.
            if index not in heaps and not (overlaps.of(index, finer)[0] > IOU_THRESHOLD).any():
                finer.append(index)
    return heaps


class _Overlaps:
    """How much instances overlap each other: by their masks, or by boxes where there are none."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        masks = [one.mask for one in instances if one.mask is not None]
        self._boxes = array_from_boxes([one.box_xyxy for one in instances])
        self._of_masks = None
        self.area = areas_px(self._boxes)
        """(n,) in square pixels."""
        if len(masks) == len(instances):
            self._of_masks = mask_iou(masks, masks), mask_containment(masks, masks)
            self.area = np.array([area_px(mask) for mask in masks], dtype=np.float64)

    def of(self, index: int, others: Sequence[int]) -> tuple[Floats, Floats]:
        """IoU of one with n others, (n,), and the share of the smaller of two that lies in the other, (n,)."""
        if self._of_masks is not None:
            iou, containment = self._of_masks
            return iou[index, others], containment[index, others]
        # One row at a time: a tiled image may have very many boxes.
        pair = self._boxes[index : index + 1], self._boxes[others]
        return pairwise_iou(*pair)[0], pairwise_containment(*pair)[0]


def _on_image(instance: Instance, tile: Tile, size: ImageSize) -> Instance:
    """Move what was found on a tile into the image."""
    x0, y0, x1, y1 = instance.box_xyxy
    box_xyxy = (x0 + tile.left, y0 + tile.top, x1 + tile.left, y1 + tile.top)
    mask = None if instance.mask is None else placed_run_length(instance.mask, tile.left, tile.top, size)
    return replace(instance, detection=replace(instance.detection, box_xyxy=box_xyxy), mask=mask)


def _is_cut(instance: Instance, tile: Tile, size: ImageSize) -> bool:
    """Tell whether a find, in pixels of its tile, touches an edge of the tile that isn't one of the image."""
    x0, y0, x1, y1 = instance.box_xyxy
    width, height = tile.right - tile.left, tile.bottom - tile.top
    near_x, near_y = max(_EDGE_PX, _EDGE_SHARE * width), max(_EDGE_PX, _EDGE_SHARE * height)
    return (
        (tile.left > 0 and x0 < near_x)
        or (tile.top > 0 and y0 < near_y)
        or (tile.right < size.width and x1 > width - near_x)
        or (tile.bottom < size.height and y1 > height - near_y)
    )
