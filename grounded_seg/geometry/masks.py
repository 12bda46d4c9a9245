"""Masks as run lengths: encode, decode, measure, compare. The home of pycocotools' mask functions and of OpenCV.

A mask is a boolean (height, width) array only for a moment; what is kept and written is the record `RunLength`. Pixel
(row, column) covers the half-open square from (column, row) to (column + 1, row + 1), so the tight box of a mask has
whole-numbered edges and shares the box convention of `grounded_seg`.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from grounded_seg.errors import InputError
from grounded_seg.geometry.boxes import indices_by_group
from grounded_seg.geometry.outlines import opencv as opencv
from grounded_seg.geometry.run_length import BoxXyxy, ImageSize, RunLength, runs_from_text

MOST_PX = 2**32 - 1
"""Of an image: pycocotools counts pixels in 32 bits."""
_FARTHEST_SIDES = 10
"""How far from the origin a polygon may reach, in image sides: pycocotools walks along every edge, and a corner at 1e30
would take all memory."""


class CompressedMask(TypedDict):
    """COCO's JSON form of a run-length mask."""

    size: list[int]
    """height, width in pixels."""
    counts: str


def run_length_from_mask(mask: npt.NDArray[np.bool_]) -> RunLength:
    """Run lengths of a (height, width) mask; it may be all False."""
    height, width = mask.shape
    # Runs go down the columns, so the encoder wants column-major memory.
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return RunLength(size=ImageSize(width=width, height=height), counts=encoded["counts"])


def run_length_from_region(region: npt.NDArray[np.bool_], left: int, top: int, size: ImageSize) -> RunLength:
    """Run lengths of a mask of which only a part holds anything; the time depends on that part alone.

    Args:
        region: (height, width) of that part; fastest where it is column-major in memory. May be all False.
        left: Column of the image in which it begins.
        top: Row likewise.
        size: The image's, which holds the whole region.
    """
    height, width = region.shape
    if min(left, top) < 0 or left + width > size.width or top + height > size.height:
        raise ValueError(f"{width} x {height} px at ({left}, {top}) leave the image of {size.width} x {size.height} px")
    columns = np.ascontiguousarray(region.T)
    # One more than pixels: a run may end with its column.
    changes = np.zeros((width, height + 1), dtype=np.bool_)
    changes[:, :-1] = columns
    changes[:, 1:] ^= columns
    column, row = np.divmod(np.flatnonzero(changes), height + 1)
    edges = (left + column) * size.height + top + row
    # Where a run reaches the bottom and the next column begins with one, they are one run.
    is_seam = np.zeros(edges.size + 1, dtype=np.bool_)
    is_seam[1:-1] = edges[1:] == edges[:-1]
    return run_length_from_edges(edges[~(is_seam[1:] | is_seam[:-1])], size)


def run_length_from_edges(edges: npt.NDArray[np.int64], size: ImageSize) -> RunLength:
    """Run lengths of a mask by the pixels at which it begins and ends in turn, counted down the columns, ascending."""
    n_pixels = size.width * size.height
    ends = [] if edges.size and edges[-1] == n_pixels else [n_pixels]
    return _run_length_from_runs(np.diff(np.concatenate([[0], edges, ends]).astype(np.int64)).tolist(), size)


def mask_from_run_length(run_length: RunLength) -> npt.NDArray[np.bool_]:
    """Mask as a (height, width) array, column-major in memory."""
    return run_length.to_array()


def area_px(run_length: RunLength) -> int:
    """Number of the mask's pixels, without decoding it; 0 for an empty one."""
    return int(coco_mask.area(_coco_object(run_length)))


def tight_box_xyxy(run_length: RunLength) -> BoxXyxy:
    """Smallest box that holds the mask, in whole pixels; (0, 0, 0, 0) for an empty mask."""
    x, y, width, height = coco_mask.toBbox(_coco_object(run_length)).tolist()
    return (x, y, x + width, y + height)


def run_length_from_box(box_xyxy: BoxXyxy, size: ImageSize) -> RunLength:
    """Mask of the part of a box that lies within its image, as pycocotools rasterises it."""
    x0, x1 = np.clip(box_xyxy[0::2], 0, size.width)
    y0, y1 = np.clip(box_xyxy[1::2], 0, size.height)
    within = np.array([[x0, y0, x1 - x0, y1 - y0]], dtype=np.float64)
    [filled] = coco_mask.frPyObjects(within, size.height, size.width)
    return RunLength(size=size, counts=filled["counts"])


def coco_overlaps(
    predicted: npt.NDArray[np.float64] | Sequence[RunLength],
    true: npt.NDArray[np.float64] | Sequence[RunLength],
    is_crowd: npt.NDArray[np.bool_],
) -> npt.NDArray[np.float64]:
    """IoU of each predicted box or mask with each true one, (n, m), to the last bit as COCO's own evaluation has it.

    Boxes are COCO's, rows of x, y, width, height in pixels. With a true one that `is_crowd`, it is the share of the
    predicted one that lies in it. Masks of two sizes give -1.
    """
    if not len(predicted) or not len(true):
        return np.zeros((len(predicted), len(true)))
    shapes = [one if isinstance(one, np.ndarray) else [_coco_object(mask) for mask in one] for one in (predicted, true)]
    return np.asarray(coco_mask.iou(*shapes, is_crowd.astype(int).tolist()))


