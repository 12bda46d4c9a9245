"""Tokenizer and image configuration of an older folder, written for transformers' own processor."""

import logging
import math
from pathlib import Path

from tokenizers import Tokenizer
from transformers import BartTokenizer, CLIPImageProcessor, Florence2ForConditionalGeneration, Florence2Processor

from grounded_seg.detect.answer.grammar import GROUNDING_FILLERS
from grounded_seg.detect.first_layout.checkpoint import add_own_tokens
from grounded_seg.detect.model.pixels import image_grid, load_pixel_settings
from grounded_seg.detect.model.vocabulary import TOKENIZER_FILE, load_tokenizer
from grounded_seg.errors import WeightsError

_LOG = logging.getLogger(__name__)

_PARSES = (
    *("pure_text", "ocr", "phrase_grounding", "bboxes", "polygons", "description_with_bboxes"),
    *("description_with_polygons", "description_with_bboxes_or_polygons"),
)
"""The forms of answers as transformers' processor calls them; it reads only those that its configuration lists."""


def write_processor(network: Florence2ForConditionalGeneration, source: Path, folder: Path) -> None:
    """Write tokenizer and image configuration so that transformers' own processor can be loaded.

    transformers marks where the image stands by a token, which the first implementation doesn't have. One that no
    prompt holds stands in: another row in the vocabulary would change every probability a little. The network's
    configuration names it then.
    """
    pixels = load_pixel_settings(source)
    size = {"height": pixels.height, "width": pixels.width}
    images = CLIPImageProcessor(
        size=size,
        crop_size=size,
        do_center_crop=False,
        image_mean=list(pixels.mean),
        image_std=list(pixels.deviation),
        # One for each patch of the last stage, and their mean.
        image_seq_length=1 + math.prod(image_grid(network, pixels)),
    )
    if not (source / TOKENIZER_FILE).is_file():
        _LOG.warning(
            "%s has no %s: copy that of any Florence-2 into the new folder before you use it.", source, TOKENIZER_FILE
        )
        images.save_pretrained(folder)
        return
    backend = load_tokenizer(source)
    add_own_tokens(backend)
    image_token = _image_token(source, backend, network.config.text_config.vocab_size)
    network.config.image_token_id = backend.token_to_id(image_token)
    tokenizer = BartTokenizer(
        tokenizer_object=backend,
        extra_special_tokens={"image_token": image_token},
        model_max_length=network.config.text_config.max_position_embeddings,
    )
    answers: dict[str, dict[str, list[str]]] = {name: {} for name in _PARSES}
    answers["phrase_grounding"]["banned_grounding_tokens"] = sorted(GROUNDING_FILLERS)
    Florence2Processor(images, tokenizer, post_processor_config=answers).save_pretrained(folder)
    # transformers writes a tokenizer of its own making; the model's own is the one that its words were counted with.
    backend.save(str(folder / TOKENIZER_FILE))


def _image_token(source: Path, tokenizer: Tokenizer, n_rows: int) -> str:
    for token in ("<image>", "<mask>"):
        token_id = tokenizer.token_to_id(token)
        if token_id is not None and token_id < n_rows:
            return token
    raise WeightsError(f"{source / TOKENIZER_FILE} has neither <image> nor <mask>; take Florence-2's own")
