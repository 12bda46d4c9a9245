"""What a model of the Segment Anything family has to offer to `SamSegmenter`."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch

from grounded_seg.records import Image, ImageSize
from grounded_seg.segment.upsampling import Axis


class BoxNetwork(Protocol):
    """A network that encodes an image once, and then turns any number of boxes on it into mask logits."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def bytes_per_box(self) -> int:
        """Memory that one more box takes in `decode` at its peak."""

    def frame(self, size: ImageSize) -> ImageSize:
        """Give the size to which an image is resized before it is encoded; boxes are given in these pixels."""

    def axes(self, size: ImageSize) -> tuple[Axis, Axis]:
        """Plan the way of x and y from the logits back to the image."""

    def encode(self, images: Sequence[Image]) -> list[Any]:
        """Embed at least one image, each in a form that only `decode` knows."""

    def decode(self, embedding: Any, boxes_xyxy: torch.Tensor, *, multimask: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Turn boxes on one image into logits.

        Args:
            embedding: What `encode` gave for the image.
            boxes_xyxy: (n, 4) float32 in pixels of the frame, n at least 1.
            multimask: Three masks a box instead of one.

        Returns:
            Logits (n, masks, side, side) and predicted IoUs (n, masks), float32; a mask is where logits are above 0.
        """
