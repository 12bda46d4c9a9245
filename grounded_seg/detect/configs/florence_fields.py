"""What a Florence-2's `config.json` and `generation_config.json` say, field by field, by transformers' names."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, TypeAlias

from msgspec import Meta
from transformers import Florence2Config, GenerationConfig

from grounded_seg.weights.config_records import Activation, Layers, Rate, Ratio, Small, TokenId, Width, record_of

_Kernel: TypeAlias = Annotated[int, Meta(ge=1, le=100)]
_MOST_STAGES = 8
_Vocabulary: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]
_Penalty: TypeAlias = Annotated[float, Meta(ge=-100, le=100)]
_Times: TypeAlias = Annotated[int, Meta(ge=1, le=1000)]


@dataclass(frozen=True, kw_only=True)
class VisionFields:
    """The vision tower, DaViT: lists have an item for each stage."""

    in_channels: Literal[3] = 3
    depths: list[Layers] = field(default_factory=lambda: [1, 1, 9, 1])
    patch_size: list[_Kernel] = field(default_factory=lambda: [7, 3, 3, 3])
    patch_stride: list[_Kernel] = field(default_factory=lambda: [4, 2, 2, 2])
    patch_padding: list[Small] = field(default_factory=lambda: [3, 1, 1, 1])
    patch_prenorm: list[bool] = field(default_factory=lambda: [False, True, True, True])
    embed_dim: list[Width] = field(default_factory=lambda: [128, 256, 512, 1024])
    num_heads: list[Width] = field(default_factory=lambda: [4, 8, 16, 32])
    num_groups: list[Width] = field(default_factory=lambda: [4, 8, 16, 32])
    window_size: _Kernel = 12
    drop_path_rate: Rate = 0.1
    mlp_ratio: Ratio = 4.0
    qkv_bias: bool = True
    activation_function: Activation = "gelu"
    projection_dim: Width = 1024
    max_temporal_embeddings: _Times = 100
    max_position_embeddings: _Times = 50

    def __post_init__(self) -> None:
        lists: dict[str, Sequence[Any]] = {
            name: getattr(self, name)
            for name in (
                *("depths", "patch_size", "patch_stride", "patch_padding", "patch_prenorm", "embed_dim"),
                *("num_heads", "num_groups"),
            )
        }
        n_stages = len(self.embed_dim)
        if not 1 <= n_stages <= _MOST_STAGES:
            raise ValueError(f"there are {n_stages} stages, not 1 to {_MOST_STAGES}")
        odd = next((name for name, values in lists.items() if len(values) != n_stages), None)
        if odd is not None:
            raise ValueError(f"{odd} has {len(lists[odd])} items, embed_dim has {n_stages}")
        for width, n_heads, n_groups in zip(self.embed_dim, self.num_heads, self.num_groups, strict=True):
            _check_divides("num_heads", n_heads, "embed_dim", width)
            _check_divides("num_groups", n_groups, "embed_dim", width)
        _check_divides("2", 2, "the last embed_dim", self.embed_dim[-1])

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        n, channels = 0.0, int(self.in_channels)
        for depth, kernel, width in zip(self.depths, self.patch_size, self.embed_dim, strict=True):
            n += kernel**2 * channels * width + 2 * depth * (4 + 2 * self.mlp_ratio) * width**2
            channels = width
        return n + channels * (self.projection_dim + self.max_position_embeddings + self.max_temporal_embeddings)


@dataclass(frozen=True, kw_only=True)
class TextFields:
    """The text model, BART."""

    model_type: Literal["bart"] = "bart"
    vocab_size: _Vocabulary = 50265
    max_position_embeddings: Width = 1024
    d_model: Width = 1024
    encoder_layers: Layers = 12
    encoder_ffn_dim: Width = 4096
    encoder_attention_heads: Width = 16
    decoder_layers: Layers = 12
    decoder_ffn_dim: Width = 4096
    decoder_attention_heads: Width = 16
    encoder_layerdrop: Rate = 0.0
    decoder_layerdrop: Rate = 0.0
    activation_function: Activation = "gelu"
    dropout: Rate = 0.1
    attention_dropout: Rate = 0.0
    activation_dropout: Rate = 0.0
    scale_embedding: bool = False
    pad_token_id: TokenId | None = 1
    bos_token_id: TokenId | None = 0
    eos_token_id: TokenId | None = 2
    decoder_start_token_id: TokenId | None = 2
    forced_eos_token_id: TokenId | None = 2

    def __post_init__(self) -> None:
        for part in ("encoder", "decoder"):
            name = f"{part}_attention_heads"
            _check_divides(name, getattr(self, name), "d_model", self.d_model)
        for name in ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id"):
            value = getattr(self, name)
            if value is not None and value >= self.vocab_size:
                raise ValueError(f"{name} is {value}, there are {self.vocab_size} tokens")

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        encoder = self.encoder_layers * (4 * self.d_model + 2 * self.encoder_ffn_dim)
        decoder = self.decoder_layers * (8 * self.d_model + 2 * self.decoder_ffn_dim)
        return self.d_model * float(self.vocab_size + 2 * self.max_position_embeddings + encoder + decoder)


@dataclass(frozen=True, kw_only=True)
class FlorenceFields:
    """A whole Florence-2."""

    model_type: Literal["florence2"] = "florence2"
    vision_config: VisionFields = field(default_factory=VisionFields)
    text_config: TextFields = field(default_factory=TextFields)
    image_token_id: TokenId = 51289
    tie_word_embeddings: bool = True
    space_before_labels: bool = False

    def __post_init__(self) -> None:
        widths = self.vision_config.projection_dim, self.text_config.d_model
        if widths[0] != widths[1]:
            raise ValueError(f"projection_dim is {widths[0]}, d_model is {widths[1]}; they are the same")

    @property
    def n_parameters(self) -> float:
        """About how many numbers it has."""
        return self.vision_config.n_parameters + self.text_config.n_parameters

    def config(self) -> Florence2Config:
        """The configuration for transformers."""
        # Only ours has it.
        more = {"space_before_labels": True} if self.space_before_labels else {}
        return Florence2Config(
            vision_config=asdict(self.vision_config),
            text_config=asdict(self.text_config),
            image_token_id=self.image_token_id,
            tie_word_embeddings=self.tie_word_embeddings,
            **more,
        )


@dataclass(frozen=True, kw_only=True)
class GenerationFields:
    """The rules by which answers are generated."""

    bos_token_id: TokenId | None = None
    decoder_start_token_id: TokenId | None = None
    early_stopping: bool | Literal["never"] | None = None
    eos_token_id: TokenId | list[TokenId] | None = None
    forced_bos_token_id: TokenId | None = None
    forced_eos_token_id: TokenId | None = None
    length_penalty: _Penalty | None = None
    no_repeat_ngram_size: Annotated[int, Meta(ge=0, le=1000)] | None = None
    num_beams: Annotated[int, Meta(ge=1, le=100)] | None = None
    pad_token_id: TokenId | None = None

    def config(self) -> GenerationConfig:
        """The rules for transformers, which has its own for what isn't given."""
        return GenerationConfig(**{name: value for name, value in asdict(self).items() if value is not None})


def florence_fields(content: Mapping[str, Any]) -> FlorenceFields:
    """The fields of a configuration in transformers' words; a `ValueError` names the one that is wrong."""
    return record_of(FlorenceFields, _without_nulls(content))


def _without_nulls(content: Any) -> Any:
    """What null stands for is transformers' default, but for tokens, of which there may be none."""
    if not isinstance(content, Mapping):
        return content
    kept = ((key, value) for key, value in content.items() if value is not None or key.endswith("_token_id"))
    return {key: _without_nulls(value) for key, value in kept}


def _check_divides(name: str, divisor: int, of: str, width: int) -> None:
    if width % divisor:
        raise ValueError(f"{of} is {width}, which {name} ({divisor}) doesn't divide")
