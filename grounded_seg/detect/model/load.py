"""A Florence-2 folder loaded strictly: every tensor is required, none may be left over, no code is run."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from transformers import Florence2ForConditionalGeneration, GenerationConfig

from grounded_seg.detect.configs.florence_fields import FlorenceFields, GenerationFields, florence_fields
from grounded_seg.detect.first_layout.checkpoint import add_own_tokens, read_older_model
from grounded_seg.detect.first_layout.layout import has_older_layout
from grounded_seg.detect.model.florence import AnswerRules, FlorenceModel
from grounded_seg.detect.model.pixels import PixelSettings, image_grid, load_pixel_settings
from grounded_seg.detect.model.tower import use_one_layout
from grounded_seg.detect.model.vocabulary import Vocabulary, load_tokenizer
from grounded_seg.device.versions import warn_of_untested
from grounded_seg.errors import WeightsError
from grounded_seg.weights.config_records import config_in, field_names, record_of, tell_left_out
from grounded_seg.weights.files import NATIVE_WEIGHT_FILES
from grounded_seg.weights.strict_loading import check_n_parameters, first_line, load_strictly, read_tensors

_LOG = logging.getLogger(__name__)

GENERATION_DEFAULTS: Mapping[str, Any] = {
    "bos_token_id": 0,
    "decoder_start_token_id": 2,
    "early_stopping": True,
    "eos_token_id": 2,
    "forced_bos_token_id": 0,
    "forced_eos_token_id": 2,
    "no_repeat_ngram_size": 3,
    "num_beams": 3,
    "pad_token_id": 1,
}
"""`generation_config.json` of every published Florence-2."""


@dataclass(frozen=True)
class Quantized:
    """How weights are quantized while they are loaded, by transformers' own configuration, and on which GPU."""

    config: Any
    device: torch.device


def load_florence(folder: Path, *, quantized: Quantized | None = None) -> FlorenceModel:
    """A Florence-2 in float32 on the CPU, or quantized on a GPU.

    The folder is as transformers' `save_pretrained` writes it: `config.json`, `model.safetensors` or the files that its
    index names, `tokenizer.json`, and if present `generation_config.json` and the image configuration; nothing else is
    read. Or it is one of the first implementation (`microsoft/Florence-2-*`), which is rewritten on the way.

    Raises:
        WeightsError: If a file is missing or damaged, the folder holds another model, or its tensors aren't exactly
            those that its configuration asks for.
    """
    tokenizer = load_tokenizer(folder)
    if has_older_layout(folder):
        add_own_tokens(tokenizer)
    vocabulary = Vocabulary(tokenizer)
    network = load_network(folder, dtype=torch.float32, quantized=quantized)
    rules, n_rows = _own_rules(network), network.config.text_config.vocab_size
    words = tokenizer.get_vocab(with_added_tokens=False).values()
    special = (vocabulary.bos_id, vocabulary.pad_id, vocabulary.eos_id, *vocabulary.location_ids)
    if max((*words, *special)) >= n_rows:
        raise WeightsError(f"the tokenizer in {folder} has more tokens than the model ({n_rows}); take the model's own")
    of_rules = (one for one in (rules.start_id, rules.forced_first_id, rules.forced_last_id) if one is not None)
    if max(of_rules, default=0) >= n_rows:
        raise WeightsError(f"generation_config.json in {folder} has tokens that the model lacks; take the model's own")
    use_one_layout(network.model.vision_tower)
    pixels = load_pixel_settings(folder)
    _check_grid(folder, network, pixels)
    return FlorenceModel(network.eval(), vocabulary, pixels, rules)


def load_network(
    folder: Path, *, dtype: torch.dtype | None = None, quantized: Quantized | None = None
) -> Florence2ForConditionalGeneration:
    """Only the network of a folder, with its own rules of generation; without a `dtype` in that of the file.

    A transformers that is newer than all that were tested gets a warning: its releases have changed Florence-2 before.
    """
    warn_of_untested("transformers")
    fields, tensors = read_older_model(folder) if has_older_layout(folder) else _read_native_model(folder)
    check_n_parameters(folder, "Florence-2", fields.n_parameters, tensors)
    if dtype is None:
        # The widest of the file's dtypes, so that no tensor loses bits.
        dtype = reduce(torch.promote_types, {tensor.dtype for tensor in tensors.values()} or {torch.float32})
    options: dict[str, Any] = {"dtype": dtype, "attn_implementation": "sdpa"}
    if quantized is not None:
        options |= {"quantization_config": quantized.config, "device_map": {"": quantized.device}}
    network: Florence2ForConditionalGeneration = load_strictly(
        Florence2ForConditionalGeneration, folder, "Florence-2", config=fields.config(), tensors=tensors, **options
    )
    network.generation_config, is_given = read_generation(folder)
    if not is_given:
        _LOG.warning("%s has no generation_config.json: using Florence-2's rules of generation.", folder)
    return network


def _read_native_model(folder: Path) -> tuple[FlorenceFields, dict[str, torch.Tensor]]:
    path = folder / "config.json"
    try:
        content = config_in(path)
        fields = florence_fields(content)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} isn't that of a Florence-2 ({first_line(error)})") from error
    tell_left_out(content, path, field_names(FlorenceFields))
    return fields, read_tensors(folder, NATIVE_WEIGHT_FILES)


def read_generation(folder: Path) -> tuple[GenerationConfig, bool]:
    """The rules of `generation_config.json`, or Florence-2's own where there is none; and whether there is one."""
    if not (folder / "generation_config.json").is_file():
        return GenerationConfig(**GENERATION_DEFAULTS), False
    try:
        return record_of(GenerationFields, config_in(folder / "generation_config.json")).config(), True
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder / 'generation_config.json'} can't be read ({first_line(error)})") from error


def _check_grid(folder: Path, network: Florence2ForConditionalGeneration, pixels: PixelSettings) -> None:
    """Refuse an image configuration whose images are too small or too large for the model."""
    most = network.config.vision_config.max_position_embeddings
    rows, columns = image_grid(network, pixels)
    if not (1 <= rows <= most and 1 <= columns <= most):
        raise WeightsError(
            f"{folder} resizes images to {pixels.width} x {pixels.height} px, which are {columns} x {rows} places in "
            f"the model; it has 1 to {most} each way. Copy the base model's image configuration"
        )


def _own_rules(network: Florence2ForConditionalGeneration) -> AnswerRules:
    """The rules of generation that belong to the model; the others are cleared off it.

    transformers fills every gap of an explicit configuration from the model's: above all `no_repeat_ngram_size`, which
    is 3 in published models and forbids a box that shares three numbers in a row with an earlier one.
    """
    own, text = network.generation_config, network.config.text_config
    network.generation_config = GenerationConfig()
    start = text.decoder_start_token_id if own.decoder_start_token_id is None else own.decoder_start_token_id
    if start is None:
        raise WeightsError("the model's configurations have no decoder_start_token_id; copy them from the base model")
    return AnswerRules(
        start_id=start,
        forced_first_id=own.forced_bos_token_id,
        forced_last_id=own.forced_eos_token_id,
        stop_beams_early=own.early_stopping or False,
        length_penalty=1.0 if own.length_penalty is None else own.length_penalty,
        space_before_labels=bool(getattr(network.config, "space_before_labels", False)),
    )
