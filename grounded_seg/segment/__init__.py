"""Stage 2, the segmenter: Segment Anything turns each box into a mask."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from grounded_seg.segment.segmenter import SamSegmenter

__all__ = ["load_segmenter"]


def load_segmenter(source: Path, device: "torch.device", dtype: "torch.dtype") -> "SamSegmenter":
    """Load a segmenter to where it runs.

    Args:
        source: An official `.pth`, the same tensors as `.safetensors`, or a folder; see `sam.load_sam`.
        device: See `runtime.resolve_device`.
        dtype: Number format to compute in, see `runtime.resolve_dtype`.

    Raises:
        WeightsError: If the weights are missing, damaged, or of another model.
        DeviceError: If the device has no room for them.
    """
    # These import torch, which takes seconds: not before a model is really wanted.
    from grounded_seg.segment.sam import load_sam
    from grounded_seg.segment.segmenter import SamSegmenter

    return SamSegmenter(load_sam(source), device=device, dtype=dtype)
