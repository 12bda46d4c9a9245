"""The readers that need torch: weights, their configurations, and what a training is resumed from."""

import io
import json
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from fuzz_inputs import byte_strings
from fuzz_readers import JsonInputs, Reader
from hypothesis import strategies as st
from older_florence import older_folder
from tiny_florence import make_network, save_adapter, save_tiny_florence
from tiny_sam import SMALL, random_sam
from tiny_transformers_sam import build, processor_of

from grounded_seg.detect.first_layout.checkpoint import read_older_model
from grounded_seg.detect.first_layout.layout import check_convertible
from grounded_seg.detect.model.adapters import merge_adapter, read_adapter
from grounded_seg.detect.model.load import load_florence, read_generation
from grounded_seg.detect.model.pixels import load_pixel_settings
from grounded_seg.detect.model.record import check_adapter_base, check_questions, trained_image_size, write_adapter_base
from grounded_seg.detect.model.vocabulary import load_tokenizer
from grounded_seg.segment.load import load_network
from grounded_seg.segment.sam.build import load_sam, save_sam
from grounded_seg.train.fit.checkpoints import Checkpoint, last_checkpoint, load_random_state
from grounded_seg.weights.locate import LocatedWeights
from grounded_seg.weights.strict_loading import read_tensor_file

BASE = LocatedWeights(Path("base"), "owner/base", None, "0" * 64)
SEED = 7


def _save_sam2(folder: Path) -> None:
    build("sam2").save_pretrained(folder)
    processor_of("sam2").save_pretrained(folder)


def _save_adapter(folder: Path) -> None:
    save_adapter(folder)
    write_adapter_base(folder, BASE, {"prompt_form": "class", "classes": ["red"], "image_size": 256, "metrics": {}})


MAKERS: dict[str, Callable[[Path], object]] = {
    "detector": save_tiny_florence,
    "adapter": _save_adapter,
    "older": older_folder,
    "segmenter": lambda folder: save_sam(random_sam(), SMALL, folder),
    "sam2": _save_sam2,
}


@cache
def _made(kind: str) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, kind)
        folder.mkdir()
        MAKERS[kind](folder)
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def _prepare(kind: str, folder: Path) -> None:
    for name, content in _made(kind).items():
        (folder / name).write_bytes(content)


def _bytes_of(kind: str, name: str) -> st.SearchStrategy[bytes]:
    return byte_strings([_made(kind)[name]])


def _reader(name: str, kind: str, file: str, read: Callable[[Path], object], *, is_slow: bool = False) -> Reader:
    """A reader of one file of a folder, whose other files are good."""
    in_json = JsonInputs(lambda: [_made(kind)[file].decode()])
    inputs = in_json if file.endswith(".json") else partial(_bytes_of, kind, file)
    return Reader(name, file, inputs, read, partial(_prepare, kind), is_slow)


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def _random_states() -> st.SearchStrategy[bytes]:
    import random

    import numpy as np

    # Of one seed, so that what escapes once does so again.
    name, keys, *rest = np.random.RandomState(SEED).get_state(legacy=True)
    numbers = (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest)
    state = {
        "python": random.Random(SEED).getstate(),  # noqa: S311 - nothing secret
        "numpy": numbers,
        "torch": torch.Generator().manual_seed(SEED).get_state(),
    }
    return byte_strings([_saved(state)])


def _weights() -> st.SearchStrategy[bytes]:
    tensors = {"a.weight": torch.zeros(3, 4), "b": torch.ones(2, dtype=torch.bfloat16)}
    older = io.BytesIO()
    torch.save(tensors, older, _use_new_zipfile_serialization=False)
    return byte_strings([_saved(tensors), older.getvalue()])


def _record(folder: Path) -> None:
    trained_image_size(folder)
    check_questions(folder, "--adapter x")
    check_adapter_base(folder, BASE, allow_mismatch=True)


def _older(folder: Path) -> None:
    check_convertible(folder)
    read_older_model(folder)


def _adapter(folder: Path) -> None:
    read_adapter(folder)
    merge_adapter(make_network(), folder)


def _segmenter(folder: Path) -> None:
    load_network(folder, torch.device("cpu"), torch.float32)


def _checkpoint(folder: Path) -> None:
    last_checkpoint(folder)


TORCH = (
    _reader("adapter record", "adapter", "grounded_seg.json", _record),
    _reader("image configuration", "detector", "processor_config.json", load_pixel_settings),
    _reader("generation configuration", "detector", "generation_config.json", read_generation),
    _reader("tokenizer", "detector", "tokenizer.json", load_tokenizer, is_slow=True),
    _reader("segment-anything configuration", "segmenter", "config.json", load_sam, is_slow=True),
    _reader("segment-anything weights", "segmenter", "model.safetensors", load_sam, is_slow=True),
    _reader("adapter configuration", "adapter", "adapter_config.json", _adapter, is_slow=True),
    _reader("adapter weights", "adapter", "adapter_model.safetensors", _adapter, is_slow=True),
    _reader("detector configuration", "detector", "config.json", load_florence, is_slow=True),
    _reader("detector weights", "detector", "model.safetensors", load_florence, is_slow=True),
    _reader("older configuration", "older", "config.json", _older, is_slow=True),
    _reader("SAM 2 configuration", "sam2", "config.json", _segmenter, is_slow=True),
    Reader("pickled weights", "x.pth", _weights, lambda at: read_tensor_file(at / "x.pth")),
    Reader(
        "safetensors",
        "x.safetensors",
        lambda: byte_strings([_made("adapter")["adapter_model.safetensors"]]),
        lambda at: read_tensor_file(at / "x.safetensors"),
    ),
    Reader(
        "trainer_state.json",
        "checkpoint-3/trainer_state.json",
        JsonInputs(lambda: [json.dumps({"format": "grounded-seg 2", "global_step": 3})]),
        _checkpoint,
    ),
    Reader("random state", "rng_state_0.pt", _random_states, lambda at: load_random_state(Checkpoint(at, 3), 0)),
)
