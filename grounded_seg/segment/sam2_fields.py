"""What the configuration of transformers' SAM 2 says, field by field, by transformers' names."""

from dataclasses import dataclass, field
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta

from grounded_seg.segment.sam_fields import DecoderFields, Few, Indexes, PromptFields, check_divides, check_parts
from grounded_seg.weights.config_records import Activation, Epsilon, Layers, Rate, Ratio, Side, Small, Width

_Pair: TypeAlias = Annotated[list[Few], Meta(min_length=2, max_length=2)]
_Paddings: TypeAlias = Annotated[list[Small], Meta(min_length=2, max_length=2)]
_Stages: TypeAlias = Annotated[list[Layers], Meta(min_length=1, max_length=8)]
_Widths: TypeAlias = Annotated[list[Width], Meta(min_length=1, max_length=8)]


@dataclass(frozen=True, kw_only=True)
class Sam2PromptFields(PromptFields):
    """SAM 2's."""

    scale: Few = 1


@dataclass(frozen=True, kw_only=True)
class Sam2DecoderFields(DecoderFields):
    """SAM 2's."""

    hidden_act: Activation = "gelu"
    dynamic_multimask_via_stability: bool = True
    dynamic_multimask_stability_delta: Rate = 0.05
    dynamic_multimask_stability_thresh: Rate = 0.98


@dataclass(frozen=True, kw_only=True)
class HieraFields:
    """The backbone of SAM 2's image encoder; lists have an item for each stage."""

    model_type: Literal["sam2_hiera_det_model"] = "sam2_hiera_det_model"
    hidden_size: Width = 96
    num_attention_heads: Width = 1
    num_channels: Literal[3] = 3
    patch_kernel_size: _Pair = field(default_factory=lambda: [7, 7])
    patch_stride: _Pair = field(default_factory=lambda: [4, 4])
    patch_padding: _Paddings = field(default_factory=lambda: [3, 3])
    query_stride: _Pair = field(default_factory=lambda: [2, 2])
    window_positional_embedding_background_size: _Pair = field(default_factory=lambda: [7, 7])
    num_query_pool_stages: Small = 3
    blocks_per_stage: _Stages = field(default_factory=lambda: [1, 2, 7, 2])
    embed_dim_per_stage: _Widths = field(default_factory=lambda: [96, 192, 384, 768])
    num_attention_heads_per_stage: _Widths = field(default_factory=lambda: [1, 2, 4, 8])
    window_size_per_stage: _Stages = field(default_factory=lambda: [8, 4, 14, 7])
    global_attention_blocks: Indexes = field(default_factory=lambda: [5, 7, 9])
    mlp_ratio: Ratio = 4.0
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-6

    def __post_init__(self) -> None:
        n_stages = len(self.embed_dim_per_stage)
        for name in ("blocks_per_stage", "num_attention_heads_per_stage", "window_size_per_stage"):
            if len(getattr(self, name)) != n_stages:
                raise ValueError(f"{name} has {len(getattr(self, name))} items, embed_dim_per_stage has {n_stages}")
        for width, n_heads in zip(self.embed_dim_per_stage, self.num_attention_heads_per_stage, strict=True):
            check_divides("num_attention_heads_per_stage", n_heads, "embed_dim_per_stage", width)
        if min(self.window_size_per_stage) < 1 or min(self.blocks_per_stage) < 1:
            raise ValueError("a stage has no block or no window")


@dataclass(frozen=True, kw_only=True)
class Sam2VisionFields:
    """SAM 2's image encoder: a Hiera and a feature pyramid."""

    model_type: Literal["sam2_vision_model"] = "sam2_vision_model"
    backbone_config: HieraFields = field(default_factory=HieraFields)
    backbone_channel_list: _Widths = field(default_factory=lambda: [768, 384, 192, 96])
    backbone_feature_sizes: Annotated[
        list[Annotated[list[Side], Meta(min_length=2, max_length=2)]], Meta(min_length=1, max_length=8)
    ] = field(default_factory=lambda: [[256, 256], [128, 128], [64, 64]])
    fpn_hidden_size: Width = 256
    fpn_kernel_size: Few = 1
    fpn_stride: Few = 1
    fpn_padding: Small = 0
    fpn_top_down_levels: Indexes = field(default_factory=lambda: [2, 3])
    num_feature_levels: Few = 3
    hidden_act: Activation = "gelu"
    layer_norm_eps: Epsilon = 1e-6

    def __post_init__(self) -> None:
        if self.backbone_channel_list != self.backbone_config.embed_dim_per_stage[::-1]:
            raise ValueError("backbone_channel_list isn't embed_dim_per_stage from last to first")

    @property
    def n_channels(self) -> int:
        """Of what it gives."""
        return self.fpn_hidden_size

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        hiera = self.backbone_config
        stages = zip(hiera.blocks_per_stage, hiera.embed_dim_per_stage, strict=True)
        blocks = sum(n_blocks * (4 + 2 * hiera.mlp_ratio) * width**2 for n_blocks, width in stages)
        kernel = hiera.patch_kernel_size[0] * hiera.patch_kernel_size[1]
        background = hiera.window_positional_embedding_background_size
        positions = background[0] * background[1] + hiera.window_size_per_stage[0] ** 2
        pyramid = sum(self.backbone_channel_list) * self.fpn_hidden_size * self.fpn_kernel_size**2
        return blocks + hiera.hidden_size * float(3 * kernel + positions) + pyramid


@dataclass(frozen=True, kw_only=True)
class Sam2Fields:
    """A whole SAM 2."""

    vision_config: Sam2VisionFields = field(default_factory=Sam2VisionFields)
    prompt_encoder_config: Sam2PromptFields = field(default_factory=Sam2PromptFields)
    mask_decoder_config: Sam2DecoderFields = field(default_factory=Sam2DecoderFields)

    def __post_init__(self) -> None:
        check_parts(self)
