"""LoRA adapters (arXiv 2106.09685) on a Florence-2, loaded strictly, and only onto their own base: the home of peft."""

import json
import logging
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from peft import PeftConfig, PeftModel, PeftType, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.checkpoint import named
from grounded_seg.errors import WeightsError
from grounded_seg.weights.locate import LocatedWeights

_LOG = logging.getLogger(__name__)

BASE_RECORD = "grounded_seg.json"
"""The file beside peft's own that says which base an adapter was trained on."""
_TIED_MODULES = frozenset({"lm_head", "shared", "embed_tokens"})
"""They are one matrix: tuning one name of it would change, or leave behind, the others."""


@dataclass(frozen=True)
class AdapterBase:
    """The model that an adapter was trained on."""

    id: str
    """Hub id, or the name that the folder was given by."""
    revision: str | None
    """Commit on the hub, where it came from there."""
    sha256: str
    """Of the weights, see `weights.hashes.sha256_of_weights`: what decides."""


def write_adapter_base(adapter: Path, base: LocatedWeights) -> None:
    """Record beside an adapter which base it was trained on, for `check_adapter_base`."""
    record = AdapterBase(id=base.name, revision=base.revision, sha256=base.sha256)
    (adapter / BASE_RECORD).write_text(json.dumps({"base": asdict(record)}, indent=2) + "\n", encoding="utf-8")


def check_adapter_base(adapter: Path, base: LocatedWeights, *, allow_mismatch: bool = False) -> None:
    """Refuse an adapter that says it was trained on other weights; warn in the log where it doesn't say.

    Args:
        adapter: A folder as peft writes it, with or without our record.
        base: The model it is about to be put on.
        allow_mismatch: Only warn of other weights.

    Raises:
        WeightsError: If it was trained on other weights, or its record is damaged.
    """
    path = adapter / BASE_RECORD
    if not path.is_file():
        _LOG.warning("The adapter %s doesn't say which base it was trained on; taking %s.", adapter, base.name)
        return
    try:
        trained_on = AdapterBase(**json.loads(path.read_text(encoding="utf-8"))["base"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}); delete it to load the adapter unchecked") from error
    if trained_on.sha256 == base.sha256:
        return
    commit = f" at {trained_on.revision}" if trained_on.revision else ""
    mismatch = f"the adapter {adapter} was trained on {trained_on.id}{commit}, and {base.name} has other weights"
    if not allow_mismatch:
        raise WeightsError(
            f"{mismatch}; give that base with --detector, or --allow-base-mismatch to try it all the same"
        )
    _LOG.warning("Going on although %s.", mismatch)


def attach_adapter(network: Florence2ForConditionalGeneration, adapter: Path) -> PeftModel:
    """Put a LoRA adapter on a network, its layers beside the network's own: `disable_adapter()` switches it off.

    Args:
        network: Changed in place; not to be used any more if this raises.
        adapter: A folder with `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        WeightsError: If a file is missing or damaged, the adapter isn't a LoRA, tunes the tied embeddings, or has a
            tensor without a place on the network, or the other way round.
    """
    tensors = _tensors(adapter)
    tied = sorted(key for key in tensors if _TIED_MODULES.intersection(key.split(".")))
    if tied:
        raise WeightsError(
            f"{adapter} tunes the word embeddings ({named(tied)}), which the model uses in three places at once; "
            "such adapters can't be loaded, train one without them"
        )
    try:
        config = PeftConfig.from_pretrained(str(adapter))
        if config.peft_type != PeftType.LORA:
            raise WeightsError(f"{adapter} is a {config.peft_type.value} adapter, only LoRA can be loaded")
        with warnings.catch_warnings():
            # peft asks a transformers model for a property by its old name, which is nobody's business at run time.
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
            model = PeftModel(network, config)
        _check_tensors(adapter, tensors, get_peft_model_state_dict(model, save_embedding_layers=False))
        set_peft_model_state_dict(model, tensors)
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{adapter} can't be put on this model ({str(error).partition(chr(10))[0]})") from error
    return model.eval()


def merge_adapter(network: Florence2ForConditionalGeneration, adapter: Path) -> Florence2ForConditionalGeneration:
    """Add a LoRA adapter to a network's weights: the same answers as beside it, at the speed of the bare network.

    Args:
        network: In float32, as the sum loses bits in less; changed in place.
        adapter: As for `attach_adapter`.

    Raises:
        WeightsError: As `attach_adapter` does, and if the sum isn't finite.
    """
    model = attach_adapter(network, adapter)
    try:
        return model.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise WeightsError(f"{adapter} can't be merged, its numbers are broken ({error})") from error


def _tensors(adapter: Path) -> dict[str, torch.Tensor]:
    path = adapter / "adapter_model.safetensors"
    if not path.is_file():
        raise WeightsError(f"{adapter} has no adapter_model.safetensors; other weight files are not read")
    # Without it peft would take the folder for the name of a repository, and ask the hub for it.
    if not (adapter / "adapter_config.json").is_file():
        raise WeightsError(f"{adapter} has no adapter_config.json; copy it from where the adapter was trained")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be read ({error})") from error


def _check_tensors(adapter: Path, found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Compare names and shapes: peft itself loads what fits and says nothing about the rest."""
    wrong = {
        "without a place on the model": sorted(found.keys() - expected.keys()),
        "missing": sorted(expected.keys() - found.keys()),
        "of another shape": sorted(k for k in found.keys() & expected.keys() if found[k].shape != expected[k].shape),
    }
    problems = [f"{len(keys)} {what}: {named(keys)}" for what, keys in wrong.items() if keys]
    if problems:
        raise WeightsError(f"{adapter} doesn't belong on this model. Tensors " + "; ".join(problems))
