"""What every strict loading needs: compare names of tensors, name those that don't fit, keep transformers quiet."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers.utils import logging as transformers_logging

from grounded_seg.errors import WeightsError

_N_NAMED = 3
"""Names that an error message gives before it only counts the rest."""


def check_report(source: Path, kind: str, report: Mapping[str, Any]) -> None:
    """Refuse a model of which any part would be random, or any weight unused.

    Args:
        source: Where it was loaded from, for the message.
        kind: What it should have been, likewise.
        report: What transformers' `from_pretrained(..., output_loading_info=True)` says of the loading.

    Raises:
        WeightsError: If tensors are missing, left over, of another shape, or couldn't be read.
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
    """Say for each thing that is wrong of which tensors it is: how many, and the names of the first few.

    >>> described({"missing": ["a.weight", "b.weight"], "unexpected": []})
    ['2 missing: a.weight, b.weight']
    """
    return [f"{len(names)} {what}: {named(names)}" for what, names in wrong.items() if names]


def named(names: Sequence[str]) -> str:
    """List the first few names and count the rest."""
    more = f" and {len(names) - _N_NAMED} more" if len(names) > _N_NAMED else ""
    return ", ".join(names[:_N_NAMED]) + more


def first_line(error: Exception) -> str:
    """Shorten an error to the first line that says anything."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Silence transformers' loading bar and its table of tensors: what is wrong becomes our own error."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
