"""What the configurations of transformers' SAM and SAM-HQ say, field by field, by transformers' names."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta

from grounded_seg.weights.config_records import (
    Activation,
    Epsilon,
    Layers,
    Rate,
    Ratio,
    Side,
    Small,
    Width,
    config_in,
    field_names,
    record_of,
    tell_left_out,
)

_Fields = TypeVar("_Fields")

Few: TypeAlias = Annotated[int, Meta(ge=1, le=100)]
Indexes: TypeAlias = Annotated[list[Layers], Meta(max_length=100)]
_Mean: TypeAlias = Annotated[float, Meta(ge=-10, le=10)]
_Deviation: TypeAlias = Annotated[float, Meta(gt=0, le=10)]
_PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")


@dataclass(frozen=True, kw_only=True)
class PromptFields:
    """The prompt encoder."""

    hidden_size: Width = 256
    image_size: Side = 1024
    patch_size: Few = 16
    mask_input_channels: Width = 16
    num_point_embeddings: Few = 4
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-6

    def __post_init__(self) -> None:
        check_divides("patch_size", self.patch_size, "image_size", self.image_size)


@dataclass(frozen=True, kw_only=True)
class DecoderFields:
    """The mask decoder."""

    hidden_size: Width = 256
    hidden_act: Activation = "relu"
    mlp_dim: Width = 2048
    num_hidden_layers: Layers = 2
    num_attention_heads: Few = 8
    attention_downsample_rate: Few = 2
    num_multimask_outputs: Few = 3
    iou_head_depth: Few = 3
    iou_head_hidden_dim: Width = 256
    layer_norm_eps: Epsilon = 1e-6

    def __post_init__(self) -> None:
        parts = self.attention_downsample_rate * self.num_attention_heads
        check_divides("attention_downsample_rate * num_attention_heads", parts, "hidden_size", self.hidden_size)
        check_divides("the mask upscaling", 8, "hidden_size", self.hidden_size)

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        width = float(self.hidden_size)
        heads = self.iou_head_depth * self.iou_head_hidden_dim**2 + (self.num_multimask_outputs + 1) * 2 * width**2
        return self.num_hidden_layers * width * (4 * width + 2 * self.mlp_dim) + heads


@dataclass(frozen=True, kw_only=True)
class HqDecoderFields(DecoderFields):
    """SAM-HQ's."""

    vit_dim: Width = 768


@dataclass(frozen=True, kw_only=True)
class VisionFields:
    """The image encoder of SAM and SAM-HQ, a ViT."""

    hidden_size: Width = 768
    output_channels: Width = 256
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 12
    num_channels: Literal[3] = 3
    image_size: Side = 1024
    patch_size: Few = 16
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-6
    attention_dropout: Rate = 0.0
    qkv_bias: bool = True
    mlp_ratio: Ratio = 4.0
    use_abs_pos: bool = True
    use_rel_pos: bool = True
    window_size: Small = 14
    global_attn_indexes: Indexes = field(default_factory=lambda: [2, 5, 8, 11])
    num_pos_feats: Width = 128
    mlp_dim: Width | None = None

    def __post_init__(self) -> None:
        check_divides("num_attention_heads", self.num_attention_heads, "hidden_size", self.hidden_size)
        check_divides("patch_size", self.patch_size, "image_size", self.image_size)

    @property
    def n_channels(self) -> int:
        """Of what it gives."""
        return self.output_channels

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        width, grid = float(self.hidden_size), self.image_size // self.patch_size
        wide = self.mlp_ratio * width if self.mlp_dim is None else self.mlp_dim
        layers = self.num_hidden_layers * (4 * width + 2 * wide) * width
        positions = width * grid**2 * self.use_abs_pos
        return layers + positions + 3 * self.patch_size**2 * width + (width + 9 * self.n_channels) * self.n_channels


