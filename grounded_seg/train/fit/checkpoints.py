"""Weights on the disk: checkpoints that a training is resumed from, and the best ones for `run`, peft or transformers.

`checkpoint-N` holds the trained weights as peft or transformers have them, the state of optimizer, schedule and loss
scaling, the random number generators of each process, and `trainer_state.json`, which is written last: a checkpoint
that was cut off has none.
"""

import json
import pickle
import random
import shutil
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from peft import PeftModel, load_peft_weights, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.first_layout.layout import ADAPTER_CONFIG
from grounded_seg.detect.model.record import write_adapter_base
from grounded_seg.detect.model.save import save_with_processor
from grounded_seg.errors import OutputError, UsageError
from grounded_seg.files import as_output_error, whole_folder, write_text
from grounded_seg.text.documents import TooDeepError, json_in
from grounded_seg.train.fit.preparation import PreparedTraining
from grounded_seg.train.measure.metrics import in_words
from grounded_seg.train.settings import Method, PromptForm

_PREFIX = "checkpoint-"
_STATE_FILE, _OPTIMIZER_FILE, _MODEL_FILE = "trainer_state.json", "optimizer.pt", "model.safetensors"
_RANDOM_FILE = "rng_state_{}.pt"
_FORMAT = "grounded-seg 2"
"""What `trainer_state.json` says of itself; those of transformers' Trainer say nothing."""
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, ArithmeticError),
    *(AttributeError, AssertionError, struct.error, pickle.UnpicklingError, SafetensorError),
)


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint on the disk."""

    path: Path
    step: int


@dataclass(frozen=True, eq=False)
class TrainState:
    """What each step changes, besides the random number generators."""

    model: PeftModel | Florence2ForConditionalGeneration
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler


def last_checkpoint(folder: Path) -> Checkpoint | None:
    """Find the last whole checkpoint in a folder of them; `UsageError` if it isn't one that a training wrote."""
    for step, path in reversed(_numbered(folder)):
        try:
            state = json_in(path / _STATE_FILE)
        except TooDeepError as error:
            raise UsageError(_not_ours(path, "is damaged")) from error
        except (OSError, ValueError):
            # Cut off while it was written.
            continue
        if isinstance(state, dict) and "log_history" in state:
            raise UsageError(_not_ours(path, "was written by an older version of grounded-seg"))
        if state != {"format": _FORMAT, "global_step": step}:
            raise UsageError(_not_ours(path, "is damaged"))
        return Checkpoint(path, step)
    return None


def _not_ours(path: Path, why: str) -> str:
    return f"{path / _STATE_FILE} {why} and can't be resumed; train again into another folder with -o"


def _numbered(folder: Path) -> list[tuple[int, Path]]:
    """The checkpoints' folders with their steps, by step."""
    numbers = ((path.name.removeprefix(_PREFIX), path) for path in folder.glob(f"{_PREFIX}*") if path.is_dir())
    return sorted((int(number), path) for number, path in numbers if number.isascii() and number.isdecimal())


@contextmanager
def weights_as_output_error() -> Iterator[None]:
    """Turn a full disk or a forbidden folder into an `OutputError`, whichever library meets it first."""
    try:
        with as_output_error():
            yield
    except (SafetensorError, RuntimeError) as error:
        # torch's own writer has no error class of its own.
        if isinstance(error, RuntimeError) and "PytorchStreamWriter" not in str(error):
            raise
        raise OutputError(f"weights can't be written ({error}); make room, or name another folder with -o") from error


@weights_as_output_error()
def save_checkpoint(folder: Path, step: int, state: TrainState, accelerator: Accelerator, *, keep: int) -> None:
    """Write a checkpoint, and remove all but the last `keep`; every process takes part."""
    path = folder / f"{_PREFIX}{step}"
    if accelerator.is_main_process:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
        if isinstance(state.model, PeftModel):
            state.model.save_pretrained(path)
        else:
            save_model(state.model, str(path / _MODEL_FILE))
        parts = {name: getattr(state, name).state_dict() for name in ("optimizer", "schedule", "scaler")}
        torch.save(parts, path / _OPTIMIZER_FILE)
    accelerator.wait_for_everyone()
    torch.save(_random_state(), path / _RANDOM_FILE.format(accelerator.process_index))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_text(path / _STATE_FILE, json.dumps({"format": _FORMAT, "global_step": step}) + "\n")
        numbered = _numbered(folder)
        kept = [number for number, _ in numbered if number <= step][-keep:]
        for number, other in numbered:
            if number not in kept:
                shutil.rmtree(other, ignore_errors=True)


