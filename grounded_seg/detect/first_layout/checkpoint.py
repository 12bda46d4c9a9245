"""A checkpoint of Florence-2's first implementation (`microsoft/Florence-2-*`), rewritten for transformers' class.

Only `config.json` and the weights are read, never the folder's code. At the end the names of its modules and tensors.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer

from grounded_seg.detect.answer.tokens import N_BINS
from grounded_seg.detect.configs.florence_fields import FlorenceFields, florence_fields
from grounded_seg.errors import WeightsError
from grounded_seg.weights.config_records import config_in
from grounded_seg.weights.strict_loading import first_line, named, read_tensors

# Both implementations compute the same; their modules are named and nested differently.
_BLOCK = r"vision_tower\.blocks\.(?P<stage>\d+)\.(?P<layer>\d+)\.(?P<block>spatial_block|channel_block)\."
_NATIVE_BLOCK = r"model.vision_tower.blocks.\g<stage>.\g<layer>.\g<block>."
_PROJECTOR = "model.multi_modal_projector."

_MODULES = {
    r"vision_tower\.convs\.(\d+)\.proj": r"model.vision_tower.convs.\1.conv",
    r"vision_tower\.convs\.(\d+)\.norm": r"model.vision_tower.convs.\1.norm",
    _BLOCK + r"conv(?P<n>[12])\.fn\.dw": _NATIVE_BLOCK + r"conv\g<n>",
    _BLOCK + r"(window_attn|channel_attn)\.norm": _NATIVE_BLOCK + "norm1",
    _BLOCK + r"(?P<attention>window_attn|channel_attn)\.fn\.(?P<part>qkv|proj)": (
        _NATIVE_BLOCK + r"\g<attention>.\g<part>"
    ),
    _BLOCK + r"ffn\.norm": _NATIVE_BLOCK + "norm2",
    _BLOCK + r"ffn\.fn\.net\.(?P<part>fc[12])": _NATIVE_BLOCK + r"ffn.\g<part>",
    r"(image_proj_norm|visual_temporal_embed)": _PROJECTOR + r"\1",
    r"image_pos_embed\.(row_embeddings|column_embeddings)": _PROJECTOR + r"image_position_embed.\1",
    r"language_model\.lm_head": "lm_head",
    r"language_model\.model\."
    r"(shared|(?:encoder|decoder)\.(?:embed_tokens|embed_positions|layernorm_embedding"
    r"|layers\.\d+\.(?:(?:self_attn|encoder_attn)\.(?:q_proj|k_proj|v_proj|out_proj)"
    r"|self_attn_layer_norm|encoder_attn_layer_norm|final_layer_norm|fc1|fc2)))": r"model.language_model.\1",
}
"""The native name of each kind of module, by the pattern of its older one."""

TIED_TENSORS = (
    "language_model.model.shared.weight",
    "language_model.model.encoder.embed_tokens.weight",
    "language_model.model.decoder.embed_tokens.weight",
    "language_model.lm_head.weight",
)
"""One matrix, the words of encoder, decoder and head, which a file may hold under any of these names, or all."""
PROJECTION = "image_projection"
"""A bare matrix in the first implementation, (width of the vision tower, width of the text model)."""
NATIVE_PROJECTION = "model.multi_modal_projector.image_projection.weight"
"""The same as the weight of a linear layer, which is transposed."""
LOGITS_BIAS = "language_model.final_logits_bias"
"""Added to the first implementation's logits; transformers' has no such thing, and every published one is zero."""
# What both implementations call alike, and what the first assumes where its config.json is silent and others differ.
_VISION_SETTINGS = (
    *("depths", "drop_path_rate", "num_groups", "num_heads", "patch_padding", "patch_prenorm", "patch_size"),
    *("patch_stride", "projection_dim", "window_size"),
)
_VISION_DEFAULTS: Mapping[str, Any] = {
    "dim_embed": (256, 512, 1024, 2048),
    "num_groups": (8, 16, 32, 64),
    "num_heads": (8, 16, 32, 64),
}
_TEXT_SETTINGS = (
    *("activation_dropout", "activation_function", "attention_dropout", "bos_token_id", "d_model"),
    *("decoder_attention_heads", "decoder_ffn_dim", "decoder_layerdrop", "decoder_layers", "decoder_start_token_id"),
    *("dropout", "encoder_attention_heads", "encoder_ffn_dim", "encoder_layerdrop", "encoder_layers", "eos_token_id"),
    *("forced_eos_token_id", "init_std", "max_position_embeddings", "pad_token_id", "scale_embedding", "vocab_size"),
)
_VOCABULARY_SIZE = 51289
_FEATURE_SOURCES = ["spatial_avg_pool", "temporal_avg_pool"]
_MASK_TOKEN_ID = 50264
OWN_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{index}>" for index in range(N_BINS)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
"""What Florence-2 adds to BART's 50,265 tokens, in the order of their ids; "desciption" is spelt so there."""


