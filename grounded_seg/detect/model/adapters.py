"""LoRA adapters (arXiv 2106.09685) on a Florence-2, loaded strictly: one, merged, or several to choose from.

An adapter that was trained on Florence-2's first implementation is rewritten on the way, see `first_layout.adapter`.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from grounded_seg.detect.configs.adapter_fields import AdapterFields, read_adapter_fields, unknown_settings, values_of
from grounded_seg.detect.first_layout.adapter import native_adapter
from grounded_seg.detect.first_layout.layout import ADAPTER_CONFIG, is_older_adapter
from grounded_seg.detect.model.lora import merge_plain_lora
from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.strict_loading import first_line, misfits, named, read_tensor_file

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import Florence2ForConditionalGeneration

_LOG = logging.getLogger(__name__)

_FEW_NUMBERS = 50_000_000
"""Of an adapter, 200 MB; less is made without a question."""
_INPUT_EMBEDDINGS = frozenset({"shared", "embed_tokens"})
"""Two names of one matrix, which encoder and decoder share."""
_HEAD = "lm_head"
_FROZEN_HEAD = "base_model.model.lm_head.base_layer.weight"
"""The base's own head, which peft puts into the file of an adapter that tunes the head, unasked."""


@dataclass(frozen=True, eq=False)
class Adapter:
    """What an adapter's two files hold, in transformers' words."""

    fields: AdapterFields
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class NamedAdapters:
    """Several adapters beside one network's weights, of which each call uses one, or none."""

    model: "PeftModel"
    image_sides: Mapping[str, int | None]
    """Side of the square that each adapter's training images were resized to; None if they weren't."""


def attach_adapter(network: "Florence2ForConditionalGeneration", adapter: Path) -> "PeftModel":
    """A network with a LoRA adapter's layers beside its own: `disable_adapter()` switches them off."""
    return attach_adapters(network, {"default": adapter})


def attach_adapters(network: "Florence2ForConditionalGeneration", adapters: Mapping[str, Path]) -> "PeftModel":
    """A network with several LoRA adapters; the first is switched on, `set_adapter(name)` chooses another.

    The network is changed in place, and not to be used any more if this raises. If an adapter tunes the head, the head
    is untied from the word embeddings, whose matrix it shares. `adapters` are folders by names without a dot, at least
    one; those that don't fit the network are a `WeightsError`.
    """
    # peft takes about a second to import, and most adapters are merged without it.
    from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict

    # Of the bare network: peft puts its own modules between.
    paths = [path for path, _ in network.named_modules(remove_duplicate=False)]
    model: PeftModel | None = None
    for name, folder in adapters.items():
        if "." in name:
            raise UsageError(f"the adapter's name {name!r} has a dot; give it another one")
        found = read_adapter(folder)
        if any(_HEAD in key.split(".") for key in found.tensors):
            untie_head(network)
            _drop_frozen_head(folder, found.tensors, network)
        try:
            _check_size(folder, found, network)
            with _quiet_peft():
                config = found.fields.lora_config(paths)
                if model is None:
                    model = PeftModel(network, config, adapter_name=name)
                else:
                    model.add_adapter(name, config)
            # peft itself loads what fits and says nothing about the rest.
            own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
            problems = misfits(found.tensors, own)
            if problems:
                raise WeightsError(f"{folder} doesn't belong on this model. Tensors {'; '.join(problems)}")
            set_peft_model_state_dict(model, found.tensors, adapter_name=name)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{folder} can't be put on this model ({first_line(error)})") from error
    if model is None:
        raise UsageError("no adapter is named; name at least one")
    return model.eval()


