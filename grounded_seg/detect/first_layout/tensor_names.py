"""Names of modules and tensors in Florence-2's first implementation (`microsoft/Florence-2-*`) and in transformers'.

Both compute the same; their modules are named and nested differently. Names only: no tensors, no libraries.
"""

import re

_BLOCK = r"vision_tower\.blocks\.(?P<stage>\d+)\.(?P<layer>\d+)\.(?P<block>spatial_block|channel_block)\."
_NATIVE_BLOCK = r"model.vision_tower.blocks.\g<stage>.\g<layer>.\g<block>."
_PROJECTOR = "model.multi_modal_projector."

_MODULES: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(older), native)
    for older, native in (
        (r"vision_tower\.convs\.(\d+)\.proj", r"model.vision_tower.convs.\1.conv"),
        (r"vision_tower\.convs\.(\d+)\.norm", r"model.vision_tower.convs.\1.norm"),
        (_BLOCK + r"conv(?P<n>[12])\.fn\.dw", _NATIVE_BLOCK + r"conv\g<n>"),
        (_BLOCK + r"(window_attn|channel_attn)\.norm", _NATIVE_BLOCK + "norm1"),
        (
            _BLOCK + r"(?P<attention>window_attn|channel_attn)\.fn\.(?P<part>qkv|proj)",
            _NATIVE_BLOCK + r"\g<attention>.\g<part>",
        ),
        (_BLOCK + r"ffn\.norm", _NATIVE_BLOCK + "norm2"),
        (_BLOCK + r"ffn\.fn\.net\.(?P<part>fc[12])", _NATIVE_BLOCK + r"ffn.\g<part>"),
        (r"image_proj_norm", _PROJECTOR + "image_proj_norm"),
        (r"image_pos_embed\.(row_embeddings|column_embeddings)", _PROJECTOR + r"image_position_embed.\1"),
        (r"visual_temporal_embed", _PROJECTOR + "visual_temporal_embed"),
        (r"language_model\.lm_head", "lm_head"),
        (r"language_model\.model\.shared", "model.language_model.shared"),
        (
            r"language_model\.model\.((?:encoder|decoder)\.(?:embed_tokens|embed_positions|layernorm_embedding))",
            r"model.language_model.\1",
        ),
        (
            r"language_model\.model\.((?:encoder|decoder)\.layers\.\d+\."
            r"(?:(?:self_attn|encoder_attn)\.(?:q_proj|k_proj|v_proj|out_proj)"
            r"|self_attn_layer_norm|encoder_attn_layer_norm|final_layer_norm|fc1|fc2))",
            r"model.language_model.\1",
        ),
    )
)
_OLDER_ROOTS = frozenset(
    {
        "vision_tower",
        "language_model",
        "image_projection",
        "image_proj_norm",
        "image_pos_embed",
        "visual_temporal_embed",
    }
)

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


def native_module(older: str) -> str | None:
    """The native name of a module of the first implementation; None if there is no such module.

    >>> native_module("vision_tower.blocks.2.8.channel_block.ffn.fn.net.fc1")
    'model.vision_tower.blocks.2.8.channel_block.ffn.fc1'
    """
    for pattern, native in _MODULES:
        match = pattern.fullmatch(older)
        if match:
            return match.expand(native)
    return None


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


def is_older_path(path: str) -> bool:
    """Whether a path is of the first implementation; native ones begin with `model` or `lm_head`."""
    return path.partition(".")[0] in _OLDER_ROOTS
