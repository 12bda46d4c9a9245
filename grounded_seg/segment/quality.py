"""What is done to a single mask before it is kept: clean it, and see whether it stays in its box."""

import numpy as np
import numpy.typing as npt

from grounded_seg.geometry.opencv import opencv
from grounded_seg.records import BoxXyxy
from grounded_seg.segment.upsampling import Region


def cleaned(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep the largest connected part, the first of equals, and fill its holes; an empty mask stays empty.

    Parts hang together by edges and corners, so that a thin slanted object stays one. A hole is what can't be left by
    edges alone.

    Args:
        mask: (height, width).
    """
    cv2 = opencv()
    n_parts, parts, measures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if n_parts == 1:
        return mask
    largest = 1 + int(measures[1:, cv2.CC_STAT_AREA].argmax())
    # A frame of background joins all that isn't a hole; its corner is part of it.
    background = np.pad(parts != largest, 1, constant_values=True)
    _, gaps = cv2.connectedComponents(background.astype(np.uint8), connectivity=4)
    filled: npt.NDArray[np.bool_] = gaps[1:-1, 1:-1] != gaps[0, 0]
    return filled


def share_outside(region: Region, box_xyxy: BoxXyxy) -> float:
    """Compute which share of a mask's pixels, of which there is at least one, lies outside a box, in [0, 1].

    A pixel that the box cuts counts as inside.
    """
    x0, y0, x1, y1 = box_xyxy
    left, top = max(0, int(np.floor(x0)) - region.left), max(0, int(np.floor(y0)) - region.top)
    right, bottom = max(0, int(np.ceil(x1)) - region.left), max(0, int(np.ceil(y1)) - region.top)
    return 1 - np.count_nonzero(region.mask[top:bottom, left:right]) / np.count_nonzero(region.mask)
