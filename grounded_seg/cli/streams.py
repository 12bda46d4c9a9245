"""Standard streams as a command finds them: closed from the start, in any encoding, or with nobody reading any more."""

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO, cast

_NAMES = ("stdin", "stdout", "stderr")


def prepare_streams() -> None:
    """Open the streams that the caller closed, on nothing; a character that an encoding lacks is escaped.

    A closed stream's descriptor would go to the next file that is opened, such as a journal, and a library that prints
    would print into it.
    """
    for descriptor, name in enumerate(_NAMES):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, _on_nothing(descriptor))
        elif isinstance(stream, io.TextIOWrapper) and stream is not sys.stdin:
            stream.reconfigure(errors="backslashreplace")


def _on_nothing(descriptor: int) -> TextIO:
    """A stream that holds nothing and keeps nothing, with this descriptor if that is free."""
    nothing = os.open(os.devnull, os.O_RDWR)
    if nothing != descriptor and not _is_open(descriptor):
        os.dup2(nothing, descriptor)
        os.close(nothing)
        nothing = descriptor
    if nothing == descriptor:
        # As the standard streams are: a process that is started gets it too.
        os.set_inheritable(descriptor, True)
    if not descriptor:
        return os.fdopen(nothing, "r", encoding="utf-8", closefd=False)
    return os.fdopen(nothing, "w", encoding="utf-8", errors="backslashreplace", closefd=False)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def finish_streams() -> None:
    """Write out what is left; what can't be written goes nowhere, as Python tries again at its end and would fail."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            # The error was printed already.
            discard(stream)


def discard(stream: TextIO) -> None:
    """Redirect a stream to nowhere."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, stream.fileno())
    os.close(nothing)


def lossy(stream: TextIO) -> TextIO:
    """The stream for messages, which are no reason to end the work where they can't be written."""
    return cast(TextIO, _Lossy(stream))


class _Lossy:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()
