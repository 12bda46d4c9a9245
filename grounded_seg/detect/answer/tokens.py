"""Pixels to Florence-2's location tokens and back.

Florence-2 (arXiv 2311.06242, section 3.1) writes a coordinate as one of 1000 bins of the image's side: `<loc_0>` to
`<loc_999>`. A pixel coordinate falls into its bin with floor, a bin stands for the coordinate of its centre. Rounding
on one of the two ways would shift every box by half a bin.
"""

import numpy as np
import numpy.typing as npt

from grounded_seg.records import ImageSize

N_BINS = 1000


def bins_from_boxes(boxes_xyxy: npt.NDArray[np.floating], size: ImageSize) -> npt.NDArray[np.int64]:
    """The location bin of each coordinate, 0 to 999; the nearest one for what lies outside of the image.

    Args:
        boxes_xyxy: (n, 4) pixels of the upright image, all finite. No boxes in, no bins out.
        size: The upright image.

    >>> bins_from_boxes(np.array([[0, 20, 30, 480]]), ImageSize(640, 480)).tolist()
    [[0, 41, 46, 999]]
    """
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    if not np.isfinite(boxes).all():
        raise ValueError("a box has a coordinate that is not a finite number")
    bins = np.floor(boxes * N_BINS / _sides(size, 4))
    return np.clip(bins, 0, N_BINS - 1).astype(np.int64)


def boxes_from_bins(bins: npt.NDArray[np.integer], size: ImageSize) -> npt.NDArray[np.float64]:
    """Boxes in pixels, (n, 4), with each coordinate at the centre of its bin, so off by at most half a bin.

    Args:
        bins: (n, 4) rows of x0 y0 x1 y1, each 0 to 999 or a `ValueError`; the order of corners is kept. No boxes in,
            no boxes out.
        size: The upright image that was asked about.

    >>> boxes_from_bins(np.array([[0, 0, 999, 999]]), ImageSize(1000, 500)).tolist()
    [[0.5, 0.25, 999.5, 499.75]]
    """
    return _centres(bins, size, 4)


def points_from_bins(bins: npt.NDArray[np.integer], size: ImageSize) -> npt.NDArray[np.float64]:
    """Points in pixels, (n, 2), from rows of x y in bins, as `boxes_from_bins` does for boxes."""
    return _centres(bins, size, 2)


def text_from_bins(bins: npt.NDArray[np.integer]) -> str:
    """Bins as location tokens, row by row: how a region is put into a prompt.

    >>> text_from_bins(np.array([[52, 333, 932, 774]]))
    '<loc_52><loc_333><loc_932><loc_774>'
    """
    return "".join(f"<loc_{value}>" for value in np.asarray(bins).ravel().tolist())


def _centres(bins: npt.NDArray[np.integer], size: ImageSize, width: int) -> npt.NDArray[np.float64]:
    rows = np.asarray(bins).reshape(-1, width)
    # Written so that a NaN is refused as well.
    if not ((rows >= 0) & (rows < N_BINS)).all():
        raise ValueError(f"a location bin is outside 0 to {N_BINS - 1}")
    return (rows + 0.5) * _sides(size, width) / N_BINS


def _sides(size: ImageSize, width: int) -> npt.NDArray[np.float64]:
    """Width and height in turn, `width` numbers."""
    if size.width <= 0 or size.height <= 0:
        raise ValueError(f"an image of {size.width} x {size.height} pixels has no coordinates")
    return np.tile(np.array([size.width, size.height], dtype=np.float64), width // 2)
