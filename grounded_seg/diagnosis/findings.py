"""What `doctor` finds: the record of a finding, and those about what is installed, which need nothing of it."""

import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from types import MappingProxyType
from typing import Any

from grounded_seg.errors import DeviceError, GroundedSegError

TESTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("2.6", "2.14"),
        "torchvision": ("0.21", "0.29"),
        "transformers": ("5.13", "5.24"),
        "peft": ("0.17", "0.21"),
        "accelerate": ("1.1", "1.15"),
        "huggingface_hub": ("0.30", "2.4"),
        "opencv-python": ("5.0", "5.0"),
        "numpy": ("1.26", "2.5"),
        "pillow": ("11.3", "13.0"),
        "pillow-heif": ("1.0", "1.8"),
        "pycocotools": ("2.0.8", "2.0.12"),
        "segment-anything": ("1.0", "1.0"),
    }
)
"""The lowest version that works, and the newest that was tested."""
_PYTHON = ((3, 11), (3, 13))


class State(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What was found about one subject."""

    subject: str
    state: State
    what: str
    remedy: str | None = None
    """What to do; None where nothing has to be done."""
    exit_code: int = 0
    """Of the command, if this is an error."""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """For programs."""


def all_findings(device: str, dtype: str, *, online: bool = False) -> Iterator[Finding]:
    """All findings, one by one as they are made.

    Args:
        device: As `ModelSettings.device`.
        dtype: As `ModelSettings.dtype`.
        online: Ask the hub too; nothing else needs a network.
    """
    yield _python()
    yield _versions()
    try:
        # What can't be imported is a finding: this command is for finding it.
        from grounded_seg.diagnosis.known_answer import ask_demo
        from grounded_seg.diagnosis.machine import surroundings
    except (ImportError, OSError) as error:
        remedy = "install grounded-seg again, in a virtual environment of its own"
        yield Finding("imports", State.ERROR, f"{error}".splitlines()[0], remedy, GroundedSegError.exit_code)
        return
    yield from surroundings(device, dtype, online=online)
    yield checked("known answer", lambda: ask_demo(device, dtype))


def checked(subject: str, look: Callable[[], Finding]) -> Finding:
    """A finding, or the error that was raised for it."""
    try:
        return look()
    # What is wrong here is the result of the command, not its end.
    except GroundedSegError as error:
        return _error_finding(subject, str(error), error.exit_code)
    except (ImportError, OSError, RuntimeError) as error:
        # torch raises a RuntimeError for all that a card refuses.
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        code = DeviceError.exit_code if isinstance(error, RuntimeError) else GroundedSegError.exit_code
        return _error_finding(subject, what, code)


def _error_finding(subject: str, message: str, code: int) -> Finding:
    """The finding of an error, whose message mostly says what to do as well."""
    what, remedy = message, "run the same command with --debug, and report what it prints"
    for mark in ("; ", ". ", ": "):
        if mark in message:
            what, _, remedy = message.partition(mark)
            break
    return Finding(subject, State.ERROR, what, remedy, code)


def exit_code_of(findings: list[Finding]) -> int:
    """The code of what is wrong, the first of all; 0 where nothing is."""
    return next((one.exit_code for one in findings if one.state is State.ERROR), 0)


def _python() -> Finding:
    found, (lowest, newest) = sys.version_info[:2], _PYTHON
    what = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    facts = {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if not lowest <= found <= newest:
        span = f"{lowest[0]}.{lowest[1]} to {newest[0]}.{newest[1]}"
        return Finding(
            "Python", State.WARNING, what, f"tested with {span}: use one of these if something fails", 0, facts
        )
    return Finding("Python", State.OK, what, facts=facts)


def _versions() -> Finding:
    """The installed versions against the tested ones."""
    found = {name: installed(name) for name in TESTED}
    wrong, untested = [], []
    for name, (lowest, newest) in TESTED.items():
        here = found[name]
        if here is None:
            wrong.append(f"{name} is missing")
        elif numbers(here) < numbers(lowest):
            wrong.append(f"{name} {here} is older than {lowest}")
        elif numbers(here)[: len(numbers(newest))] > numbers(newest):
            untested.append(f"{name} {here} is newer than {newest}, the newest tested")
    if installed("opencv-python-headless") is not None:
        wrong.append("opencv-python-headless is beside opencv-python, and both own the folder cv2")
    if wrong:
        remedy = "install grounded-seg again, in a virtual environment of its own"
        return Finding(
            "versions", State.ERROR, "; ".join((*wrong, *untested)), remedy, GroundedSegError.exit_code, found
        )
    if untested:
        remedy = "if a model can't be loaded or finds nothing, install the tested version"
        return Finding("versions", State.WARNING, "; ".join(untested), remedy, 0, found)
    shown = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "peft"))
    return Finding("versions", State.OK, f"{shown}; all {len(found)} as tested", facts=found)


def installed(distribution: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version, to compare.

    >>> numbers("2.14.1+cpu"), numbers("5.24.0rc1") > numbers("5.13")
    ((2, 14, 1), True)
    """
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()
