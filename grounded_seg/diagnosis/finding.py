"""What `doctor` finds about one subject: what is so, whether that is right, and what to do where it isn't."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from grounded_seg.errors import DeviceError, GroundedSegError


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
