"""Florence-2 written as transformers' own folders: from the first layout, or with a LoRA adapter merged."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.first_layout.layout import ADAPTER_CONFIG, check_convertible, has_older_layout
from grounded_seg.detect.first_layout.processor import write_processor
from grounded_seg.detect.model.adapters import merge_adapter, read_adapter
from grounded_seg.detect.model.load import load_network, read_generation
from grounded_seg.detect.model.record import BASE_RECORD
from grounded_seg.detect.model.vocabulary import TOKENIZER_FILE
from grounded_seg.files import as_output_error, check_new_folder, whole_folder
from grounded_seg.weights.files import ADAPTER_FILE
from grounded_seg.weights.strict_loading import quiet_transformers

_PROCESSOR_FILES = (
    *(TOKENIZER_FILE, "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "preprocessor_config.json", "processor_config.json", "chat_template.jinja"),
)
"""What transformers' processor is read from, beside the weights and their configuration."""
_GENERATION_FILE = "generation_config.json"


def convert(source: Path, destination: Path) -> None:
    """Write a model or an adapter of the first implementation as a native folder.

    What a model's folder lacks is filled with Florence-2's defaults, with a warning in the log; a missing tokenizer is
    left out. An adapter needs no base for this.

    The weights keep their dtype. A source that is native already, or a destination that isn't new or empty, is a
    `UsageError`.
    """
    check_convertible(source)
    if (source / ADAPTER_CONFIG).is_file():
        adapter = read_adapter(source)
        with _new_folder(destination) as folder:
            config = adapter.fields.lora_config(())
            config.base_model_name_or_path = adapter.fields.base_model_name_or_path
            config.save_pretrained(str(folder))
            save_file(adapter.tensors, folder / ADAPTER_FILE, metadata={"format": "pt"})
        return
    with _new_folder(destination) as folder:
        network = load_network(source)
        write_processor(network, source, folder)
        _save_network(network, folder)


def merge_model(base: Path, adapter: Path, destination: Path) -> None:
    """Write a Florence-2 with a LoRA adapter added to its weights, in float32, as the sum loses bits in less.

    Base and adapter may be of either layout; the destination is a new or empty folder.
    """
    with _new_folder(destination) as folder:
        network = merge_adapter(load_network(base, dtype=torch.float32), adapter)
        if (adapter / BASE_RECORD).is_file():
            shutil.copyfile(adapter / BASE_RECORD, folder / BASE_RECORD)
        save_with_processor(network, base, folder)


def save_with_processor(network: Florence2ForConditionalGeneration, base: Path, folder: Path) -> None:
    """Write changed weights as a native folder, with tokenizer, image configuration and generation rules of their base.

    `network` was loaded from `base`, which is of either layout; `folder` must exist.
    """
    is_older = has_older_layout(base)
    if is_older:
        write_processor(network, base, folder)
    _save_network(network, folder)
    if is_older:
        read_generation(base)[0].save_pretrained(folder)
        return
    for name in (*_PROCESSOR_FILES, _GENERATION_FILE):
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)


@contextmanager
def _new_folder(destination: Path) -> Iterator[Path]:
    """A folder to write into that gets its name once everything is in it; after an error nothing is left."""
    with as_output_error(destination, "another folder"):
        check_new_folder(destination)
        with whole_folder(destination) as folder:
            yield folder
            # safetensors writes files that only their owner can read.
            for weights in folder.glob("*.safetensors"):
                shutil.copymode(next(folder.glob("*config.json")), weights)


def _save_network(network: Florence2ForConditionalGeneration, folder: Path) -> None:
    with quiet_transformers():
        network.save_pretrained(folder)