def load_checkpoint(checkpoint: Checkpoint, state: TrainState) -> None:
    """Load a checkpoint's weights, optimizer, schedule and loss scaling; `UsageError` if it is damaged."""
    path = checkpoint.path
    try:
        if isinstance(state.model, PeftModel):
            set_peft_model_state_dict(state.model, load_peft_weights(str(path), device="cpu"))
        else:
            load_model(state.model, str(path / _MODEL_FILE))
        parts = torch.load(path / _OPTIMIZER_FILE, map_location="cpu", weights_only=True)
        for name, values in parts.items():
            getattr(state, name).load_state_dict(values)
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def load_random_state(checkpoint: Checkpoint, process: int) -> None:
    """Set this process's random number generators to where they were; `UsageError` if their file is damaged."""
    try:
        state = torch.load(checkpoint.path / _RANDOM_FILE.format(process), map_location="cpu", weights_only=True)
        random.setstate(state["python"])
        name, keys, *rest = state["numpy"]
        np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
        torch.set_rng_state(state["torch"])
        if "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"])
    except _DAMAGE as error:
        raise _damaged(checkpoint.path, error) from error


def _random_state() -> dict[str, Any]:
    name, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest),
        "torch": torch.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _damaged(path: Path, error: Exception) -> UsageError:
    detail = " ".join(str(error).split())[:200]
    return UsageError(f"{path} is damaged ({detail}); delete it, and --resume takes the checkpoint before it")


@weights_as_output_error()
def save_trained(
    model: PeftModel | Florence2ForConditionalGeneration, prepared: PreparedTraining, figures: Mapping[str, float]
) -> None:
    """Write the trained weights, whole or not at all, instead of older ones.

    An adapter is as peft has it, with our record of its base; of full tuning, the model is as transformers has it.
    `figures` are those of the last validation.
    """
    settings, base = prepared.settings, prepared.base
    with whole_folder(prepared.folder.result(settings.method), replace=True) as folder:
        if isinstance(model, PeftModel):
            model.save_pretrained(folder)
            config = json_in(folder / ADAPTER_CONFIG)
            # By its id instead of the folder that it happens to lie in.
            config |= {"base_model_name_or_path": base.name, "revision": base.revision}
            write_text(folder / ADAPTER_CONFIG, json.dumps(config, indent=2, sort_keys=True) + "\n")
        else:
            save_with_processor(model, base.path, folder)
        facts = {
            "prompt_form": str(settings.prompt_form),
            "classes": list(prepared.data.classes),
            "image_size": settings.image_size,
            "metrics": dict(figures),
        }
        write_adapter_base(folder, base, facts)
        write_text(folder / "README.md", _card(prepared, figures))


def _card(prepared: PreparedTraining, figures: Mapping[str, float]) -> str:
    settings, base, classes = prepared.settings, prepared.base, prepared.data.classes
    is_lora = settings.method is Method.LORA
    method = f"a LoRA adapter of rank {settings.rank}, alpha {settings.alpha:g}" if is_lora else "full tuning"
    lower = prepared.lower_is_better
    rows = "\n".join(f"| {in_words(name, lower)} | {value:.4f} |" for name, value in figures.items())
    as_run = settings.prompt_form is PromptForm.CLASS and bool(classes)
    asks = "one class each, as `grounded-seg run` asks" if as_run else "all classes at once, or as the data set asks"
    command = "run PROMPT PATH" if as_run else "ask TASK IMAGE"
    use = "--adapter" if is_lora else "--adapter none --detector"
    return f"""---
base_model: {base.name}
library_name: {"peft" if is_lora else "transformers"}
tags: [grounded-seg, florence-2, object-detection]
---

# {"Adapter" if is_lora else "Model"} for {base.name}

Trained by grounded-seg with {method}, on {", ".join(sorted(settings.parts))}.

- Base: {base.name}{f", revision {base.revision}" if base.revision else ""}, sha256 `{base.sha256}`
- Classes: {", ".join(classes) or "none, answers are text"}
- Questions: {asks}

Use it with `grounded-seg {command} {use} FOLDER`.

| figure of the validation | value |
|---|---|
{rows}
"""
