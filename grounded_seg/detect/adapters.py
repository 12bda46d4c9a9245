"""LoRA adapters (arXiv 2106.09685) on a Florence-2, loaded strictly, and only onto their own base.

An adapter that was trained on Florence-2's first implementation is rewritten on the way, see `older_adapter`.
"""

import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.older_adapter import Adapter, is_older_adapter, native_adapter
from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.locate import LocatedWeights
from grounded_seg.weights.strict_loading import described, first_line, named

_LOG = logging.getLogger(__name__)

BASE_RECORD = "grounded_seg.json"
"""The file beside peft's own that says which base an adapter was trained on."""
CONFIG_FILE, TENSORS_FILE = "adapter_config.json", ADAPTER_FILE
"""peft's own files."""
_INPUT_EMBEDDINGS = frozenset({"shared", "embed_tokens"})
"""Two names of one matrix, which encoder and decoder share: tuning one would leave the other behind."""
_HEAD = "lm_head"
_FROZEN_HEAD = "base_model.model.lm_head.base_layer.weight"
"""The base's own head, which peft puts into the file of an adapter that tunes the head, unasked."""


@dataclass(frozen=True)
class AdapterBase:
    """The model that an adapter was trained on."""

    id: str
    """Hub id, or the name that the folder was given by."""
    revision: str | None
    """Commit on the hub, where it came from there."""
    sha256: str
    """Of the weights, see `weights.hashes.sha256_of_weights`: what decides."""


def write_adapter_base(adapter: Path, base: LocatedWeights, facts: Mapping[str, Any] | None = None) -> None:
    """Record beside tuned weights which base they were trained on, for `check_adapter_base`.

    Args:
        adapter: The folder.
        base: What was trained on.
        facts: What else is to be known: `image_size` is read by `trained_image_size`, the rest is for people.
    """
    record = AdapterBase(id=base.name, revision=base.revision, sha256=base.sha256)
    content = {"base": asdict(record), **(facts or {})}
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    (adapter / BASE_RECORD).write_text(text, encoding="utf-8")


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


def trained_image_size(folder: Path) -> int | None:
    """Read from our record beside tuned weights which square their images were squeezed to, in pixels; None for none.

    Raises:
        WeightsError: If the record is damaged.
    """
    path = folder / BASE_RECORD
    if not path.is_file():
        return None
    try:
        side = json.loads(path.read_text(encoding="utf-8")).get("image_size")
        return None if side is None else int(side)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} is damaged ({error!r}); copy it from where the weights were trained") from error


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
            _untie_head(network)
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


def _untie_head(network: Florence2ForConditionalGeneration) -> None:
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
