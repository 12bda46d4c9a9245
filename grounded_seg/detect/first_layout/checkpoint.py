"""Florence-2 as its first implementation stores it (`microsoft/Florence-2-*`), rewritten for transformers' own class.

Only `config.json` and the weights are read here, never the folder's code: `model.safetensors`, the files that
`model.safetensors.index.json` names, or `pytorch_model.bin`, the first of these that is there.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Florence2Config, GenerationConfig

from grounded_seg.detect.first_layout.tensor_names import (
    LOGITS_BIAS,
    NATIVE_PROJECTION,
    PROJECTION,
    TIED_TENSORS,
    native_tensor,
)
from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import PICKLE_FILE, WEIGHT_FILES, weight_files
from grounded_seg.weights.strict_loading import first_line, named

GENERATION_DEFAULTS: Mapping[str, Any] = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "num_beams": 3,
    "pad_token_id": 1,
}
"""`generation_config.json` of every published Florence-2."""

# What the first implementation assumes where its config.json is silent; transformers assumes other numbers.
_VISION_DEFAULTS: Mapping[str, Any] = {
    "depths": (1, 1, 9, 1),
    "dim_embed": (256, 512, 1024, 2048),
    "drop_path_rate": 0.1,
    "num_groups": (8, 16, 32, 64),
    "num_heads": (8, 16, 32, 64),
    "patch_padding": (3, 1, 1, 1),
    "patch_prenorm": (False, True, True, True),
    "patch_size": (7, 3, 3, 3),
    "patch_stride": (4, 2, 2, 2),
    "projection_dim": 1024,
    "window_size": 12,
}
_TEXT_DEFAULTS: Mapping[str, Any] = {
    "activation_dropout": 0.0,
    "activation_function": "gelu",
    "attention_dropout": 0.0,
    "bos_token_id": 0,
    "d_model": 1024,
    "decoder_attention_heads": 16,
    "decoder_ffn_dim": 4096,
    "decoder_layerdrop": 0.0,
    "decoder_layers": 12,
    "decoder_start_token_id": 2,
    "dropout": 0.1,
    "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096,
    "encoder_layerdrop": 0.0,
    "encoder_layers": 12,
    "eos_token_id": 2,
    "forced_eos_token_id": 2,
    "init_std": 0.02,
    "max_position_embeddings": 1024,
    "pad_token_id": 1,
    "scale_embedding": False,
    "vocab_size": 51289,
}
_DAMAGE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError, EOFError),
    *(UnpicklingError, SafetensorError),
)
"""What reading a broken file raises."""
_FEATURE_SOURCES = ["spatial_avg_pool", "temporal_avg_pool"]
_MASK_TOKEN_ID = 50264


@dataclass(frozen=True, eq=False)
class StoredModel:
    """What a folder holds, in transformers' words."""

    config: Florence2Config
    tensors: dict[str, torch.Tensor]
    """By native name, in the number format of the file."""


def is_older_config(config: Mapping[str, Any]) -> bool:
    """Tell by the vision tower's part of a `config.json` whether the folder is in the older layout."""
    vision = config["vision_config"]
    return "dim_embed" in vision or vision.get("model_type") in ("davit", "florence2_vision")


def read_older_model(folder: Path) -> StoredModel:
    """Read a folder of the first implementation.

    Whether the tensors are all that the configuration asks for is only known once they are on a network.

    Raises:
        WeightsError: If a file is missing or damaged, a tensor has no home in transformers' Florence-2, or the model
            does something that transformers' can't.
    """
    try:
        older = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config = native_config(older)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{folder / 'config.json'} isn't that of a Florence-2 ({first_line(error)})") from error
    return StoredModel(config, native_tensors(folder, read_tensors(folder), is_tied=config.tie_word_embeddings))


