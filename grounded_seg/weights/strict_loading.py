"""Strict loading of transformers models: no tensor missing, none unexpected, all of the right shape."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers.utils import logging as transformers_logging

from grounded_seg.errors import WeightsError

_N_NAMED = 3
"""Tensor names spelled out in an error; the rest is counted."""


def load_strictly(
    model_class: type[Any], source: Path, kind: str, *, config: Any, tensors: Mapping[str, torch.Tensor], **options: Any
) -> Any:
    """A transformers model of exactly these tensors: none of its parameters is random, none of the tensors unused.

    transformers isn't given the folder: it would also load an adapter that lies in it, unasked and unchecked.

    Args:
        model_class: transformers' class.
        source: Where the tensors come from, for messages.
        kind: What the model should be, such as "Florence-2", likewise.
        config: An instance of the class's own configuration.
        tensors: By the names of the model's state.
        options: More arguments of `from_pretrained`: `dtype`, `attn_implementation`; to quantize while loading,
            `quantization_config` and `device_map`.

    Raises:
        WeightsError: If a tensor is missing, unexpected or of another shape, or the model can't be built.
        torch.OutOfMemoryError: If the model doesn't fit on its device.
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
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise WeightsError(f"{source} can't be loaded as {kind} ({first_line(error)})") from error
    check_report(source, kind, report)
    return model


def check_report(source: Path, kind: str, report: Mapping[str, Any]) -> None:
    """Refuse a loaded model with missing, unexpected or mismatched tensors.

    Args:
        source: Where it was loaded from, for the message.
        kind: What it should have been, likewise.
        report: The second result of transformers' `from_pretrained(..., output_loading_info=True)`.

    Raises:
        WeightsError: If there are such tensors, or some couldn't be read.
    """
    wrong = {
        "missing": sorted(report["missing_keys"]),
        "unexpected": sorted(report["unexpected_keys"]),
        "of another shape": sorted(key for key, *_ in report["mismatched_keys"]),
    }
    problems = described(wrong)
    problems += [first_line(RuntimeError(message)) for message in report.get("error_msgs") or ()]
    if problems:
        raise WeightsError(f"{source} isn't the {kind} that its config.json describes. Tensors {'; '.join(problems)}")


def described(wrong: Mapping[str, Sequence[str]]) -> list[str]:
    """One phrase per kind of problem: how many tensors it concerns, and the names of the first few.

    >>> described({"missing": ["a.weight", "b.weight"], "unexpected": []})
    ['2 missing: a.weight, b.weight']
    """
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
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
