"""segment-anything's own models (SAM ViT-B, L, H and small ones) as a `BoxNetwork`."""

from collections.abc import Sequence

import torch

from grounded_seg.device.choose import compiling
from grounded_seg.device.kernels import Kernels, kernels_of, use_linear_kernel
from grounded_seg.records import Image, ImageSize
from grounded_seg.segment.resize import Axis, axes_through_square, resized_on, resized_size
from grounded_seg.segment.sam.attention import lay_out_patches, use_fast_attention
from grounded_seg.segment.sam.decoder import BoxDecoder
from grounded_seg.segment.sam.modules import Sam


class SamNetwork:
    """A `Sam` with fast attention and a decoder without copies; the given one is changed in place.

    Encoder and decoder compute in `dtype`. The prompts stay in float32: they cost little, and a coordinate near 1000 is
    off by up to 2 pixels in bfloat16.
    """

    def __init__(
        self,
        sam: Sam,
        device: torch.device,
        dtype: torch.dtype,
        *,
        kernels: Kernels | None = None,
        compiled: bool = False,
    ) -> None:
        kernels = kernels_of(kernels, device, dtype, compiled=compiled)
        sam.to(device=device, dtype=torch.float32).eval()
        sam.image_encoder.to(dtype=dtype)
        use_fast_attention(sam.image_encoder, kernels.attention)
        use_linear_kernel(sam.image_encoder, kernels.linear)
        lay_out_patches(sam.image_encoder.patch_embed)
        self._compiling = compiling(sam.image_encoder, compiled=compiled)
        self._sam = sam
        self._decoder = BoxDecoder(sam, dtype)
        self._dtype = dtype

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        device: torch.device = self._sam.device
        return device

    @property
    def bytes_per_box(self) -> int:
        """As of `BoxNetwork`."""
        return self._decoder.bytes_per_box

    def frame(self, size: ImageSize) -> ImageSize:
        """The size whose longer side is the square's."""
        return resized_size(size, self._sam.image_encoder.img_size)

    def axes(self, size: ImageSize) -> tuple[Axis, Axis]:
        """As of `BoxNetwork`."""
        n_logits = 4 * self._sam.prompt_encoder.image_embedding_size[0]
        return axes_through_square(n_logits, self._sam.image_encoder.img_size, size)

    def encode(self, images: Sequence[Image]) -> list[torch.Tensor]:
        """The embeddings of images, each (channels, grid, grid)."""
        # Sam.preprocess pads to the square, so images of any shape stack.
        frames = [resized_on(self.device, image.pixels, self.frame(image.size)) for image in images]
        return self.encode_squares(torch.stack([self._sam.preprocess(one.permute(2, 0, 1)) for one in frames]))

    def encode_squares(self, squares: torch.Tensor) -> list[torch.Tensor]:
        """The embeddings of normalised and padded images (n, 3, side, side)."""
        with self._compiling():
            return list(self._sam.image_encoder(squares.to(self._dtype)))

    def decode(
        self, embedding: torch.Tensor, boxes_xyxy: torch.Tensor, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As of `BoxNetwork`."""
        # The first is for an unambiguous prompt, the others are the alternatives for an ambiguous one.
        return self._decoder.decode(embedding, boxes_xyxy, (1, 2, 3) if multimask else (0,))
