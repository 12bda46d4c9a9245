"""Mask logits with shapes in them, and the masks that Segment Anything itself makes of them."""

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812

from grounded_seg.records import ImageSize
from grounded_seg.segment.resize import Region, resized_size

SIDE, SQUARE = 64, 256
SIZES = [ImageSize(320, 180), ImageSize(97, 150), ImageSize(64, 64), ImageSize(256, 256), ImageSize(301, 40)]


def random_logits(n: int) -> torch.Tensor:
    """Smooth ones, so that masks have shapes and most of the area is clearly in or out."""
    torch.manual_seed(5)
    return F.interpolate(torch.randn(n, 1, 9, 9) - 0.5, (SIDE, SIDE), mode="bicubic")[:, 0]


def official(logits: torch.Tensor, size: ImageSize) -> npt.NDArray[np.bool_]:
    """`Sam.postprocess_masks` and its threshold."""
    frame = resized_size(size, SQUARE)
    square = F.interpolate(logits[:, None], (SQUARE, SQUARE), mode="bilinear", align_corners=False)
    cut = square[..., : frame.height, : frame.width]
    full = F.interpolate(cut, (size.height, size.width), mode="bilinear", align_corners=False)
    return (full[:, 0] > 0).numpy()


def placed(region: Region | None, size: ImageSize) -> npt.NDArray[np.bool_]:
    mask = np.zeros((size.height, size.width), dtype=np.bool_)
    if region is not None:
        height, width = region.mask.shape
        mask[region.top : region.top + height, region.left : region.left + width] = region.mask
    return mask
