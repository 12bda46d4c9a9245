"""Stage 2, the segmenter: Segment Anything turns each box into a mask."""

from pathlib import Path
from typing import TYPE_CHECKING

from grounded_seg.settings import SegmentSettings

if TYPE_CHECKING:
    import torch

    from grounded_seg.segment.segmenter import SamSegmenter

__all__ = ["load_segmenter"]


def load_segmenter(
    source: Path,
    device: "torch.device",
    dtype: "torch.dtype",
    settings: SegmentSettings = SegmentSettings(),  # noqa: B008  (frozen, so one for all calls is safe)
) -> "SamSegmenter":
    """Load a segmenter to where it runs.

    Args:
        source: An official `.pth`, the same tensors as `.safetensors`, a folder that `sam.save_sam` wrote, or a folder
            of SAM, SAM-HQ or SAM 2 in transformers' layout.
        device: See `runtime.resolve_device`.
        dtype: Number format to compute in, see `runtime.resolve_dtype`.
        settings: Which masks are taken, what is done to them, and whether the image encoder is compiled.

    Raises:
        WeightsError: If the weights are missing, damaged, or of another model.
        DeviceError: If the device has no room for them.
    """
    # These import torch, which takes seconds: not before a model is really wanted.
    from grounded_seg.device.memory import out_of_memory_as_device_error
    from grounded_seg.segment.load import load_network
    from grounded_seg.segment.segmenter import SamSegmenter

    with out_of_memory_as_device_error("loading the segmenter", "Use a smaller one, or --device cpu."):
        network = load_network(source, device, dtype, compiled=settings.compile)
    return SamSegmenter(network, settings)
