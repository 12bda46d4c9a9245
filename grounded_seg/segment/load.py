"""The network of a segmenter: what each has to do, and the one that a file or folder holds."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from grounded_seg.device.kernels import Kernels
from grounded_seg.errors import WeightsError
from grounded_seg.records import Image, ImageSize
from grounded_seg.segment.resize import Axis
from grounded_seg.segment.sam.build import CONFIG_FILE, MODEL_TYPE, load_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.text.printable import safe_text
from grounded_seg.weights.config_records import config_in


class BoxNetwork(Protocol):
    """A network that encodes an image once, then turns any number of boxes on it into mask logits."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def bytes_per_box(self) -> int:
        """Memory that one more box takes in `decode` at its peak."""

    def frame(self, size: ImageSize) -> ImageSize:
        """The size that an image is resized to before it is encoded; boxes are given in these pixels."""

    def axes(self, size: ImageSize) -> tuple[Axis, Axis]:
        """The upsampling of x and y from the logits to the image."""

    def encode(self, images: Sequence[Image]) -> list[Any]:
        """The embeddings of at least one image, for `decode`."""

    def decode(self, embedding: Any, boxes_xyxy: torch.Tensor, *, multimask: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (n, masks, side, side) and predicted IoUs (n, masks), float32; a mask is where logits are above 0.

        Boxes are (n, 4) float32 in pixels of the frame, n at least 1; `multimask` predicts three masks each.
        """


def load_network(
    source: Path, device: torch.device, dtype: torch.dtype, *, kernels: Kernels | None = None, compiled: bool = False
) -> BoxNetwork:
    """A network on its device: by segment-anything's modules, or by transformers for folders in its layout.

    `source` is a weight file, which is segment-anything's, or a folder, whose `config.json` names its family. `dtype`
    is that of the image encoder, which `compiled` sends through torch.compile; without `kernels` they are chosen here.
    """
    model_type = _model_type(source / CONFIG_FILE) if os.path.isdir(source) else MODEL_TYPE
    if model_type == MODEL_TYPE:
        return SamNetwork(load_sam(source), device, dtype, kernels=kernels, compiled=compiled)
    # transformers takes seconds to import: only for its own layouts.
    from grounded_seg.segment.transformers_sam import FAMILIES, load_transformers_network

    if model_type not in FAMILIES:
        known = ", ".join([MODEL_TYPE, *FAMILIES])
        raise WeightsError(f"{source} holds a model of type {model_type!r}, not a segmenter; give one of {known}.")
    return load_transformers_network(source, model_type, device, dtype, kernels=kernels, compiled=compiled)


def _model_type(path: Path) -> str:
    """The kind of model in a folder; segment-anything's where it isn't named, whose loading tells what is wrong."""
    try:
        return safe_text(str(config_in(path).get("model_type")), most=60)
    except (OSError, ValueError):
        return MODEL_TYPE
