"""Load a native Florence-2 folder, strictly: every tensor has to be there, none may be left over, no code is run."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from transformers import Florence2ForConditionalGeneration, GenerationConfig
from transformers.utils import logging as transformers_logging

from grounded_seg.detect.florence import AnswerRules, FlorenceModel
from grounded_seg.detect.pixels import load_pixel_settings
from grounded_seg.detect.vocabulary import Vocabulary, load_vocabulary
from grounded_seg.errors import WeightsError

_N_KEYS_NAMED = 3
"""Keys that an error message names before it only counts the rest."""


def load_florence(folder: Path, *, attention: Literal["sdpa", "eager"] = "sdpa") -> FlorenceModel:
    """Load a native Florence-2 in float32 on the CPU.

    Reads `config.json`, the `.safetensors`, `tokenizer.json`, and where they are there `generation_config.json` and the
    image configuration. Nothing else in the folder is looked at.

    Args:
        folder: As transformers' `save_pretrained` writes it.
        attention: transformers' implementation of it; eager is the reference, and faster for training on a CPU.

    Raises:
        WeightsError: If a file is missing or damaged, the folder holds another model or Florence-2's older layout, or
            its tensors aren't exactly those that its configuration asks for.
    """
    _check_layout(folder)
    vocabulary = load_vocabulary(folder)
    try:
        with _quiet_transformers():
            network, report = Florence2ForConditionalGeneration.from_pretrained(
                folder,
                dtype=torch.float32,
                attn_implementation=attention,
                use_safetensors=True,
                local_files_only=True,
                trust_remote_code=False,
                # Reported with the missing ones instead of as a page of text.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError, SafetensorError) as error:
        raise WeightsError(f"{folder} can't be loaded as Florence-2 ({_first_line(error)})") from error
    _check_report(folder, report)
    _check_fits(folder, network, vocabulary)
    return FlorenceModel(network.eval(), vocabulary, load_pixel_settings(folder), _own_rules(network))


def _check_layout(folder: Path) -> None:
    """Refuse other models by name before transformers tries to make sense of them."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        vision = config["vision_config"]
        is_older = "dim_embed" in vision or vision.get("model_type") == "davit"
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read ({_first_line(error)}); name the folder of a Florence-2") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} isn't the configuration of a Florence-2; name another folder") from error
    if config.get("model_type") != "florence2":
        raise WeightsError(f"{folder} holds a {config.get('model_type')!r}, not a Florence-2; name another folder")
    if is_older:
        raise WeightsError(
            f"{folder} is in the older layout of microsoft/Florence-2-*, which can't be read yet; "
            "take the same model from florence-community/Florence-2-*"
        )
    if not any(folder.glob("*.safetensors")):
        raise WeightsError(f"{folder} has no .safetensors file; other weight files are not read, they can hold code")


def _check_report(folder: Path, report: dict[str, Any]) -> None:
    """Refuse a model of which any part would be random, or any weight unused."""
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(key for key, *_ in report["mismatched_keys"]),
    }
    found = [f"{len(keys)} {what}: {named(keys)}" for what, keys in wrong.items() if keys]
    found += [_first_line(RuntimeError(message)) for message in report["error_msgs"]]
    if found:
        raise WeightsError(f"{folder} isn't the Florence-2 that its config.json describes. Tensors " + "; ".join(found))


def named(keys: list[str]) -> str:
    """List the first few keys for an error message."""
    more = f" and {len(keys) - _N_KEYS_NAMED} more" if len(keys) > _N_KEYS_NAMED else ""
    return ", ".join(keys[:_N_KEYS_NAMED]) + more


def _check_fits(folder: Path, network: Florence2ForConditionalGeneration, vocabulary: Vocabulary) -> None:
    n_rows = network.config.text_config.vocab_size
    if max(vocabulary.location_ids) >= n_rows:
        raise WeightsError(f"the tokenizer in {folder} has more tokens than the model ({n_rows}); take the model's own")


def _own_rules(network: Florence2ForConditionalGeneration) -> AnswerRules:
    """Take over those rules of generation that belong to the model, and clear the rest off it.

    transformers fills every gap of an explicit configuration from the model's, so what stays there would be obeyed:
    above all `no_repeat_ngram_size`, which is 3 in published models and forbids a box that shares three numbers in a
    row with an earlier one.
    """
    own, text = network.generation_config, network.config.text_config
    network.generation_config = GenerationConfig()
    start = own.decoder_start_token_id
    return AnswerRules(
        start_id=text.decoder_start_token_id if start is None else start,
        forced_first_id=own.forced_bos_token_id,
        forced_last_id=own.forced_eos_token_id,
        stop_beams_early=own.early_stopping or False,
        length_penalty=1.0 if own.length_penalty is None else own.length_penalty,
    )


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Silence transformers' loading bar and its table of keys: what is wrong becomes our own error."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
