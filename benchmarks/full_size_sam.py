"""Segment Anything at its published sizes with random weights, for benchmarks, and blob-shaped logits for its masks.

Times don't depend on weights, but what comes after the decoder depends on its masks, and random weights give confetti.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.segment.load import BoxNetwork
from grounded_seg.segment.sam.build import SamConfig, build_sam
from grounded_seg.segment.sam.modules import Sam

TINY = SamConfig(
    image_size=256,
    encoder_embed_dim=64,
    encoder_depth=4,
    encoder_num_heads=4,
    encoder_global_attn_indexes=(1, 3),
    window_size=7,
    prompt_embed_dim=64,
    decoder_mlp_dim=128,
    decoder_num_heads=4,
    iou_head_hidden_dim=64,
)
"""To try a benchmark out."""
CONFIGS: dict[str, Callable[[], SamConfig]] = {
    "tiny": lambda: TINY,
    "vit_b": SamConfig.vit_b,
    "vit_l": SamConfig.vit_l,
    "vit_h": SamConfig.vit_h,
}
TFLOP = {"tiny": 0.001, "vit_b": 0.97, "vit_l": 2.99, "vit_h": 5.96}
"""Arithmetic of the image encoder for one image."""


def full_size_sam(name: str) -> Sam:
    """Build the same random weights in every process."""
    torch.manual_seed(0)
    sam = build_sam(CONFIGS[name]())
    with torch.no_grad():
        for key, parameter in sam.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                parameter.normal_(std=0.05)
    return sam


def boxes_on(size: ImageSize, n_boxes: int) -> list[Detection]:
    """Give boxes of many sizes."""
    rng = np.random.default_rng(1)
    starts = rng.uniform(0, 0.7, (n_boxes, 2))
    edges = np.concatenate([starts, starts + rng.uniform(0.05, 0.3, (n_boxes, 2))], axis=1)
    rows = (edges * np.tile([size.width, size.height], 2)).tolist()
    return [Detection("x", "x", (x0, y0, x1, y1), 1.0) for x0, y0, x1, y1 in rows]


def scene(size: ImageSize, n_boxes: int) -> tuple[Image, list[Detection]]:
    """Make a picture and boxes on it; what is on it doesn't matter."""
    pixels = np.random.default_rng(1).integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    return Image(Path("random.png"), pixels), boxes_on(size, n_boxes)


def blobs(n: int, side: int) -> torch.Tensor:
    """Logits of round masks of different sizes, (n, side, side)."""
    rng = np.random.default_rng(2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    radii, centres = rng.uniform(0.02, 0.12, n) * side, rng.uniform(0.15, 0.5, (n, 2)) * side
    distances = [((rows - y) ** 2 + (columns - x) ** 2).sqrt() for y, x in centres]
    return torch.stack([(radius - one).float() for radius, one in zip(radii, distances, strict=True)])


class BlobShaped:
    """A network whose decoder does its work, and then gives blob-shaped logits of the same shape."""

    def __init__(self, network: BoxNetwork, n_boxes: int) -> None:
        """Take over a network that is asked about so many boxes on each image."""
        self._network, self._n_boxes = network, n_boxes
        self._blobs: torch.Tensor | None = None
        self._n_given = 0

    def __getattr__(self, name: str) -> Any:
        """Give everything else as it is."""
        return getattr(self._network, name)

    def decode(self, embedding: Any, boxes_xyxy: torch.Tensor, *, multimask: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode, and put the blobs in."""
        logits, ious = self._network.decode(embedding, boxes_xyxy, multimask=multimask)
        if self._blobs is None:
            self._blobs = blobs(self._n_boxes, logits.shape[-1]).to(logits)
        # Each box of an image its own, whatever the chunks.
        indices = torch.arange(self._n_given, self._n_given + len(logits), device=logits.device) % self._n_boxes
        self._n_given += len(logits)
        return self._blobs[indices, None].expand_as(logits), ious
