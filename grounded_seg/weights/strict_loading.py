"""Strict loading: tensors read without running code, none missing, none unexpected, all of the right shape."""

import logging
import pickle
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import WEIGHT_FILES, weight_files

_LIBRARIES = (
    *("accelerate", "bitsandbytes", "huggingface_hub", "matplotlib", "peft", "pytorch_optimizer", "safetensors"),
    *("tokenizers", "torch", "torchvision", "transformers"),
)
"""What warns on its own account while a model is trained or measured."""
_N_NAMED = 3  # Tensor names spelled out in an error; the rest is counted.
_FEW_NUMBERS = 1_000_000
"""4 MB, which a configuration may ask for in any case."""
_DAMAGE = (
    *(OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, AttributeError, AssertionError),
    *(struct.error, zipfile.BadZipFile, SafetensorError),
)
"""What torch and safetensors raise on files with bytes changed or cut off."""


def read_tensors(folder: Path, names: Sequence[str] = WEIGHT_FILES) -> dict[str, torch.Tensor]:
    """The weights of a folder as they are stored; for `names` see `weight_files`."""
    files = weight_files(folder, names)
    if not files:
        raise WeightsError(f"{folder} has no weights: none of {', '.join(names)} is there")
    return {name: tensor for file in files for name, tensor in read_tensor_file(file).items()}


def read_tensor_file(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a `.safetensors` file, or of what `torch.save` wrote; code in a pickle isn't run."""
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _unpickle(path)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} can't be read as weights: it is damaged or holds more than tensors, and a pickle can run code. "
            "Fetch it from its publisher again, or convert it to .safetensors."
        ) from error
    except _DAMAGE as error:
        raise WeightsError(f"{path} can't be read as weights ({first_line(error)}). Fetch or copy it again.") from error
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise WeightsError(f"{path} isn't a plain table of named tensors; take the model's own file.")
    return content


def _unpickle(path: Path) -> Any:
    with warnings.catch_warnings():
        # torch warns of an unusual pickle; the result shows whether it can be used.
        warnings.simplefilter("ignore")
        # Only the newer, zipped layout of torch.save can be mapped instead of copied.
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def load_strictly(
    model_class: type[Any], source: Path, kind: str, *, config: Any, tensors: Mapping[str, torch.Tensor], **options: Any
) -> Any:
    """A transformers model of exactly these tensors: none of its parameters is random, none of the tensors unused.

    transformers isn't given the folder: it would also load an adapter in it, unchecked. A full device is a
    `torch.OutOfMemoryError`, anything else that goes wrong a `WeightsError`.

    Args:
        model_class: transformers' class.
        source: Where the tensors come from, for messages.
        kind: What the model should be, such as "Florence-2", likewise.
        config: An instance of the class's own configuration.
        tensors: By the names of the model's state.
        options: More arguments of `from_pretrained`, such as `dtype`, or `quantization_config` and `device_map`.
    """
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                # Reported with the missing ones instead of as a page of text.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
    except torch.OutOfMemoryError:
        raise
    except (*_DAMAGE, ArithmeticError) as error:
        raise WeightsError(f"{source} can't be loaded as {kind} ({first_line(error)})") from error
    check_report(source, kind, report)
    return model


def check_n_parameters(source: Path, kind: str, n_described: float, tensors: Mapping[str, torch.Tensor]) -> None:
    """Refuse a configuration of a far larger model than its file holds, before memory is taken for it.

    `n_described` is about how many numbers the model would have; the tensors themselves are compared when it is loaded.
    """
    n_here = sum(tensor.numel() for tensor in tensors.values())
    if n_described > 2 * n_here + _FEW_NUMBERS:
        raise WeightsError(
            f"{source} isn't the {kind} that its config.json describes: that has about {n_described:.2g} parameters, "
            f"its weights are {n_here:.2g}; copy both again"
        )


def check_report(source: Path, kind: str, report: Mapping[str, Any]) -> None:
    """Refuse a loaded model with missing, unexpected or mismatched tensors; the `WeightsError` names source and kind.

    `report` is the second result of transformers' `from_pretrained(..., output_loading_info=True)`.
    """
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(key for key, *_ in report["mismatched_keys"]),
    }
    problems = _described(wrong)
    problems += [first_line(RuntimeError(message)) for message in report.get("error_msgs") or ()]
    if problems:
        raise WeightsError(f"{source} isn't the {kind} that its config.json describes. Tensors {'; '.join(problems)}")


def misfits(given: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]) -> list[str]:
    """What keeps tensors from being exactly a model's, a phrase for each kind of problem; empty where they fit.

    >>> misfits({}, {"a.weight": torch.ones(1), "b.weight": torch.ones(2)})
    ['2 missing: a.weight, b.weight']
    """
    common = given.keys() & expected.keys()
    return _described(
        {
            "missing": sorted(expected.keys() - common),
            "unexpected": sorted(given.keys() - common),
            "of another shape": sorted(name for name in common if given[name].shape != expected[name].shape),
        }
    )


def _described(wrong: Mapping[str, Sequence[str]]) -> list[str]:
    return [f"{len(names)} {what}: {named(names)}" for what, names in wrong.items() if names]


def named(names: Sequence[str]) -> str:
    """The first few names, and the number of the others."""
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def first_line(error: Exception) -> str:
    """The first line of an error that isn't blank."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no table of tensors from transformers: what is wrong becomes our own error."""
    # Slow to import; segment-anything's own models are loaded without it.
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """No warnings and log lines from torch, transformers and the like, but for `--debug`; those of others stay."""
    if logging.getLogger("grounded_seg").level == logging.DEBUG:
        yield
        return
    logs = [log for log in map(logging.getLogger, _LIBRARIES) if log.level == logging.NOTSET]
    # A warning about how a library is called stands at the line that calls it.
    modules = "|".join((*_LIBRARIES, "grounded_seg"))
    with quiet_transformers(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=rf"(?:{modules})(?:\.|$)")
        for log in logs:
            log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for log in logs:
                log.setLevel(logging.NOTSET)
