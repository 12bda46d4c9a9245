"""What goes to stderr: notes, warnings and errors of ours, a line each, and nothing of the libraries'."""

import logging
import os
import sys
import warnings

import click

from grounded_seg.errors import OutputError

# Read by the libraries when they are imported, which happens after this.
_QUIET = {
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "HF_HUB_VERBOSITY": "error",
    "TOKENIZERS_PARALLELISM": "false",
}


def set_up_messages(*, debug: bool) -> None:
    """Show this package's warnings, on a terminal its notes too, a line each; hush the libraries without `debug`."""
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
    """Tell, with or without a terminal, what has to be known beforehand and is no result: what the demo can't do."""
    _line("note", message)


def error(message: str) -> None:
    """Tell what went wrong: what, where, and what to do next."""
    _line("error", message)


def stdout_error(error: OSError) -> OutputError:
    """Say that standard output takes no more, as where it goes to a file on a full disk."""
    return OutputError(
        f"standard output can't be written ({error.strerror}); make room there, or send it somewhere else"
    )


def _line(kind: str, message: str) -> None:
    click.echo(f"{kind}: {' '.join(message.splitlines())}", err=True)


class _Echo(logging.Handler):
    """Prints a record as one line on stderr, after the traceback that it may bring."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the record with its level in front; plain information is a note."""
        if record.exc_info:
            click.echo(logging.Formatter().formatException(record.exc_info), err=True)
        _line("note" if record.levelno == logging.INFO else record.levelname.lower(), record.getMessage())
