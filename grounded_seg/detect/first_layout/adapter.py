"""A LoRA adapter of Florence-2's first implementation, rewritten for transformers' class.

The tuned modules are read off the paths of the tensors, however the configuration named them: by endings, by a pattern,
or as "all-linear".
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from grounded_seg.detect.configs.adapter_fields import AdapterFields, values_of
from grounded_seg.detect.first_layout.checkpoint import native_module
from grounded_seg.detect.first_layout.layout import PREFIX
from grounded_seg.errors import WeightsError
from grounded_seg.weights.strict_loading import named

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


def native_adapter(
    source: Path, fields: AdapterFields, older: Mapping[str, torch.Tensor]
) -> tuple[AdapterFields, dict[str, torch.Tensor]]:
    """The settings of an adapter in transformers' words, and its tensors by their native names.

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
    try:
        rewritten = _rewritten(fields, located, older)
    except ValueError as error:
        raise WeightsError(f"{source} can't be rewritten for this model ({error}); train it again") from error
    return rewritten, {f"{PREFIX}{one.native}.{one.part}": older[one.key] for one in located}


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


def _rewritten(fields: AdapterFields, located: list[_Tensor], tensors: Mapping[str, torch.Tensor]) -> AdapterFields:
    """Name the tuned modules by their full native paths, and give each its own rank and alpha."""
    factors = [one for one in located if one.part in _FIRST_FACTORS]
    ranks = {one.native: int(tensors[one.key].shape[0]) for one in factors}
    own_alphas = values_of(fields.alpha_pattern, [one.older for one in factors])
    alphas = {one.native: own_alphas.get(one.older, fields.lora_alpha) for one in factors}
    saved = fields.modules_to_save
    if saved:
        # Each is saved whole, with what lies within it.
        names = [f".{name}." for name in saved]
        saved = sorted({one.native for one in located if any(name in f".{one.older}." for name in names)})
    return replace(
        fields,
        target_modules=sorted(ranks),
        rank_pattern={module: rank for module, rank in sorted(ranks.items()) if rank != fields.r},
        alpha_pattern={module: alpha for module, alpha in sorted(alphas.items()) if alpha != fields.lora_alpha},
        modules_to_save=saved,
        # These only chose among the modules, and name them by the first implementation's words.
        exclude_modules=None,
        layers_to_transform=None,
        layers_pattern=None,
    )
