"""Arithmetic on boxes: area, clipping, overlap, and suppression of duplicates.

Boxes are rows of x0 y0 x1 y1 as `grounded_seg` states. One whose right or bottom edge isn't beyond its left or top one
is empty: its area is 0 and it overlaps nothing. Any float dtype is taken, and float64 computed in, so that a threshold
decides alike whatever the model's dtype was.
"""

from collections.abc import Hashable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_seg.geometry.run_length import BoxXyxy, ImageSize

Boxes: TypeAlias = npt.NDArray[np.floating[Any]]
"""(n, 4), rows of x0 y0 x1 y1 in pixels; n may be 0."""


def array_from_boxes(boxes: Sequence[BoxXyxy]) -> npt.NDArray[np.float64]:
    """Boxes as an (n, 4) array; no boxes give (0, 4), which plain `np.array` would not."""
    return np.array(boxes, dtype=np.float64).reshape(-1, 4)


def areas_px(boxes_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Area of each box in square pixels, (n,); an empty or inside-out box has 0.

    >>> areas_px(np.array([[1.0, 2.0, 4.0, 4.5]])).tolist()
    [7.5]
    """
    sides = np.maximum(boxes_xyxy[:, 2:].astype(np.float64) - boxes_xyxy[:, :2], 0.0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def clip(boxes_xyxy: Boxes, size: ImageSize) -> npt.NDArray[np.float64]:
    """Boxes with every edge outside the image moved onto its border, (n, 4).

    A box wholly outside becomes empty; it keeps its row, so that scores and labels stay in step.

    >>> clip(np.array([[-3.0, 5.0, 700.0, 490.0]]), ImageSize(640, 480)).tolist()
    [[0.0, 5.0, 640.0, 480.0]]
    """
    limits = np.array([size.width, size.height, size.width, size.height], dtype=np.float64)
    return np.asarray(np.clip(boxes_xyxy.astype(np.float64), 0.0, limits))


def is_usable(box_xyxy: BoxXyxy, size: ImageSize) -> bool:
    """Whether a box is finite, has an area, and shows a part of the image."""
    x0, y0, x1, y1 = box_xyxy
    has_area = x0 < x1 and y0 < y1 and bool(np.isfinite(box_xyxy).all())
    return has_area and x1 > 0 and y1 > 0 and x0 < size.width and y0 < size.height


def rounded_box_holds(box_xyxy: BoxXyxy, shape_xyxy: BoxXyxy) -> bool:
    """Whether a box, its edges rounded to whole pixels, still holds a shape, likewise rounded.

    Some readers cut a mask at such a box; to them a negative index counts from the end, so such a box holds nothing.

    >>> rounded_box_holds((2.6, 0.0, 9.0, 5.0), (3.0, 0.0, 9.0, 5.0)), rounded_box_holds((3.6, 0, 9, 5), (3, 0, 9, 5))
    (True, False)
    """
    left, top, right, bottom = map(round, box_xyxy)
    x0, y0, x1, y1 = map(round, shape_xyxy)
    return 0 <= left <= x0 and 0 <= top <= y0 and x1 <= right and y1 <= bottom


def pairwise_iou(first_xyxy: Boxes, second_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over union of every first box with every second one, (n, m) in [0, 1]; two empty boxes have 0.

    >>> pairwise_iou(np.array([[0.0, 0.0, 4.0, 2.0]]), np.array([[2.0, 0.0, 6.0, 2.0]])).round(4).tolist()
    [[0.3333]]
    """
    intersections = _intersections_px(first_xyxy, second_xyxy)
    unions = areas_px(first_xyxy)[:, None] + areas_px(second_xyxy)[None, :] - intersections
    return _ratios(intersections, unions)


def pairwise_containment(first_xyxy: Boxes, second_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Intersection over the smaller box's area, (n, m) in [0, 1]: 1 where one lies inside the other, 0 for empty ones.

    >>> pairwise_containment(np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[8.0, 0.0, 12.0, 1.0]])).tolist()
    [[0.5]]
    """
    smaller = np.minimum(areas_px(first_xyxy)[:, None], areas_px(second_xyxy)[None, :])
    return _ratios(_intersections_px(first_xyxy, second_xyxy), smaller)


def kept_after_suppression(
    boxes_xyxy: Boxes,
    scores: npt.NDArray[np.floating[Any]],
    iou_threshold: float,
    containment_threshold: float | None = None,
) -> npt.NDArray[np.intp]:
    """Indices of the boxes left by greedy non-maximum suppression, (k,), from high to low score.

    Equal scores go by input order. A box is a duplicate if its IoU, or its containment where that has a threshold, with
    a kept box is *above* the threshold; 1 keeps all.
    """
    if len(boxes_xyxy) != len(scores):
        raise ValueError(f"{len(boxes_xyxy)} boxes have {len(scores)} scores")
    waiting = np.argsort(-scores, kind="stable")
    kept: list[np.intp] = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        # One row at a time: the whole n x n table would not fit for the proposals of a tiled image.
        best_xyxy, rest_xyxy = boxes_xyxy[best : best + 1], boxes_xyxy[waiting]
        duplicate = pairwise_iou(best_xyxy, rest_xyxy)[0] > iou_threshold
        if containment_threshold is not None:
            duplicate |= pairwise_containment(best_xyxy, rest_xyxy)[0] > containment_threshold
        waiting = waiting[~duplicate]
    return np.array(kept, dtype=np.intp)


def kept_by_group(
    boxes_xyxy: Boxes,
    scores: npt.NDArray[np.floating[Any]],
    groups: Sequence[Hashable],
    iou_threshold: float,
    containment_threshold: float | None = None,
) -> npt.NDArray[np.intp]:
    """Indices left by `kept_after_suppression` within each group, (k,); the groups in the order of first appearance.

    Groups are the n boxes' classes; or one value for all (class-agnostic), or `range(n)` (none is dropped).

    >>> boxes = np.array([[0.0, 0.0, 9.0, 9.0]] * 3)
    >>> kept_by_group(boxes, np.array([0.5, 0.9, 0.7]), ["car", "dog", "car"], 0.7).tolist()
    [2, 1]
    """
    kept = [
        members[kept_after_suppression(boxes_xyxy[members], scores[members], iou_threshold, containment_threshold)]
        for members in indices_by_group(groups)
    ]
    return np.concatenate(kept) if kept else np.zeros(0, dtype=np.intp)


def indices_by_group(groups: Sequence[Hashable]) -> list[npt.NDArray[np.intp]]:
    """Indices of each group's members, rising; the groups in the order in which they first appear.

    >>> [members.tolist() for members in indices_by_group(["car", "dog", "car"])]
    [[0, 2], [1]]
    """
    members: dict[Hashable, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [np.array(indices, dtype=np.intp) for indices in members.values()]


def _intersections_px(first_xyxy: Boxes, second_xyxy: Boxes) -> npt.NDArray[np.float64]:
    """Shared area of every pair in square pixels, (n, m)."""
    first, second = first_xyxy.astype(np.float64)[:, None], second_xyxy.astype(np.float64)[None, :]
    starts = np.maximum(first[..., :2], second[..., :2])
    sides = np.maximum(np.minimum(first[..., 2:], second[..., 2:]) - starts, 0.0)
    # An inside-out box can still "intersect" on paper; it is empty, so it shares nothing.
    solid = (areas_px(first_xyxy) > 0)[:, None] & (areas_px(second_xyxy) > 0)[None, :]
    return np.asarray(sides[..., 0] * sides[..., 1] * solid)


def _ratios(parts: npt.NDArray[np.float64], wholes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Divide, with 0 where the whole is 0; rounding may not lift a ratio above 1."""
    ratios = np.divide(parts, wholes, out=np.zeros_like(parts), where=wholes > 0)
    return np.minimum(ratios, 1.0)
