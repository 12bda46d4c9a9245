"""Load a Florence-2 folder, strictly: every tensor has to be there, none may be left over, no code is run."""

import json
import logging
from functools import reduce
from pathlib import Path
from typing import Literal

import torch
from transformers import Florence2Config, Florence2ForConditionalGeneration, GenerationConfig

from grounded_seg.detect.first_layout.checkpoint import (
    StoredModel,
    is_older_config,
    older_generation,
    read_older_model,
    read_tensors,
)
from grounded_seg.detect.model.florence import AnswerRules, FlorenceModel
from grounded_seg.detect.model.pixels import load_pixel_settings
from grounded_seg.detect.model.vocabulary import Vocabulary, load_vocabulary
from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import NATIVE_WEIGHT_FILES
from grounded_seg.weights.strict_loading import check_report, first_line, quiet_transformers

_LOG = logging.getLogger(__name__)

Attention = Literal["sdpa", "eager"]
"""transformers' implementation of it; eager is the reference, and faster for training on a CPU."""


def load_florence(folder: Path, *, attention: Attention = "sdpa") -> FlorenceModel:
    """Load a Florence-2 in float32 on the CPU.

    Of a native folder, as transformers' `save_pretrained` writes it, this reads `config.json`, `model.safetensors` or
    the files that its index names, `tokenizer.json`, and where they are there `generation_config.json` and the image
    configuration. A folder of the first implementation (`microsoft/Florence-2-*`) is rewritten on the way, see
    `older_layout`. Nothing else in the folder is looked at.

    Args:
        folder: In either layout.
        attention: How attention is computed.

    Raises:
        WeightsError: If a file is missing or damaged, the folder holds another model, or its tensors aren't exactly
            those that its configuration asks for.
    """
    is_older = has_older_layout(folder)
    vocabulary = load_vocabulary(folder, add_missing=is_older)
    network = load_network(folder, dtype=torch.float32, attention=attention)
    _check_fits(folder, network, vocabulary)
    return FlorenceModel(network.eval(), vocabulary, load_pixel_settings(folder), _own_rules(network))


def load_network(
    folder: Path, *, dtype: torch.dtype | None = None, attention: Attention = "sdpa"
) -> Florence2ForConditionalGeneration:
    """Load only the network of a folder, in either layout, with its own rules of generation.

    Args:
        folder: As for `load_florence`.
        dtype: Number format of the weights; None for the file's own.
        attention: How attention is computed.

    Raises:
        WeightsError: As `load_florence` does.
    """
    stored = read_older_model(folder) if has_older_layout(folder) else _read_native_model(folder)
    # Without a wish, the widest of the file's formats, so that no tensor loses bits.
    formats = {tensor.dtype for tensor in stored.tensors.values()} or {torch.float32}
    dtype = dtype or reduce(torch.promote_types, formats)
    try:
        with quiet_transformers():
            # Given a folder, transformers would also load an adapter that lies in it, unasked and unchecked.
            network, report = Florence2ForConditionalGeneration.from_pretrained(
                None,
                config=stored.config,
                state_dict=stored.tensors,
                dtype=dtype,
                attn_implementation=attention,
                # Reported with the missing ones instead of as a page of text.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{folder} can't be loaded as Florence-2 ({first_line(error)})") from error
    check_report(folder, "Florence-2", report)
    network.generation_config, is_given = older_generation(folder)
    if not is_given:
        _LOG.warning("%s has no generation_config.json: taking Florence-2's rules of generation.", folder)
    return network


def _read_native_model(folder: Path) -> StoredModel:
    try:
        config = Florence2Config.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise WeightsError(f"{folder / 'config.json'} isn't that of a Florence-2 ({first_line(error)})") from error
    return StoredModel(config, read_tensors(folder, NATIVE_WEIGHT_FILES))


def has_older_layout(folder: Path) -> bool:
    """Tell the first implementation's layout from transformers' by `config.json`.

    Raises:
        WeightsError: If the folder holds no Florence-2 of either kind.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        is_older = is_older_config(config)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} can't be read ({first_line(error)}); name the folder of a Florence-2") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"{path} isn't the configuration of a Florence-2; name another folder") from error
    if config.get("model_type") != "florence2":
        raise WeightsError(f"{folder} holds a {config.get('model_type')!r}, not a Florence-2; name another folder")
    return is_older


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
        space_before_labels=bool(getattr(network.config, "space_before_labels", False)),
    )