def merge_adapter(network: "Florence2ForConditionalGeneration", adapter: Path) -> "Florence2ForConditionalGeneration":
    """A network with a LoRA adapter added to its weights: as fast as the bare network.

    The network is changed in place; it must be in float32, as the sum loses bits in less. peft is imported only where
    the adapter isn't a plain LoRA. Beside what `attach_adapters` refuses, a sum that isn't finite or that peft can't
    compute is a `WeightsError`.
    """
    if merge_plain_lora(network, adapter):
        return network
    model = attach_adapter(network, adapter)
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise WeightsError(f"{adapter} can't be merged ({error}); take another checkpoint of its training") from error
    except NotImplementedError as error:
        raise WeightsError(f"{adapter} can't be merged, peft has no sum for one of its layers ({error})") from error


def read_adapter(folder: Path) -> Adapter:
    """A LoRA adapter's two files, as peft writes them; nothing else in the folder is looked at.

    A `WeightsError` also if it has tensors that transformers' Florence-2 doesn't have, or tunes the word embeddings.
    """
    if not (folder / ADAPTER_FILE).is_file():
        raise WeightsError(f"{folder} has no {ADAPTER_FILE}; other weight files are not read")
    tensors = read_tensor_file(folder / ADAPTER_FILE)
    # Without it peft would take the folder for the name of a repository, and ask the hub for it.
    if not (folder / ADAPTER_CONFIG).is_file():
        raise WeightsError(f"{folder} has no {ADAPTER_CONFIG}; copy it from where the adapter was trained")
    fields = read_adapter_fields(folder / ADAPTER_CONFIG)
    if unknown := unknown_settings(folder / ADAPTER_CONFIG):
        _LOG.warning("%s: %s is not known here, and was left out.", folder / ADAPTER_CONFIG, ", ".join(unknown))
    tied = sorted(key for key in tensors if _INPUT_EMBEDDINGS.intersection(key.split(".")))
    if tied:
        raise WeightsError(
            f"{folder} tunes the word embeddings ({named(tied)}), which the model uses in several layers at once; "
            "such adapters can't be loaded, train one without them"
        )
    if is_older_adapter(tensors):
        return Adapter(*native_adapter(folder, fields, tensors))
    return Adapter(fields, tensors)


def _check_size(folder: Path, found: Adapter, network: torch.nn.Module) -> None:
    """Refuse settings that would have peft make far more numbers than the file holds, which may fill the memory."""
    modules = dict(network.named_modules(remove_duplicate=False))
    fields = found.fields
    paths = list(modules) if fields.targets_all else fields.targets_among(modules)
    ranks = values_of(fields.rank_pattern, paths)
    n_needed = 0.0
    for path in paths:
        weight = getattr(modules[path], "weight", None)
        if isinstance(weight, torch.Tensor) and weight.dim() > 1:
            n_needed += ranks.get(path, fields.r) * (weight.shape[0] + weight[0].numel())
    saved = tuple(f".{name}" for name in fields.modules_to_save or ())
    for path, module in modules.items():
        if saved and f".{path}".endswith(saved):
            n_needed += sum(one.numel() for one in module.parameters())
    n_here = sum(tensor.numel() for tensor in found.tensors.values())
    if n_needed > max(4 * n_here, _FEW_NUMBERS):
        raise WeightsError(
            f"{folder} doesn't fit itself: {ADAPTER_CONFIG} asks for {n_needed:.2g} numbers, {ADAPTER_FILE} has "
            f"{n_here:.2g}; copy both files again"
        )


def untie_head(network: "Florence2ForConditionalGeneration") -> None:
    """Give the head a matrix of its own, so that tuning it leaves the word embeddings alone."""
    if network.lm_head.weight is network.get_input_embeddings().weight:
        network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone())
    network.config.tie_word_embeddings = False


def _drop_frozen_head(
    adapter: Path, tensors: dict[str, torch.Tensor], network: "Florence2ForConditionalGeneration"
) -> None:
    head = tensors.pop(_FROZEN_HEAD, None)
    own = network.get_input_embeddings().weight.detach()
    # Stored in half the bits, it can only be as near as those are.
    if head is not None and (head.shape != own.shape or not torch.equal(own.to(head), head)):
        raise WeightsError(f"{adapter} was trained on a model with another head than this one; give it its own base")


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """No warnings from peft about old configurations and transformers' old names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield
