"""Write Florence-2 as transformers' own folders are: from the first layout, or with a LoRA adapter merged."""

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from transformers import BartTokenizer, CLIPImageProcessor, Florence2ForConditionalGeneration, Florence2Processor

from grounded_seg.detect.answer.grammar import GROUNDING_FILLERS
from grounded_seg.detect.first_layout.adapter import is_older_adapter
from grounded_seg.detect.first_layout.checkpoint import older_generation
from grounded_seg.detect.model.adapters import CONFIG_FILE, TENSORS_FILE, merge_adapter, read_adapter
from grounded_seg.detect.model.load import has_older_layout, load_network
from grounded_seg.detect.model.pixels import PixelSettings, load_pixel_settings
from grounded_seg.detect.model.record import BASE_RECORD
from grounded_seg.detect.model.vocabulary import TOKENIZER_FILE, load_tokenizer
from grounded_seg.errors import OutputError, UsageError, WeightsError
from grounded_seg.weights.strict_loading import quiet_transformers

_LOG = logging.getLogger(__name__)

_PROCESSOR_FILES = (
    *(TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json", "chat_template.jinja"),
)
"""What transformers' processor is read from, beside the weights and their configuration."""
_GENERATION_FILE = "generation_config.json"
_PARSES = (
    *("pure_text", "ocr", "phrase_grounding", "bboxes", "polygons", "description_with_bboxes"),
    *("description_with_polygons", "description_with_bboxes_or_polygons"),
)
"""The forms of answers as transformers' processor calls them; it reads only those that its configuration lists."""


def convert(source: Path, destination: Path) -> None:
    """Rewrite a model's or an adapter's folder of the first implementation as a native one.

    What a model's folder lacks is filled with Florence-2's defaults, and the log says so; a missing tokenizer can't
    be, and is left out. An adapter needs no base for this.

    Args:
        source: A folder in the older layout.
        destination: Not there yet, or empty.

    Raises:
        UsageError: If the source is native already, or the destination is in use.
        WeightsError: If the source is incomplete or damaged.
        OutputError: If the destination can't be written.
    """
    if (source / CONFIG_FILE).is_file():
        _convert_adapter(source, destination)
    else:
        _convert_model(source, destination)


def _convert_adapter(source: Path, destination: Path) -> None:
    if not is_older_adapter(read_adapter(source, rewrite=False).tensors):
        raise UsageError(f"{source} is an adapter for the native layout already; use it as it is")
    with new_folder(destination) as folder:
        adapter = read_adapter(source)
        adapter.config.save_pretrained(str(folder))
        save_file(adapter.tensors, folder / TENSORS_FILE, metadata={"format": "pt"})


def _convert_model(source: Path, destination: Path) -> None:
    """Keep the numbers as they are, in the format they are stored in; fill what else is missing with defaults."""
    if not has_older_layout(source):
        raise UsageError(f"{source} is in the native layout already; use it as it is")
    with new_folder(destination) as folder:
        network = load_network(source)
        _write_processor(network, source, folder)
        _save_network(network, folder)


def merge_model(base: Path, adapter: Path, destination: Path) -> None:
    """Write a model with a LoRA adapter added to its weights, in float32, as the sum loses bits in less.

    Args:
        base: A Florence-2 in either layout.
        adapter: A LoRA adapter's folder, trained on either layout.
        destination: Not there yet, or empty.

    Raises:
        UsageError: If the destination is in use.
        WeightsError: If the base or the adapter is incomplete or damaged, or they don't belong together.
        OutputError: If the destination can't be written.
    """
    with new_folder(destination) as folder:
        network = merge_adapter(load_network(base, dtype=torch.float32), adapter)
        if (adapter / BASE_RECORD).is_file():
            # It says how the images were prepared.
            shutil.copyfile(adapter / BASE_RECORD, folder / BASE_RECORD)
        save_with_processor(network, base, folder)


def save_with_processor(network: Florence2ForConditionalGeneration, base: Path, folder: Path) -> None:
    """Write changed weights as a native folder, with all that isn't weights as their base has it.

    Args:
        network: Loaded from `base`.
        base: A Florence-2 in either layout: its tokenizer, image configuration and rules of generation are taken.
        folder: Has to be there.

    Raises:
        WeightsError: If the base's tokenizer or rules are damaged.
        OSError: If it can't be written.
    """
    is_older = has_older_layout(base)
    if is_older:
        _write_processor(network, base, folder)
    _save_network(network, folder)
    if is_older:
        older_generation(base)[0].save_pretrained(folder)
        return
    for name in (*_PROCESSOR_FILES, _GENERATION_FILE):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


@contextmanager
def new_folder(destination: Path) -> Iterator[Path]:
    """Give a folder to write into that gets its name once everything is in it; after an error nothing is left.

    Raises:
        UsageError: If there is something at the destination already.
        OutputError: If it can't be written.
    """
    try:
        if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
            raise UsageError(f"{destination} is there already and not an empty folder; name a new one")
        destination.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=destination.parent, prefix=f".{destination.name}.") as temporary:
            # A folder of its own, as the temporary one is only for its user to read.
            folder = Path(temporary) / "whole"
            folder.mkdir()
            yield folder
            # safetensors writes files that only their owner can read.
            for weights in folder.glob("*.safetensors"):
                shutil.copymode(next(folder.glob("*config.json")), weights)
            folder.replace(destination)
    except OSError as error:
        raise OutputError(f"{destination} can't be written ({error.strerror or error}); name another folder") from error


def _save_network(network: Florence2ForConditionalGeneration, folder: Path) -> None:
    with quiet_transformers():
        network.save_pretrained(folder)


def _write_processor(network: Florence2ForConditionalGeneration, source: Path, folder: Path) -> None:
    """Write the tokenizer and the image configuration so that transformers' own processor can be loaded.

    transformers marks the places of the image by a token, which the first implementation doesn't have. One that no
    prompt holds stands in: another row in the vocabulary would change every probability a little.
    """
    pixels = load_pixel_settings(source)
    images = CLIPImageProcessor(
        size={"height": pixels.height, "width": pixels.width},
        crop_size={"height": pixels.height, "width": pixels.width},
        do_center_crop=False,
        image_mean=list(pixels.mean),
        image_std=list(pixels.deviation),
        image_seq_length=_n_image_tokens(network, pixels),
    )
    if not (source / TOKENIZER_FILE).is_file():
        _LOG.warning(
            "%s has no %s: copy that of any Florence-2 into the new folder before you use it.", source, TOKENIZER_FILE
        )
        images.save_pretrained(folder)
        return
    backend = load_tokenizer(source, add_missing=True)
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


def _n_image_tokens(network: Florence2ForConditionalGeneration, pixels: PixelSettings) -> int:
    """Count what the text encoder reads of an image: a token for each place of the last stage, and their mean."""
    vision = network.config.vision_config
    height, width = pixels.height, pixels.width
    for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return 1 + height * width
