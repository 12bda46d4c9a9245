"""The one place where what went wrong becomes one line on stderr and an exit code."""

import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from grounded_seg.cli import messages
from grounded_seg.cli.messages import stdout_error
from grounded_seg.errors import GroundedSegError, OutputError

_LOG = logging.getLogger(__name__)

INTERRUPTED = 130
CLOSED_OUTPUT = 141
"""What a shell reports for a program whose reader went away, as in `grounded-seg ... | head -1`."""
UNEXPECTED = 70
"""`EX_SOFTWARE` of sysexits.h: a fault of this program, not of its input."""


class Commands(click.Group):
    """The group of all commands; each returns its exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command and leave the process with its exit code; the arguments are those of `click.Command.main`.

        0 all done, 1 images skipped, 2 usage, 3 unreadable input, 4 weights, 5 device, 130 interrupted; 70 for a fault
        of this program. An error is one line on stderr; `--debug` puts its traceback above.
        """
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False}) or 0
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            code = error.exit_code
        except Exception as error:  # noqa: BLE001  (the last resort, so that a fault of ours is one line as well)
            code = _explain(error)
        try:
            sys.stdout.flush()
        except OSError:
            # That has been told.
            _discard_stdout()
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a reader that closed our output ends it without a word."""
        try:
            with _termination_as_interrupt():
                result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            _discard_stdout()
            return CLOSED_OUTPUT
        return result


def _discard_stdout() -> None:
    """Send nowhere what Python flushes once more when it exits, instead of failing again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Have SIGTERM, which a cluster or a shutdown sends, end the command just as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may say what a signal does.
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _explain(error: Exception) -> int:
    """Print the line for `error` and return its exit code."""
    _LOG.debug("this led to the error below", exc_info=error)
    match error:
        case click.Abort():
            # What is kept, and how to go on, is told by the commands that know.
            message, code = "interrupted", INTERRUPTED
        case click.UsageError(ctx=click.Context() as context):
            message, code = f"{error.format_message()} See `{context.command_path} --help`.", error.exit_code
        case click.ClickException():
            message, code = error.format_message(), error.exit_code
        case GroundedSegError():
            message, code = str(error), error.exit_code
        case OSError(errno=errno.ENOSPC | errno.EDQUOT | errno.EFBIG | errno.EIO, filename=None):
            # What is written to files is told with their names, by the modules that write them.
            message, code = str(stdout_error(error)), OutputError.exit_code
        case _:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            message = f"unexpected {what}; please report it with what the same command prints with --debug"
            code = UNEXPECTED
    messages.error(message)
    return code
