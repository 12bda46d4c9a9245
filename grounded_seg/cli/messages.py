"""Messages on stderr, one line each; lines, JSON and tables on stdout.

Everything that a command prints goes through here, as much of it comes from files: `text.printable` makes it safe.
"""

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from grounded_seg.cli.streams import lossy
from grounded_seg.errors import InterruptionError, OutputError
from grounded_seg.settings import ModelSettings
from grounded_seg.text.printable import safe_line, safe_lines, safe_text

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

# The libraries read these when they are imported, which happens later.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
_PIPE_WIDTH = 200
"""Characters a line where there is no terminal: wide enough that no cell is broken."""


def set_up_messages(*, debug: bool, hints: bool = True) -> None:
    """Show this package's warnings, and its notes on a terminal, one line each; without `debug` silence libraries.

    Without `hints` what was probably meant isn't told.
    """
    log = logging.getLogger("grounded_seg")
    log.setLevel(logging.DEBUG if debug else logging.INFO)
    log.handlers = [_Echo(hints=hints)]
    log.propagate = False
    if debug:
        return
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore")
    # Without any handler, Python itself would print the libraries' warnings.
    logging.getLogger().addHandler(logging.NullHandler())


def note(message: str) -> None:
    """Print a note that everyone must see, with or without a terminal."""
    _line("note", message)


def hint(message: str) -> None:
    """Print what was probably meant, where something was done as it was written; once a command at most."""
    _line("hint", message)


def demo_note(models: ModelSettings, *, boxes_only: bool) -> str | None:
    """What the demo weights can't do, for where they are used."""
    # This would slow --help down.
    from grounded_seg.weights.sources import resolve

    if not resolve(models, boxes_only=boxes_only).is_demo:
        return None
    return "the demo weights know rendered scenes only; for photographs use --preset base-ft or large-ft"


def note_if_demo(models: ModelSettings, *, boxes_only: bool) -> None:
    """Print what the demo weights can't do, where they are used."""
    if (text := demo_note(models, boxes_only=boxes_only)) is not None:
        note(text)


def status(message: str) -> None:
    """Print how far long work has come."""
    _line("status", message)


def error(message: str) -> None:
    """Print what went wrong: what, where, and what to do next."""
    _line("error", message)


def show(text: object = "", *, end: str = "\n") -> None:
    """Print text of a line or more on stdout; line ends in it stay."""
    click.echo(safe_lines(str(text)) + end, nl=False)


def show_json(text: str) -> None:
    """Print a line or more of JSON on stdout; json writes all controls as escapes but the last letter of ASCII."""
    click.echo(text.replace("\x7f", "\\u007f"))


def counted(n: int, what: str) -> str:
    """A number with its noun.

    >>> counted(1, "image"), counted(0, "image")
    ('1 image', '0 images')
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def stdout_error(error: OSError) -> OutputError:
    """The error for a standard output that can't be written, such as a file on a full disk."""
    return OutputError(
        f"standard output can't be written ({error.strerror}); free some space, or send it somewhere else"
    )


@contextmanager
def interruption_explained(explain: Callable[[], str | None]) -> Iterator[None]:
    """Turn an interruption into an `InterruptionError` that says what is kept and how to resume.

    `explain` gives that text when the interruption comes; None where nothing is kept, which needs no words.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        text = explain()
        if text is None:
            raise
        raise InterruptionError(f"interrupted; {text}") from interrupt


def stderr_console() -> "Console":
    """The console for progress."""
    # rich would slow --help down, here and below.
    from rich.console import Console

    return Console(file=lossy(sys.stderr))


def stdout_console() -> "Console":
    """The console for tables, as wide as the terminal, or wide enough for a file or another program."""
    from rich.console import Console

    class StdoutConsole(Console):
        """A console whose closed reader is an error for the command line, where rich would exit with its own code."""

        def on_broken_pipe(self) -> None:
            raise

    return StdoutConsole(width=None if sys.stdout.isatty() else _PIPE_WIDTH)


def plain_table(*columns: str, right: Sequence[str] = ()) -> "Table":
    """A table without lines or rows; the columns of numbers come last, aligned to the right."""
    from rich.table import Table

    table = Table(*columns, box=None, padding=(0, 2, 0, 0))
    for name in right:
        table.add_column(name, justify="right")
    return table


def cells(*values: object) -> "list[Text]":
    """What stands in the columns of a table, or on a line of a console, as plain text: nothing in it is markup."""
    from rich.text import Text

    return [Text(safe_text(str(value))) for value in values]


def _line(kind: str, message: str) -> None:
    _to_stderr(f"{kind}: {safe_line(message)}")


def _to_stderr(text: str) -> None:
    click.echo(text, file=lossy(sys.stderr))


class _Echo(logging.Handler):
    """The log handler that prints a record as one line on stderr, below its traceback if there is one.

    Notes need a terminal, but for those with `once`: everyone sees the first of each. Those with `is_hint` are hints.
    """

    def __init__(self, *, hints: bool) -> None:
        super().__init__()
        self._hints = hints
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._is_for_now(record):
            return
        if record.exc_info:
            _to_stderr(safe_lines(logging.Formatter().formatException(record.exc_info)))
        kind = "hint" if hasattr(record, "is_hint") else "note"
        _line(kind if record.levelno == logging.INFO else record.levelname.lower(), record.getMessage())

    def _is_for_now(self, record: logging.LogRecord) -> bool:
        if hasattr(record, "is_hint") and not self._hints:
            return False
        if not hasattr(record, "once"):
            is_debug = logging.getLogger("grounded_seg").isEnabledFor(logging.DEBUG)
            return record.levelno != logging.INFO or is_debug or sys.stderr.isatty()
        is_first = record.msg not in self._told
        self._told.add(record.msg)
        return is_first
