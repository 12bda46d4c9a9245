"""A plain LoRA adapter (arXiv 2106.09685) added to a network's weights without peft.

peft has dozens of kinds of adapters, and takes about a second to import. The usual kind needs two tensors and a product
for each tuned layer: weight + B A * alpha / rank. Only what is certainly that is merged here; anything else, and
anything that doesn't fit, is left to peft, which merges or refuses it.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from grounded_seg.detect.first_layout.layout import ADAPTER_CONFIG, PREFIX, is_older_adapter
from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.strict_loading import misfits, read_tensor_file

_OWN_KEYS = frozenset({"r", "lora_alpha", "target_modules"})
_UNUSED_KEYS = frozenset(
    {
        *("auto_mapping", "base_model_name_or_path", "inference_mode", "lora_dropout", "peft_version", "revision"),
        *("task_type", "megatron_core", "qalora_group_size"),
    }
)
"""Settings of peft that a merged plain LoRA doesn't depend on, whatever they are."""
_PLAIN_VALUES: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "peft_type": ("LORA",),
    # The others change the base's own weights.
    "init_lora_weights": (True, False, "gaussian"),
}
_HEAD = "lm_head"
"""Shares its matrix with the word embeddings."""


@dataclass(frozen=True, eq=False)
class _Tuned:
    """A layer with the two factors of its change."""

    layer: nn.Linear
    lora_a: torch.Tensor
    """(rank, inputs)."""
    lora_b: torch.Tensor
    """(outputs, rank)."""


@torch.no_grad()
def merge_plain_lora(network: nn.Module, adapter: Path) -> bool:
    """Add an adapter's changes to the weights of a network, which then need no gradients; False if it isn't plain.

    Plain is an adapter for transformers' own layout whose configuration has a rank, an alpha and target modules, and
    every other setting off; each target a linear layer in float32 on the CPU, but not the head; and exactly their
    tensors in its file. Otherwise nothing is changed. The sums are peft's own, to the last bit.

    Raises:
        WeightsError: If the file can't be read, or a sum isn't finite; some weights may be changed by then.
    """
    settings = _plain_settings(adapter / ADAPTER_CONFIG)
    if settings is None or not (adapter / ADAPTER_FILE).is_file():
        return False
    tensors = read_tensor_file(adapter / ADAPTER_FILE)
    rank, alpha, is_target = settings
    tuned = None if is_older_adapter(tensors) else _tuned_layers(network, tensors, rank, is_target)
    if tuned is None:
        return False
    for one in tuned:
        change = one.lora_b.float() @ one.lora_a.float() * (alpha / rank)
        merged = one.layer.weight + change
        if not torch.isfinite(merged).all():
            raise WeightsError(
                f"{adapter} can't be merged (its numbers are broken: a sum with the weights isn't finite); "
                "take another checkpoint of its training"
            )
        one.layer.weight.data = merged
    network.requires_grad_(False)
    return True


def _plain_settings(path: Path) -> tuple[int, float, Callable[[str], bool]] | None:
    """Rank, alpha, and whether the module of a path is a target; None where `adapter_config.json` asks for more."""
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        return None
    others = config.keys() - _OWN_KEYS - _UNUSED_KEYS
    if any(config[key] not in _PLAIN_VALUES[key] if key in _PLAIN_VALUES else config[key] for key in others):
        return None
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if not (isinstance(rank, int) and rank > 0 and isinstance(alpha, int | float)):
        return None
    is_target = _target_test(targets)
    return None if is_target is None else (rank, alpha, is_target)


def _target_test(targets: Any) -> Callable[[str], bool] | None:
    """Whether the path of a module is named, as peft reads names: a pattern for the whole path, or a list of ends."""
    if isinstance(targets, list) and all(isinstance(name, str) for name in targets):
        return lambda path: any(path == name or path.endswith(f".{name}") for name in targets)
    try:
        pattern = re.compile(targets)
    except (TypeError, re.error):
        return None
    return lambda path: pattern.fullmatch(path) is not None


def _tuned_layers(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], rank: int, is_target: Callable[[str], bool]
) -> Iterator[_Tuned] | None:
    """The targets with their tensors; None where one isn't a layer that is merged here, or a tensor doesn't fit."""
    targets: dict[str, nn.Linear] = {}
    for path, one in network.named_modules(remove_duplicate=False):
        if is_target(path):
            if not isinstance(one, nn.Linear) or not _can_be_merged(path, one):
                return None
            targets[path] = one
    if not targets:
        return None
    names = {path: [f"{PREFIX}{path}.lora_{part}.weight" for part in "AB"] for path in targets}
    expected: dict[str, torch.Tensor] = {}
    for path, layer in targets.items():
        outputs, inputs = layer.weight.shape
        shapes = ((rank, inputs), (outputs, rank))
        expected |= {name: torch.empty(shape, device="meta") for name, shape in zip(names[path], shapes, strict=True)}
    if misfits(tensors, expected):
        return None
    return (_Tuned(layer, tensors[names[path][0]], tensors[names[path][1]]) for path, layer in targets.items())


def _can_be_merged(path: str, layer: nn.Linear) -> bool:
    """Whether peft would put a plain linear layer's LoRA there, that is, of exactly this class."""
    is_linear = type(layer) is nn.Linear and path.rpartition(".")[2] != _HEAD
    return is_linear and layer.weight.dtype is torch.float32 and layer.weight.device.type == "cpu"