def read_older_model(folder: Path) -> tuple[FlorenceFields, dict[str, torch.Tensor]]:
    """Configuration and tensors of a folder, in transformers' words; tensors keep the dtype of the file.

    Whether the tensors are all that the configuration asks for is only known once they are on a network. What
    transformers' Florence-2 has no equivalent for is a `WeightsError`.
    """
    try:
        fields = florence_fields(_native_config(config_in(folder / "config.json")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / 'config.json'} isn't that of a Florence-2 ({first_line(error)})") from error
    return fields, _native_tensors(folder, read_tensors(folder), is_tied=fields.tie_word_embeddings)


def add_own_tokens(tokenizer: Tokenizer) -> None:
    """Append Florence-2's own tokens to BART's tokenizer, which is what the folders hold, where they are missing."""
    if tokenizer.token_to_id("<loc_0>") is None:
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in OWN_TOKENS])


def _native_config(older: Mapping[str, Any]) -> dict[str, Any]:
    """A `config.json` of the first implementation in transformers' words; a `ValueError` if it has other parts."""
    vision = {**_VISION_DEFAULTS, **older["vision_config"]}
    positions, times = vision.get("image_pos_embed"), vision.get("visual_temporal_embedding")
    if not positions or positions.get("type") != "learned_abs_2d" or not times or times.get("type") != "COSINE":
        raise ValueError("its positions are not the learned and cosine ones that every published Florence-2 has")
    if list(vision.get("image_feature_source", _FEATURE_SOURCES)) != _FEATURE_SOURCES:
        raise ValueError(f"its image_feature_source is not {_FEATURE_SOURCES}")
    text = {name: value for name, value in older["text_config"].items() if name in _TEXT_SETTINGS}
    n_rows = text.setdefault("vocab_size", _VOCABULARY_SIZE)
    return {
        "vision_config": {
            **{name: vision[name] for name in _VISION_SETTINGS if name in vision},
            "embed_dim": vision["dim_embed"],
            "max_position_embeddings": positions["max_pos_embeddings"],
            "max_temporal_embeddings": times["max_temporal_embeddings"],
        },
        "text_config": {"model_type": "bart", **text},
        # The first implementation has no image token: <mask>, which no prompt holds, stands in.
        "image_token_id": min(_MASK_TOKEN_ID, n_rows - 1),
        "tie_word_embeddings": older.get("tie_word_embeddings", True),
    }


def _native_tensors(source: Path, older: Mapping[str, torch.Tensor], *, is_tied: bool) -> dict[str, torch.Tensor]:
    """The tensors of the first implementation by their native names; one is transposed.

    Where they are tied, words and head are one matrix, under whichever of its names it is stored.
    """
    homes = {name: native_tensor(name) for name in older if name != LOGITS_BIAS}
    homeless = sorted(name for name, home in homes.items() if home is None)
    if LOGITS_BIAS in older and older[LOGITS_BIAS].any():
        homeless.append(f"{LOGITS_BIAS}, which isn't zero")
    if homeless:
        raise WeightsError(f"{source} has tensors that Florence-2 doesn't have: {named(homeless)}")
    renamed = {home: older[name] for name, home in homes.items() if home is not None}
    if PROJECTION in older:
        renamed[NATIVE_PROJECTION] = older[PROJECTION].t().contiguous()
    tied = [name for name in (TIED_TENSORS if is_tied else TIED_TENSORS[:-1]) if name in older]
    differing = [name for name in tied[1:] if not torch.equal(older[name], older[tied[0]])]
    if differing:
        raise WeightsError(
            f"{source} holds a {named(differing)} that differs from {tied[0]}, though they are one matrix; "
            'if the head was tuned on its own, say "tie_word_embeddings": false in its config.json'
        )
    # One name for all of them; the network ties the others to it.
    for name in tied:
        del renamed[str(homes[name])]
    if tied:
        renamed[str(native_tensor(TIED_TENSORS[0]))] = older[tied[0]]
    return renamed


def native_module(older: str) -> str | None:
    """The native name of a module of the first implementation; None if there is no such module.

    >>> native_module("vision_tower.blocks.2.8.channel_block.ffn.fn.net.fc1")
    'model.vision_tower.blocks.2.8.channel_block.ffn.fc1'
    """
    matches = ((re.fullmatch(pattern, older), native) for pattern, native in _MODULES.items())
    return next((match.expand(native) for match, native in matches if match), None)


def native_tensor(older: str) -> str | None:
    """The native name of a tensor of the first implementation; None if there is no such tensor.

    >>> native_tensor("vision_tower.convs.0.proj.bias")
    'model.vision_tower.convs.0.conv.bias'
    """
    if older == PROJECTION:
        return NATIVE_PROJECTION
    module, _, parameter = older.rpartition(".")
    home = native_module(module)
    return None if home is None else f"{home}.{parameter}"
