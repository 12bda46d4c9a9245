"""LoRA adapters (arXiv 2106.09685) on a Florence-2, loaded strictly, and only onto their own base.

An adapter that was trained on Florence-2's first implementation is rewritten on the way, see `older_adapter`.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.first_layout.adapter import Adapter, is_older_adapter, native_adapter
from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.strict_loading import described, first_line, named

CONFIG_FILE, TENSORS_FILE = "adapter_config.json", ADAPTER_FILE
"""peft's own files."""
_INPUT_EMBEDDINGS = frozenset({"shared", "embed_tokens"})
"""Two names of one matrix, which encoder and decoder share: tuning one would leave the other behind."""
_HEAD = "lm_head"
_FROZEN_HEAD = "base_model.model.lm_head.base_layer.weight"
"""The base's own head, which peft puts into the file of an adapter that tunes the head, unasked."""


def attach_adapter(network: Florence2ForConditionalGeneration, adapter: Path) -> PeftModel:
    """Put a LoRA adapter on a network, its layers beside the network's own: `disable_adapter()` switches it off.

    Args:
        network: Changed in place; not to be used any more if this raises.
        adapter: A folder with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        WeightsError: If a file is missing or damaged, the adapter isn't a LoRA, tunes the words that encoder and
            decoder share, or has a tensor without a place on the network, or the other way round.
    """
    return attach_adapters(network, {"default": adapter})


def attach_adapters(network: Florence2ForConditionalGeneration, adapters: Mapping[str, Path]) -> PeftModel:
    """Put several LoRA adapters on one network; the first is switched on, `set_adapter(name)` chooses another.

    Args:
        network: Changed in place; not to be used any more if this raises. If an adapter tunes the head, the head is
            untied from the word embeddings, which it otherwise shares a matrix with.
        adapters: Each adapter's folder by the name to choose it by, without dots; at least one.

    Raises:
        UsageError: If a name has a dot, which peft can't have.
        WeightsError: As `attach_adapter` does.
    """
    model: PeftModel | None = None
    for name, folder in adapters.items():
        if "." in name:
            raise UsageError(f"the adapter's name {name!r} has a dot; give it another one")
        found = read_adapter(folder)
        if any(_HEAD in key.split(".") for key in found.tensors):
            untie_head(network)
            _drop_frozen_head(folder, found.tensors, network)
        try:
            with _quiet_peft():
                if model is None:
                    model = PeftModel(network, found.config, adapter_name=name)
                else:
                    model.add_adapter(name, found.config)
            own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
            _check_tensors(folder, found.tensors, own)
            set_peft_model_state_dict(model, found.tensors, adapter_name=name)
        except (ValueError, TypeError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{folder} can't be put on this model ({first_line(error)})") from error
    if model is None:
        raise UsageError("no adapter is named; name at least one")
    return model.eval()


def merge_adapter(network: Florence2ForConditionalGeneration, adapter: Path) -> Florence2ForConditionalGeneration:
    """Add a LoRA adapter to a network's weights: the same answers as beside it, at the speed of the bare network.

    Args:
        network: In float32, as the sum loses bits in less; changed in place.
        adapter: As for `attach_adapter`.

    Raises:
        WeightsError: As `attach_adapter` does, and if the sum isn't finite or peft can't merge such a layer.
    """
    model = attach_adapter(network, adapter)
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise WeightsError(f"{adapter} can't be merged, its numbers are broken ({error})") from error
    except NotImplementedError as error:
        raise WeightsError(f"{adapter} can't be merged, peft has no sum for one of its layers ({error})") from error


def read_adapter(folder: Path, *, rewrite: bool = True) -> Adapter:
    """Read a LoRA adapter's two files; nothing else in the folder is looked at.

    Args:
        folder: As peft writes it.
        rewrite: Rewrite an adapter of the first implementation for transformers' own.

    Raises:
        WeightsError: If a file is missing or damaged, the adapter isn't a LoRA, has tensors without a home in
            transformers' Florence-2, or tunes the words that encoder and decoder share.
    """
    tensors = _tensors(folder)
    # Without it peft would take the folder for the name of a repository, and ask the hub for it.
    if not (folder / CONFIG_FILE).is_file():
        raise WeightsError(f"{folder} has no {CONFIG_FILE}; copy it from where the adapter was trained")
    try:
        with _quiet_peft():
            config = PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{folder / CONFIG_FILE} can't be read ({first_line(error)})") from error
    if not isinstance(config, LoraConfig):
        raise WeightsError(f"{folder} is a {config.peft_type.value} adapter, only LoRA can be loaded")
    tied = sorted(key for key in tensors if _INPUT_EMBEDDINGS.intersection(key.split(".")))
    if tied:
        raise WeightsError(
            f"{folder} tunes the word embeddings ({named(tied)}), which the model uses in several places at once; "
            "such adapters can't be loaded, train one without them"
        )
    found = Adapter(config, tensors)
    return native_adapter(folder, found) if rewrite and is_older_adapter(tensors) else found


def _tensors(adapter: Path) -> dict[str, torch.Tensor]:
    path = adapter / TENSORS_FILE
    if not path.is_file():
        raise WeightsError(f"{adapter} has no {TENSORS_FILE}; other weight files are not read")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read ({error})") from error


def untie_head(network: Florence2ForConditionalGeneration) -> None:
    """Give the head a matrix of its own, so that tuning it leaves the words of encoder and decoder alone."""
    if network.lm_head.weight is network.get_input_embeddings().weight:
        network.lm_head.weight = torch.nn.Parameter(network.lm_head.weight.detach().clone())
    network.config.tie_word_embeddings = False


def _drop_frozen_head(
    adapter: Path, tensors: dict[str, torch.Tensor], network: Florence2ForConditionalGeneration
) -> None:
    head = tensors.pop(_FROZEN_HEAD, None)
    own = network.get_input_embeddings().weight.detach()
    # Stored in half the bits, it can only be as near as those are.
    if head is not None and (head.shape != own.shape or not torch.equal(own.to(head), head)):
        raise WeightsError(f"{adapter} was trained on a model with another head than this one; give it its own base")


def _check_tensors(adapter: Path, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare names and shapes: peft itself loads what fits and says nothing about the rest."""
    wrong = {
        "without a place on the model": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "of another shape": sorted(k for k in found.keys() & expected.keys() if found[k].shape != expected[k].shape),
    }
    problems = described(wrong)
    if problems:
        raise WeightsError(f"{adapter} doesn't belong on this model. Tensors " + "; ".join(problems))


@contextmanager
def _quiet_peft() -> Iterator[None]:
    """Silence what peft says about old configurations and transformers' old names, which is nobody's business here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
        warnings.filterwarnings("ignore", category=UserWarning, module="peft")
        yield
