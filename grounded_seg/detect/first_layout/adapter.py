"""A LoRA adapter of Florence-2's first implementation, rewritten for transformers' class.

The tuned modules are read off the paths of the tensors, however the configuration named them: by endings, by a pattern,
or as "all-linear".
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grounded_seg.detect.first_layout.checkpoint import native_module
from grounded_seg.detect.first_layout.layout import PREFIX
from grounded_seg.errors import WeightsError
from grounded_seg.weights.strict_loading import named

if TYPE_CHECKING:
    from peft import LoraConfig

_TENSOR = re.compile(
    r"(?P<module>.+?)\.(?P<part>"
    r"lora_[AB]\.(?:weight|bias)|lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?"
    r"|(?:base_layer\.)?(?:weight|bias)|pos_idx_to_embed)"
)
_FIRST_FACTORS = ("lora_A.weight", "lora_embedding_A")


@dataclass(frozen=True)
class _Tensor:
    key: str
    older: str
    native: str
    """Path of the module in the first implementation, and in transformers'."""
    part: str
    """What of the module, such as `lora_A.weight`."""


def native_adapter(source: Path, config: "LoraConfig", older: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors of an adapter by their native names; its configuration is rewritten in place.

    Rank and alpha of each module stay what they were, whatever pattern they came from. A `WeightsError` names the
    source if a tensor has no equivalent in transformers' Florence-2, or half of a pair is missing.
    """
    found = {key: _located(key) for key in older}
    unknown = sorted(key for key, one in found.items() if one is None)
    if unknown:
        raise WeightsError(f"{source} has tensors that Florence-2 doesn't have: {named(unknown)}")
    located = [one for one in found.values() if one is not None]
    parts: defaultdict[str, set[str]] = defaultdict(set)
    for one in located:
        parts[one.native].add(one.part)
    _check_pairs(source, parts)
    _rewrite(config, located, older)
    return {f"{PREFIX}{one.native}.{one.part}": older[one.key] for one in located}


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


def _rewrite(config: "LoraConfig", located: list[_Tensor], tensors: Mapping[str, torch.Tensor]) -> None:
    """Name the tuned modules by their full native paths, and give each its own rank and alpha."""
    factors = [one for one in located if one.part in _FIRST_FACTORS]
    ranks = {one.native: int(tensors[one.key].shape[0]) for one in factors}
    alphas = {one.native: _by_pattern(config.alpha_pattern, one.older, config.lora_alpha) for one in factors}
    config.target_modules = sorted(ranks)
    config.rank_pattern = {module: rank for module, rank in sorted(ranks.items()) if rank != config.r}
    config.alpha_pattern = {module: alpha for module, alpha in sorted(alphas.items()) if alpha != config.lora_alpha}
    if config.modules_to_save:
        # Each is saved whole, with what lies within it.
        saved = [f".{name}." for name in config.modules_to_save]
        whole = {one.native for one in located if any(name in f".{one.older}." for name in saved)}
        config.modules_to_save = sorted(whole)
    # These only chose among the modules, and name them by the first implementation's words.
    config.exclude_modules = config.layers_to_transform = config.layers_pattern = None
    # It names a class whose code came with the weights.
    config.auto_mapping = None


def _by_pattern(patterns: Mapping[str, int], module: str, default: int) -> int:
    """The value of a module as peft looks it up: by the first pattern that fits the end of its path."""
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(fitting, default)