def mask_iou(first: Sequence[RunLength], second: Sequence[RunLength]) -> npt.NDArray[np.float64]:
    """IoU of every first mask with every second one of the same size, (n, m) in [0, 1]; two empty masks have 0."""
    return _overlap(first, second, is_crowd=False)


def mask_containment(first: Sequence[RunLength], second: Sequence[RunLength]) -> npt.NDArray[np.float64]:
    """Intersection over the smaller mask's area, likewise: 1 where one lies in the other, 0 for empty ones."""
    # Over the smaller area the share is the larger one.
    return np.maximum(_overlap(first, second, is_crowd=True), _overlap(second, first, is_crowd=True).T)


def placed_run_length(run_length: RunLength, left: int, top: int, size: ImageSize) -> RunLength:
    """Mask of a part of an image, placed into the whole image of `size` at column `left` and row `top`."""
    return run_length_from_region(mask_from_run_length(run_length), left, top, size)


def coco_from_run_length(run_length: RunLength) -> CompressedMask:
    """COCO's JSON form of a mask."""
    return {"size": [run_length.size.height, run_length.size.width], "counts": run_length.counts.decode("ascii")}


def run_length_from_coco(segmentation: Mapping[str, Any]) -> RunLength:
    """Mask read from COCO's JSON form, with compressed (text) or plain (list of whole numbers) counts.

    Raises:
        InputError: If it is neither, or if the runs don't add up to the mask's size.
    """
    try:
        height, width = (int(side) for side in segmentation["size"])
        counts = segmentation["counts"]
        text = counts.encode("ascii") if isinstance(counts, str) else counts
        runs = runs_from_text(text) if isinstance(text, bytes) else np.array(text, dtype=np.int64).reshape(-1)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"a segmentation is no run-length mask ({type(error).__name__}: {error}); "
            'it has to be {"size": [height, width], "counts": ...}, export the file again'
        ) from error
    # pycocotools doesn't check this, and would count and compare the damaged mask without a word.
    if height * width > MOST_PX or (runs < 0).any() or runs.sum() != height * width:
        raise InputError(
            f"a run-length mask of {width} x {height} px holds {runs.sum()} px in its runs; "
            "it is damaged or its size is that of another image, export the file again"
        )
    run_length = _run_length_from_runs(runs.tolist(), ImageSize(width=width, height=height))
    # Runs of no length are legal but mislead the box function; our own encoder never writes them.
    return run_length_from_mask(mask_from_run_length(run_length)) if (runs[1:] == 0).any() else run_length


def run_length_from_polygons(polygons: Sequence[Sequence[float]], size: ImageSize) -> RunLength:
    """Mask of all that lies in any of COCO's polygons, rasterised as pycocotools does.

    Each is x, y, x, y, ... in pixels, of three corners at least. No polygons give an empty mask.

    Raises:
        InputError: If a polygon is no such list of numbers, or reaches more than ten image sides away.
    """
    # Four numbers would be taken for a box.
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise InputError(
            "a polygon is no list of at least three x, y pairs; validate the file and repair it with --fix"
        )
    if not polygons:
        return run_length_from_mask(np.zeros((size.height, size.width), dtype=np.bool_))
    try:
        corners = [list(map(float, polygon)) for polygon in polygons]
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"a polygon is no list of numbers ({error}); validate the file") from error
    farthest = _FARTHEST_SIDES * max(size.width, size.height)
    # Not a number is no smaller than anything.
    if not all(abs(value) <= farthest for polygon in corners for value in polygon):
        raise InputError(
            f"a polygon reaches far beyond its image of {size.width} x {size.height} px; "
            "validate the file and repair it with --fix"
        )
    encoded = coco_mask.frPyObjects(corners, size.height, size.width)
    return RunLength(size=size, counts=coco_mask.merge(encoded)["counts"])


def _run_length_from_runs(runs: list[int], size: ImageSize) -> RunLength:
    shape = [size.height, size.width]
    encoded = coco_mask.frPyObjects({"size": shape, "counts": runs}, *shape)
    return RunLength(size=size, counts=encoded["counts"])


def _coco_object(run_length: RunLength) -> dict[str, Any]:
    """Form that pycocotools' functions take."""
    return {"size": [run_length.size.height, run_length.size.width], "counts": run_length.counts}


def _overlap(first: Sequence[RunLength], second: Sequence[RunLength], *, is_crowd: bool) -> npt.NDArray[np.float64]:
    """Intersection over union of every pair, or over the first mask's area where the second is a crowd."""
    sizes = {run_length.size for run_length in (*first, *second)}
    if len(sizes) > 1:
        raise ValueError(f"masks of different sizes can't be compared: {sorted((s.width, s.height) for s in sizes)}")
    return coco_overlaps(first, second, np.full(len(second), is_crowd))


def masks_kept_by_group(
    masks: Sequence[RunLength],
    scores: Sequence[float],
    groups: Sequence[Hashable],
    iou_threshold: float,
    containment_threshold: float,
) -> list[int]:
    """Indices of the masks, of one size and none empty, that are left as of boxes by `boxes.kept_by_group`."""
    kept: list[int] = []
    for members in indices_by_group(groups):
        best_first = sorted(members.tolist(), key=lambda index: -scores[index])
        of_group = [masks[index] for index in best_first]
        repeats = mask_iou(of_group, of_group) > iou_threshold
        repeats |= mask_containment(of_group, of_group) > containment_threshold
        chosen: list[int] = []
        for rank in range(len(best_first)):
            if not repeats[rank, chosen].any():
                chosen.append(rank)
        kept += [best_first[rank] for rank in chosen]
    return kept