@dataclass(frozen=True, kw_only=True)
class SamFields:
    """A whole SAM."""

    vision_config: VisionFields = field(default_factory=VisionFields)
    prompt_encoder_config: PromptFields = field(default_factory=PromptFields)
    mask_decoder_config: DecoderFields = field(default_factory=DecoderFields)

    def __post_init__(self) -> None:
        check_parts(self)


@dataclass(frozen=True, kw_only=True)
class SamHqFields:
    """A whole SAM-HQ."""

    vision_config: VisionFields = field(default_factory=VisionFields)
    prompt_encoder_config: PromptFields = field(default_factory=PromptFields)
    mask_decoder_config: HqDecoderFields = field(default_factory=HqDecoderFields)

    def __post_init__(self) -> None:
        check_parts(self)


def check_parts(fields: Any) -> None:
    """Refuse parts that don't fit together, which would only show with the first image, as a `ValueError`."""
    vision, prompts, decoder = fields.vision_config, fields.prompt_encoder_config, fields.mask_decoder_config
    widths = {prompts.hidden_size, decoder.hidden_size, vision.n_channels}
    if len(widths) > 1:
        raise ValueError(f"image encoder, prompt encoder and decoder are {sorted(widths)} channels wide, not equally")
    if isinstance(vision, VisionFields):
        if 2 * vision.num_pos_feats != prompts.hidden_size:
            raise ValueError(f"num_pos_feats is {vision.num_pos_feats}, not half of hidden_size {prompts.hidden_size}")
        if (vision.image_size, vision.patch_size) != (prompts.image_size, prompts.patch_size):
            raise ValueError("image encoder and prompt encoder have images or patches of different sizes")


def sam_fields(kind: type[_Fields], path: Path) -> _Fields:
    """The fields of a `config.json`, of one of the families.

    Raises:
        OSError: If it can't be read.
        ValueError: If a field is wrong; names it.
    """
    content = config_in(path)
    found = record_of(kind, _plain(content))
    tell_left_out(content, path, field_names(kind))
    return found


@dataclass(frozen=True, kw_only=True)
class ProcessorFields:
    """How images are prepared."""

    image_mean: tuple[_Mean, _Mean, _Mean] = (0.485, 0.456, 0.406)
    image_std: tuple[_Deviation, _Deviation, _Deviation] = (0.229, 0.224, 0.225)
    rescale_factor: Epsilon = 1 / 255
    resample: Annotated[int, Meta(ge=0, le=5)] = 2
    do_rescale: bool = True
    do_normalize: bool = True
    do_convert_rgb: bool = True
    size: Mapping[str, Side | None] = field(default_factory=dict)


def processor_settings(folder: Path, side: int) -> dict[str, Any]:
    """What a folder says about the preparation of images, for a model that takes squares of a side in pixels.

    Raises:
        OSError: If the file can't be read.
        ValueError: If a field is wrong, or images become another size than the model's.
    """
    path = next((folder / name for name in _PROCESSOR_FILES if (folder / name).is_file()), None)
    if path is None:
        return {}
    content = config_in(path)
    if path.name == _PROCESSOR_FILES[1]:
        content = content.get("image_processor", content)
    found = record_of(ProcessorFields, _plain(content), path.name)
    sides = {value for value in found.size.values() if value is not None}
    if sides - {side}:
        raise ValueError(f"{path.name} resizes images to {sorted(sides)} px, the model takes {side}")
    return {name: value for name, value in asdict(found).items() if name != "size"}


def _plain(content: Any) -> Any:
    """Without nulls, which stand for transformers' defaults; and a square is its side."""
    if not isinstance(content, Mapping):
        return content
    plain = {key: _plain(value) for key, value in content.items() if value is not None}
    for key in ("image_size", "patch_size"):
        value = plain.get(key)
        if isinstance(value, list) and len(value) == 2 and value[0] == value[1]:
            plain[key] = value[0]
    return plain


def check_divides(name: str, divisor: int, of: str, width: int) -> None:
    """Refuse a width that can't be cut into equal parts, as a `ValueError`."""
    if width % divisor:
        raise ValueError(f"{of} is {width}, which {name} ({divisor}) doesn't divide")