def native_config(older: Mapping[str, Any]) -> Florence2Config:
    """Rewrite a `config.json` of the first implementation.

    Raises:
        ValueError: If the model has parts that transformers' Florence-2 doesn't have.
    """
    vision = {**_VISION_DEFAULTS, **older["vision_config"]}
    positions, times = vision.get("image_pos_embed"), vision.get("visual_temporal_embedding")
    if not positions or positions.get("type") != "learned_abs_2d" or not times or times.get("type") != "COSINE":
        raise ValueError("its positions are not the learned and cosine ones that every published Florence-2 has")
    if list(vision.get("image_feature_source", _FEATURE_SOURCES)) != _FEATURE_SOURCES:
        raise ValueError(f"its image_feature_source is {vision['image_feature_source']}, not {_FEATURE_SOURCES}")
    text = {name: older["text_config"].get(name, default) for name, default in _TEXT_DEFAULTS.items()}
    return Florence2Config(
        vision_config={
            **{name: vision[name] for name in _VISION_DEFAULTS if name != "dim_embed"},
            "embed_dim": vision["dim_embed"],
            "max_position_embeddings": positions["max_pos_embeddings"],
            "max_temporal_embeddings": times["max_temporal_embeddings"],
        },
        text_config={"model_type": "bart", **text},
        # The first implementation has no token for the places of the image: <mask>, which no prompt holds, stands in.
        image_token_id=min(_MASK_TOKEN_ID, text["vocab_size"] - 1),
        tie_word_embeddings=older.get("tie_word_embeddings", True),
    )


def native_tensors(source: Path, older: Mapping[str, torch.Tensor], *, is_tied: bool = True) -> dict[str, torch.Tensor]:
    """Rename the tensors of the first implementation; the one that is stored the other way round is turned.

    Args:
        source: Where they come from, for messages.
        older: By their names in the first implementation.
        is_tied: Words and head are one matrix, under whichever of its names it is stored.

    Raises:
        WeightsError: If a tensor has no home, or copies of the tied matrix differ.
    """
    homes = {name: native_tensor(name) for name in older if name != LOGITS_BIAS}
    homeless = sorted(name for name, home in homes.items() if home is None)
    if LOGITS_BIAS in older and older[LOGITS_BIAS].any():
        homeless.append(f"{LOGITS_BIAS}, which isn't zero")
    if homeless:
        raise WeightsError(f"{source} has tensors without a place in Florence-2: {named(homeless)}")
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


def older_generation(folder: Path) -> tuple[GenerationConfig, bool]:
    """Read `generation_config.json`; without one, Florence-2's own rules.

    Returns:
        The rules, and whether they were there.

    Raises:
        WeightsError: If the file is damaged.
    """
    if not (folder / "generation_config.json").is_file():
        return GenerationConfig(**GENERATION_DEFAULTS), False
    try:
        return GenerationConfig.from_pretrained(folder, local_files_only=True), True
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{folder / 'generation_config.json'} can't be read ({first_line(error)})") from error


def read_tensors(folder: Path, names: Sequence[str] = WEIGHT_FILES) -> dict[str, torch.Tensor]:
    """Read the weights of a folder, of either layout, as they are stored.

    Args:
        folder: The model's.
        names: Files to look for, see `weights.files.weight_files`.

    Raises:
        WeightsError: If none is there, it can't be read, or it holds something else than tensors.
    """
    files = weight_files(folder, names)
    if not files:
        raise WeightsError(f"{folder} has no weights: none of {', '.join(names)} is there")
    path = files[0]
    try:
        if path.name != PICKLE_FILE:
            tensors: dict[str, torch.Tensor] = {}
            for path in files:
                tensors.update(load_file(path))
            return tensors
        pickled = torch.load(path, map_location="cpu", weights_only=True)
    except _DAMAGE as error:
        raise WeightsError(f"{path} can't be read as weights ({first_line(error)})") from error
    if not isinstance(pickled, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in pickled.values()):
        raise WeightsError(f"{path} holds something else than named tensors; take the model's own file")
    return dict(pickled)
