"""SAM, SAM-HQ and SAM 2.1 of transformers as a `BoxNetwork`.

The image encoders of SAM and SAM-HQ attend as in `sam.attention`, SAM 2's has no relative positions.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Sam2ImageProcessor, Sam2Model, SamHQModel, SamImageProcessor, SamModel
from transformers.models.sam2.modeling_sam2 import Sam2MultiScaleAttention, do_pool

from grounded_seg.device.choose import compiling
from grounded_seg.device.kernels import AttentionKernel, Kernels, attend, kernels_of, use_linear_kernel
from grounded_seg.device.resample import TORCH_BILINEAR, resampled, uploaded
from grounded_seg.errors import WeightsError
from grounded_seg.records import Image, ImageSize
from grounded_seg.segment.resize import Axis, axes_straight, axes_through_square, resized_pixels, resized_size
from grounded_seg.segment.sam.attention import attend_with_positions, lay_out_patches
from grounded_seg.segment.sam2_fields import Sam2Fields
from grounded_seg.segment.sam_fields import SamFields, SamHqFields, processor_settings, sam_fields
from grounded_seg.weights.files import NATIVE_WEIGHT_FILES
from grounded_seg.weights.strict_loading import (
    check_n_parameters,
    first_line,
    load_strictly,
    quiet_transformers,
    read_tensors,
)

_BILINEAR = 2
"""Pillow's number for it, which the processors have."""
_VALUES_AT_A_TIME = 30
"""Values per patch and channel that a box takes in transformers' decoders, which copy the embedding for each box."""


@dataclass(frozen=True)
class Family:
    """One of transformers' models."""

    name: str
    model: type[Any]
    fields: type[SamFields | SamHqFields | Sam2Fields]
    """Of its configuration."""
    processor: type[Any]
    pads: bool
    """Images are resized to fit the square and padded, rather than resized to fill it."""


_SAM2 = Family("SAM 2", Sam2Model, Sam2Fields, Sam2ImageProcessor, pads=False)
FAMILIES = {
    "sam": Family("SAM", SamModel, SamFields, SamImageProcessor, pads=True),
    "sam_hq": Family("SAM-HQ", SamHQModel, SamHqFields, SamImageProcessor, pads=True),
    "sam2": _SAM2,
    # The published files hold the tracker as well, and say so.
    "sam2_video": _SAM2,
}
"""By `model_type` of `config.json`."""


