"""Checkpoints: which is the last whole one, which are refused, and that a broken one is one line."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from tiny_florence import make_network
from train_cases import tiny_settings

from grounded_seg.errors import UsageError
from grounded_seg.train.fit.checkpoints import (
    Checkpoint,
    TrainState,
    last_checkpoint,
    load_checkpoint,
    load_random_state,
    save_checkpoint,
)
from grounded_seg.train.fit.trainable import make_optimizer, make_schedule, make_trainable
from grounded_seg.train.settings import Method, Part


def state_of(step: int) -> str:
    return json.dumps({"format": "grounded-seg 2", "global_step": step})


def write_state(folder: Path, step: int, text: str) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text(text)
    return checkpoint


def make_state(method: Method, seed: int) -> TrainState:
    """A tiny model after one step of its own."""
    torch.manual_seed(seed)
    settings = tiny_settings(Path("d"), Path("o"), Path("b"), method=method, parts=frozenset(Part))
    model = make_trainable(make_network(), settings)
    optimizer = make_optimizer(model, settings)
    schedule = make_schedule(optimizer, settings, 10)
    sum(one.sum() for one in model.parameters() if one.requires_grad).backward()
    optimizer.step()
    schedule.step()
    return TrainState(model, optimizer, schedule, torch.amp.GradScaler("cpu", enabled=False))


def test_the_last_whole_checkpoint_is_resumed(tmp_path: Path) -> None:
    assert last_checkpoint(tmp_path) is None
    for step, text in ((9, state_of(9)), (10, state_of(10)), (11, state_of(11)[:-3])):
        write_state(tmp_path, step, text)
    (tmp_path / "checkpoint-12").mkdir()
    (tmp_path / "checkpoint-best").mkdir()
    assert last_checkpoint(tmp_path) == Checkpoint(tmp_path / "checkpoint-10", 10)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (json.dumps({"global_step": 9, "log_history": []}), "was written by an older version of grounded-seg"),
        (json.dumps({"global_step": [1, 2, 3], "log_history": []}), "was written by an older version of grounded-seg"),
        ('{"a":' * 100_000, "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "is damaged"),
        (state_of(8), "is damaged"),
        (state_of(9).replace("9", '"9"'), "is damaged"),
    ],
)
def test_a_state_that_is_not_ours_is_refused_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    write_state(tmp_path, 9, text)
    with pytest.raises(UsageError, match=told) as caught:
        last_checkpoint(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
    assert "train again into another folder with -o" in str(caught.value)


@pytest.mark.parametrize("method", Method)
def test_what_was_saved_is_loaded(tmp_path: Path, method: Method) -> None:
    saved, other = make_state(method, 0), make_state(method, 1)
    save_checkpoint(tmp_path, 3, saved, Accelerator(), keep=1)
    expected = (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist())
    checkpoint = last_checkpoint(tmp_path)
    assert checkpoint is not None
    load_checkpoint(checkpoint, other)
    theirs = dict(other.model.named_parameters())
    assert all(torch.equal(value, theirs[name]) for name, value in saved.model.named_parameters())
    assert str(other.optimizer.state_dict()) == str(saved.optimizer.state_dict())
    assert other.schedule.get_last_lr() == saved.schedule.get_last_lr()
    torch.rand(3)
    np.random.random()
    load_random_state(checkpoint, 0)
    assert (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()) == expected


def test_only_the_last_ones_stay_and_none_of_later_steps(tmp_path: Path) -> None:
    for step, text in ((1, state_of(1)), (2, state_of(2)), (9, "{")):
        write_state(tmp_path, step, text)
    save_checkpoint(tmp_path, 3, make_state(Method.LORA, 0), Accelerator(), keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3"}


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state_0.pt", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights", None])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: bytes | None) -> None:
    state = make_state(Method.LORA, 0)
    save_checkpoint(tmp_path, 3, state, Accelerator(), keep=1)
    checkpoint = Checkpoint(tmp_path / "checkpoint-3", 3)
    if content is None:
        (checkpoint.path / name).unlink()
    else:
        (checkpoint.path / name).write_bytes(content)

    def load() -> None:
        load_checkpoint(checkpoint, state)
        load_random_state(checkpoint, 0)

    with pytest.raises(UsageError, match=r"checkpoint-3 is damaged \(.*\); delete it"):
        load()
