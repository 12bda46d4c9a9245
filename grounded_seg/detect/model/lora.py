"""A plain LoRA adapter (arXiv 2106.09685) added to a network's weights without peft.

peft has dozens of kinds of adapters, and takes about a second to import. The usual kind needs two tensors and a product
for each tuned layer: weight + B A * alpha / rank. Only what is certainly that is merged here; anything else, and
anything that doesn't fit, is left to peft, which merges or refuses it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from grounded_seg.detect.configs.adapter_fields import AdapterFields, read_adapter_fields, unknown_settings
from grounded_seg.detect.first_layout.layout import ADAPTER_CONFIG, PREFIX, is_older_adapter
from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.strict_loading import misfits, read_tensor_file

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
    settings = _plain_fields(adapter / ADAPTER_CONFIG)
    if settings is None or not (adapter / ADAPTER_FILE).is_file():
        return False
    tensors = read_tensor_file(adapter / ADAPTER_FILE)
    tuned = None if is_older_adapter(tensors) else _tuned_layers(network, tensors, settings)
    if tuned is None:
        return False
    for one in tuned:
        change = one.lora_b.float() @ one.lora_a.float() * (settings.lora_alpha / settings.r)
        merged = one.layer.weight + change
        if not torch.isfinite(merged).all():
            raise WeightsError(
                f"{adapter} can't be merged (its numbers are broken: a sum with the weights isn't finite); "
                "take another checkpoint of its training"
            )
        one.layer.weight.data = merged
    network.requires_grad_(False)
    return True


def _plain_fields(path: Path) -> AdapterFields | None:
    """The settings of a plain LoRA; None where `adapter_config.json` asks for more, or can't be read."""
    try:
        found = read_adapter_fields(path)
    except WeightsError:
        return None
    return found if found.is_plain and not unknown_settings(path) else None


def _tuned_layers(
    network: nn.Module, tensors: Mapping[str, torch.Tensor], settings: AdapterFields
) -> Iterator[_Tuned] | None:
    """The targets with their tensors; None where one isn't a layer that is merged here, or a tensor doesn't fit."""
    modules = dict(network.named_modules(remove_duplicate=False))
    try:
        named = settings.targets_among(modules)
    except ValueError:
        return None
    targets: dict[str, nn.Linear] = {}
    for path in named:
        one = modules[path]
        if not isinstance(one, nn.Linear) or not _can_be_merged(path, one):
            return None
        targets[path] = one
    if not targets:
        return None
    rank = settings.r
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
