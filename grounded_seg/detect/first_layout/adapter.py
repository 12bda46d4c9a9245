"""LoRA adapters that were trained on Florence-2's first implementation, rewritten for transformers' own class.

The modules that an adapter tunes are read off the paths of its tensors, so that it doesn't matter how its
configuration named them: by endings, by a pattern, or as "all-linear".
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig

from grounded_seg.detect.first_layout.tensor_names import is_older_path, native_module
from grounded_seg.errors import WeightsError
from grounded_seg.weights.strict_loading import named

PREFIX = "base_model.model."
"""What peft puts before the path of a module in the model that it tunes."""
_TENSOR = re.compile(
    r"(?P<module>.+?)\.(?P<part>"
    r"lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?"
    r"|(?:base_layer\.)?(?:weight|bias)|pos_idx_to_embed)"
)
_FIRST_FACTORS = ("lora_A.weight", "lora_embedding_A")


@dataclass(frozen=True, eq=False)
class Adapter:
    """What an adapter's two files hold."""

    config: LoraConfig
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class _Tensor:
    key: str
    older: str
    """Path of the module in the first implementation."""
    native: str
    """And in transformers'."""
    part: str
    """What of the module, such as `lora_A.weight`."""


def is_older_adapter(keys: Iterable[str]) -> bool:
    """Tell by the paths of its tensors whether an adapter was trained on the first implementation."""
    return any(is_older_path(key.removeprefix(PREFIX)) for key in keys)


def native_adapter(source: Path, older: Adapter) -> Adapter:
    """Rewrite an adapter of the first implementation.

    Rank and alpha of each module stay what they were, whatever pattern they came from. Parts of the first
    implementation that are one module there and two in transformers' are tuned as two.

    Args:
        source: Where it comes from, for messages.
        older: As it was read; its configuration is changed in place.

    Raises:
        WeightsError: If a tensor has no home in transformers' Florence-2, or half of a pair is missing.
    """
    found = [_located(key) for key in older.tensors]
    homeless = sorted(key for key, place in zip(older.tensors, found, strict=True) if place is None)
    if homeless:
        raise WeightsError(f"{source} has tensors without a place in Florence-2: {named(homeless)}")
    places = [place for place in found if place is not None]
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for place in places:
        parts[place.native].add(place.part)
    _check_pairs(source, parts)
    _rewrite(older.config, places, {place.key: older.tensors[place.key] for place in places})
    return Adapter(older.config, {f"{PREFIX}{place.native}.{place.part}": older.tensors[place.key] for place in places})


def _located(key: str) -> _Tensor | None:
    match = _TENSOR.fullmatch(key.removeprefix(PREFIX))
    home = native_module(match["module"]) if match and key.startswith(PREFIX) else None
    return _Tensor(key, match["module"], home, match["part"]) if match and home else None


def _check_pairs(source: Path, parts: Mapping[str, set[str]]) -> None:
    pairs = (("lora_A.weight", "lora_B.weight"), ("lora_embedding_A", "lora_embedding_B"))
    missing = sorted(
        f"{module}.{absent}"
        for module, own in parts.items()
        for pair in pairs
        for present, absent in (pair, pair[::-1])
        if present in own and absent not in own
    )
    if missing:
        raise WeightsError(f"{source} lacks tensors that belong to others of its own: {named(missing)}")


def _rewrite(config: LoraConfig, places: list[_Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Name the tuned modules by their full native paths, and give each its own rank and alpha."""
    factors = [place for place in places if place.part in _FIRST_FACTORS]
    ranks = {place.native: int(tensors[place.key].shape[0]) for place in factors}
    alphas = {place.native: _by_pattern(config.alpha_pattern, place.older, config.lora_alpha) for place in factors}
    config.target_modules = sorted(ranks)
    config.rank_pattern = {module: rank for module, rank in sorted(ranks.items()) if rank != config.r}
    config.alpha_pattern = {module: alpha for module, alpha in sorted(alphas.items()) if alpha != config.lora_alpha}
    if config.modules_to_save:
        saved = {place.native for place in places if _is_within(place.older, config.modules_to_save)}
        config.modules_to_save = sorted(saved)
    # These only chose among the modules, and name them by the first implementation's words.
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    # It names a class whose code came with the weights.
    config.auto_mapping = None


def _by_pattern(patterns: Mapping[str, int], module: str, default: int) -> int:
    """Look up a module as peft does: the first pattern that fits the end of its path."""
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(fitting, default)


def _is_within(module: str, saved: Iterable[str]) -> bool:
    """Tell whether a module is one of those saved whole, or lies within one."""
    return any(f".{name}." in f".{module}." for name in saved)
