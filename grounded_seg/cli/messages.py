"""Messages on stderr, one line each, and the consoles: tables on stdout, a progress bar on stderr."""

import logging
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from grounded_seg.errors import InterruptionError, OutputError
from grounded_seg.settings import ModelSettings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

# The libraries read these when they are imported, which happens later.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}
_LINE_EVERY_S = 60.0
"""Of long work, where there is no terminal."""
_PIPE_WIDTH = 200
"""Characters a line where there is no terminal: wide enough that no cell is broken."""


def set_up_messages(*, debug: bool) -> None:
    """Show this package's warnings, and its notes on a terminal, one line each; without `debug` silence libraries."""
    log = logging.getLogger("grounded_seg")
    quiet = logging.INFO if sys.stderr.isatty() else logging.WARNING
    log.setLevel(logging.DEBUG if debug else quiet)
    log.handlers = [_Echo()]
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


def note_if_demo(models: ModelSettings, *, boxes_only: bool) -> None:
    """Print what the demo weights can't do, where they are used."""
    # This would slow --help down.
    from grounded_seg.weights.sources import resolve

    if resolve(models, boxes_only=boxes_only).is_demo:
        note("the demo weights know rendered scenes only; for photographs use --preset base-ft or large-ft")


def error(message: str) -> None:
    """Print what went wrong: what, where, and what to do next."""
    _line("error", message)


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


def stdout_console() -> "Console":
    """The console for tables, as wide as the terminal, or wide enough for a file or another program."""
    # rich would slow --help down, here and below.
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


@contextmanager
def counted(what: str) -> Iterator[Callable[[int, int], None]]:
    """Give the function that shows how many are done of how many, in a progress bar on stderr if that is a terminal.

    The bar is there from its first call until all are done; before and afterwards other lines can be printed.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
    task = progress.add_task(what, total=None)

    def show(n_done: int, n_all: int) -> None:
        progress.update(task, completed=n_done, total=n_all)
        if n_done < n_all:
            progress.start()
        else:
            progress.stop()

    try:
        yield show
    finally:
        progress.stop()


@contextmanager
def fetched(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give the function that shows how many bytes have arrived of how many, with speed and time left.

    Without a terminal it prints a line a minute.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
    )
    task = progress.add_task(what, total=None)
    started_s = told_s = time.monotonic()
    n_first = 0

    def show(n_done: int, n_all: int | None) -> None:
        nonlocal told_s, n_first
        # Bytes that an earlier command fetched are no speed.
        n_first = n_first or n_done
        progress.update(task, completed=n_done, total=n_all)
        progress.start()
        now_s = time.monotonic()
        if not sys.stderr.isatty() and now_s - told_s >= _LINE_EVERY_S:
            told_s = now_s
            of_all = f" of {n_all / 1e6:.0f}" if n_all else ""
            speed = (n_done - n_first) / (now_s - started_s)
            left = f", {(n_all - n_done) / speed / 60:.0f} min left" if n_all and speed else ""
            note(f"{what}: {n_done / 1e6:.0f}{of_all} MB, {speed / 1e6:.1f} MB/s{left}")

    try:
        yield show
    finally:
        progress.stop()


def _line(kind: str, message: str) -> None:
    click.echo(f"{kind}: {' '.join(message.expandtabs(0).splitlines())}", err=True)


class _Echo(logging.Handler):
    """The log handler that prints a record as one line on stderr, below its traceback if there is one."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            click.echo(logging.Formatter().formatException(record.exc_info), err=True)
        _line("note" if record.levelno == logging.INFO else record.levelname.lower(), record.getMessage())