class TransformersNetwork:
    """A model of transformers; its image encoder computes in `dtype` by autocast, the rest in float32.

    The encoder's products have their weights in `dtype`, as autocast would give them, which converts them at each call.
    """

    def __init__(
        self,
        family: Family,
        model: Any,
        processor: Any,
        device: torch.device,
        dtype: torch.dtype,
        *,
        kernels: Kernels | None = None,
        compiled: bool = False,
    ) -> None:
        kernels = kernels_of(kernels, device, dtype, compiled=compiled)
        self._family = family
        self._side = int(model.config.prompt_encoder_config.image_size)
        self._grid_side = self._side // int(model.config.prompt_encoder_config.patch_size)
        self._model = model.to(device=device, dtype=torch.float32).eval()
        self._processor = processor
        self._dtype = dtype
        self.device = device
        if family.pads:
            for layer in self._model.vision_encoder.layers:
                layer.attn.forward = partial(_attend, layer.attn, kernels.attention)
        for name, module in self._model.vision_encoder.named_modules():
            if name.rpartition(".")[2] == "patch_embed":
                lay_out_patches(module)
            elif isinstance(module, Sam2MultiScaleAttention):
                module.forward = partial(_attend_pooled, module, kernels.plain_attention)
            elif type(module) in (nn.Linear, nn.Conv2d):
                module.to(dtype=dtype)
        use_linear_kernel(self._model.vision_encoder, kernels.linear)
        self._compiling = compiling(self._model.vision_encoder, compiled=compiled)

    @property
    def bytes_per_box(self) -> int:
        """As of `BoxNetwork`."""
        n_channels: int = self._model.config.mask_decoder_config.hidden_size
        return _VALUES_AT_A_TIME * self._grid_side**2 * n_channels * torch.float32.itemsize

    def frame(self, size: ImageSize) -> ImageSize:
        """The size that an image is resized to: as large as fits, or the whole square."""
        return resized_size(size, self._side) if self._family.pads else ImageSize(self._side, self._side)

    def axes(self, size: ImageSize) -> tuple[Axis, Axis]:
        """As of `BoxNetwork`."""
        n_logits = 4 * self._grid_side
        return axes_through_square(n_logits, self._side, size) if self._family.pads else axes_straight(n_logits, size)

    def encode(self, images: Sequence[Image]) -> list[dict[str, Any]]:
        """The embeddings of images, each as arguments of the model's `forward`."""
        resizes_there = self.device.type == "cuda" and self._processor.resample == _BILINEAR
        squares = self.squares_there(images) if resizes_there else self._squares_here(images)
        return self.encode_squares(squares.to(self.device))

    def squares_there(self, images: Sequence[Image]) -> torch.Tensor:
        """Images as the model's own processor prepares them, resized on the device to the same bytes."""
        frames = (self.frame(image.size) for image in images)
        resized = [
            resampled(uploaded(self._pixels(image), self.device), frame.width, frame.height, TORCH_BILINEAR)
            for image, frame in zip(images, frames, strict=True)
        ]
        colours_first = [one.permute(2, 0, 1) for one in resized]
        squares: torch.Tensor = self._processor(
            colours_first, do_resize=False, input_data_format="channels_first", return_tensors="pt"
        ).pixel_values
        return squares

    def _squares_here(self, images: Sequence[Image]) -> torch.Tensor:
        pixels = [self._pixels(image) for image in images]
        # By itself transformers takes an image of 1, 3 or 4 rows for one whose colours come first.
        squares: torch.Tensor = self._processor(
            pixels, input_data_format="channels_last", return_tensors="pt"
        ).pixel_values
        return squares

    def encode_squares(self, squares: torch.Tensor) -> list[dict[str, Any]]:
        """The embeddings of images as the model's own processor prepares them, (n, 3, side, side)."""
        is_half = self._dtype is not torch.float32
        with self._compiling(), torch.autocast(self.device.type, dtype=self._dtype, enabled=is_half):
            embeddings = self._model.get_image_embeddings(squares)
        return [_of_image(embeddings, index) for index in range(len(squares))]

    def decode(
        self, embedding: dict[str, Any], boxes_xyxy: torch.Tensor, *, multimask: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As of `BoxNetwork`."""
        found = self._model(**embedding, input_boxes=boxes_xyxy[None], multimask_output=multimask)
        return found.pred_masks[0].float(), found.iou_scores[0].float()

    def _pixels(self, image: Image) -> Any:
        """The pixels; resized ones of an image so thin that transformers would resize it to nothing."""
        frame = self.frame(image.size)
        return resized_pixels(image.pixels, frame) if min(frame.width, frame.height) == 1 else image.pixels


def load_transformers_network(
    folder: Path,
    model_type: str,
    device: torch.device,
    dtype: torch.dtype,
    *,
    kernels: Kernels | None = None,
    compiled: bool = False,
) -> TransformersNetwork:
    """The network of a folder as transformers' `save_pretrained` writes it, loaded strictly and without running code.

    `model_type` is a key of `FAMILIES`; the other arguments and errors are those of `load_network`.
    """
    family = FAMILIES[model_type]
    try:
        with quiet_transformers():
            fields = sam_fields(family.fields, folder / "config.json")
            config = family.model.config_class(**asdict(fields))
            processor = _load_processor(folder, family, fields.prompt_encoder_config.image_size)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{folder} can't be loaded as {family.name} ({first_line(error)}).") from error
    tensors = read_tensors(folder, NATIVE_WEIGHT_FILES)
    n_described = fields.vision_config.n_parameters + fields.mask_decoder_config.n_parameters
    check_n_parameters(folder, family.name, n_described, tensors)
    model = load_strictly(family.model, folder, family.name, config=config, tensors=tensors, dtype=torch.float32)
    return TransformersNetwork(family, model, processor, device, dtype, kernels=kernels, compiled=compiled)


def _load_processor(folder: Path, family: Family, side: int) -> Any:
    """The folder's processor of images, or where it has none that of the family's published models."""
    settings, square = processor_settings(folder, side), {"height": side, "width": side}
    if family.pads:
        return family.processor(size={"longest_edge": side}, pad_size=square, **settings)
    return family.processor(size=square, **settings)


def _of_image(embeddings: Any, index: int) -> dict[str, Any]:
    """One image of what `get_image_embeddings` gives: a tensor, a list by level, or a tensor and a list."""
    one = slice(index, index + 1)
    if isinstance(embeddings, tuple):
        last, intermediate = embeddings
        levels = [level[one].float() for level in intermediate]
        return {"image_embeddings": last[one].float(), "intermediate_embeddings": levels}
    if isinstance(embeddings, list):
        return {"image_embeddings": [level[one].float() for level in embeddings]}
    return {"image_embeddings": embeddings[one].float()}


def _attend(
    attention: Any, kernel: AttentionKernel, hidden_states: torch.Tensor, **_: Any
) -> tuple[torch.Tensor, None]:
    """The `forward` of transformers' vision attention of SAM and SAM-HQ."""
    return attend_with_positions(attention, attention.num_attention_heads, kernel, hidden_states), None


def _attend_pooled(
    attention: Any, kernel: AttentionKernel, hidden_states: torch.Tensor, **_settings: Any
) -> torch.Tensor:
    """The `forward` of SAM 2's attention, (windows, height, width, channels), whose queries may be pooled.

    transformers' own makes scores between the heads of each patch first, and a softmax of them, which it never uses.
    """
    batch, height, width, _ = hidden_states.shape
    qkv = attention.qkv(hidden_states).reshape(batch, height * width, 3, attention.num_attention_heads, -1)
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    if attention.query_stride:
        pooled = do_pool(qkv[:, :, 0].reshape(batch, height, width, -1), attention.query_stride)
        height, width = pooled.shape[1:3]
        queries = pooled.reshape(batch, height * width, attention.num_attention_heads, -1).transpose(1, 2)
    attended = attend(queries, keys, values, attention.scale, kernel)
    projected: torch.Tensor = attention.proj(attended.transpose(1, 2).reshape(batch, height, width, -1))
    return projected
