"""The quality of masks: cleaned, measured against their box, and freed of duplicates."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from grounded_seg.geometry.masks import masks_kept_by_group, opencv
from grounded_seg.records import BoxXyxy, Instance
from grounded_seg.segment.upsampling import Region


def cleaned(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected part of a mask (height, width), the first of equals, with its holes filled.

    Pixels are connected by edges and corners, so that a thin slanted object stays one; a hole is background that edges
    alone don't connect with the outside. An empty mask stays empty.
    """
    cv2 = opencv()
    n_parts, parts, measures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if n_parts == 1:
        return mask
    largest = 1 + int(measures[1:, cv2.CC_STAT_AREA].argmax())
    # A frame of background connects all that isn't a hole; its corner is part of it.
    background = np.pad(parts != largest, 1, constant_values=True)
    _, gaps = cv2.connectedComponents(background.astype(np.uint8), connectivity=4)
    filled: npt.NDArray[np.bool_] = gaps[1:-1, 1:-1] != gaps[0, 0]
    return filled


def share_outside(region: Region, box_xyxy: BoxXyxy) -> float:
    """The share of a non-empty mask's pixels outside a box, in [0, 1]; a pixel that the box cuts is inside."""
    x0, y0, x1, y1 = box_xyxy
    left, top = max(0, int(np.floor(x0)) - region.left), max(0, int(np.floor(y0)) - region.top)
    right, bottom = max(0, int(np.ceil(x1)) - region.left), max(0, int(np.ceil(y1)) - region.top)
    return 1 - np.count_nonzero(region.mask[top:bottom, left:right]) / np.count_nonzero(region.mask)


def without_duplicates(
    instances: Sequence[Instance], iou_threshold: float, containment_threshold: float
) -> tuple[Instance, ...]:
    """The instances of an image whose mask doesn't repeat a higher-scored one of the same prompt, in their order.

    Instances without a mask are dropped. For the thresholds see `masks_kept_by_group`.
    """
    masked = [(one, one.mask) for one in instances if one.mask is not None]
    kept = masks_kept_by_group(
        [mask for _, mask in masked],
        [one.detection.score for one, _ in masked],
        [one.detection.prompt for one, _ in masked],
        iou_threshold,
        containment_threshold,
    )
    return tuple(masked[index][0] for index in sorted(kept))
