"""Exit codes: the one place that turns an error into one line on stderr and an exit code."""

import atexit
import errno
import gc
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from grounded_seg.cli import messages
from grounded_seg.cli.streams import discard, finish_streams, lossy, prepare_streams
from grounded_seg.device.memory import check_address_space
from grounded_seg.errors import DeviceError, GroundedSegError, OutputError

_LOG = logging.getLogger(__name__)

INTERRUPTED = 130
CLOSED_OUTPUT = 141
"""The code of a program whose reader closed the pipe, as in `grounded-seg ... | head -1`."""
_STDOUT_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EAGAIN}
"""Of a full disk, a lost terminal, a stream that was opened to be read, and a pipe that takes no more."""
_FULL_MEMORY = ("can't start new thread", "std::bad_alloc", "failed to map segment from shared object")
"""What is said without a `MemoryError`: by Python of a thread's stack, by C++, and by the loader of a library."""
_TELLS_WHAT_IS_LEFT = (3, 9)
"""The first triton that does so at the end of a process."""
UNEXPECTED = 70
"""A fault of this program, not of its input: `EX_SOFTWARE` of sysexits.h."""


def _keep_to_the_end() -> None:
    # triton from 3.9 on, which torch 2.15 brings, prints a line for each of its objects that is left at the end.
    if (triton := sys.modules.get("triton")) is not None:
        # It imports importlib.metadata, which would slow --help down.
        from grounded_seg.device.versions import numbers

        if numbers(triton.__version__) >= _TELLS_WHAT_IS_LEFT:
            return
    gc.freeze()


class Commands(click.Group):
    """The group of all commands, each of which returns its exit code."""

    def main(self, *args: Any, **extra: Any) -> NoReturn:
        """Run a command and exit with its code; an error is one line on stderr, below its traceback with `--debug`."""
        prepare_streams()
        # At its end Python would look through all that was imported for garbage once more, as long as at the start.
        atexit.unregister(_keep_to_the_end)
        atexit.register(_keep_to_the_end)
        try:
            code = super().main(*args, **{**extra, "standalone_mode": False}) or 0
        except click.exceptions.NoArgsIsHelpError as error:
            error.show(lossy(sys.stderr))
            code = error.exit_code
        except Exception as error:  # noqa: BLE001  (the last resort, so that a fault of ours is one line as well)
            code = _explain(error)
        finally:
            # For a process that goes on, as a test's: a command may have set its models aside.
            gc.unfreeze()
        finish_streams()
        sys.exit(code)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; what stands before a path instead of one is a prompt without `run`."""
        name = args[0]
        if self.get_command(ctx, name) is None and any(os.path.lexists(one.removeprefix("@")) for one in args[1:]):
            prompt = f'"{name}"' if name.replace(" ", "").isalnum() else shlex.quote(name)
            meant = f"{ctx.command_path} run {prompt} {shlex.join(args[1:])}"
            raise click.UsageError(f"No such command {name!r}; to look for it in images: {meant}.", ctx)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; end it silently if the reader closed the pipe."""
        check_address_space()
        try:
            with _termination_as_interrupt():
                code = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            discard(sys.stdout)
            return CLOSED_OUTPUT
        return code


@contextmanager
def _termination_as_interrupt() -> Iterator[None]:
    """Treat SIGTERM, which a cluster or a shutdown sends, as Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        # Only the main thread may set a signal's handler.
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
            # Commands that keep something say so, and how to resume, in an error of their own.
            message, code = "interrupted", INTERRUPTED
        case click.UsageError(ctx=click.Context() as context):
            message, code = f"{_usage_problem(error, context)} See `{context.command_path} --help`.", error.exit_code
        case click.ClickException():
            message, code = error.format_message(), error.exit_code
        case GroundedSegError():
            message, code = str(error), error.exit_code
        case OSError(filename=None) if error.errno in _STDOUT_ERRORS:
            # Errors with a file's name are ours already, from the modules that write files.
            message, code = str(messages.stdout_error(error)), OutputError.exit_code
        case _ if isinstance(error, MemoryError) or any(text in str(error) for text in _FULL_MEMORY):
            # What knows how to do with less, such as the engine, has tried that.
            message, code = "memory is full; end other programs, or ask for less at a time", DeviceError.exit_code
        case _:
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            message = f"unexpected {what}; please report it, with the output of the same command with --debug"
            code = UNEXPECTED
    messages.error(message)
    return code


def _usage_problem(error: click.UsageError, context: click.Context) -> str:
    # Loaded for a mistake only: it would slow --help down.
    from grounded_seg.cli import slips

    if isinstance(error, click.NoSuchOption):
        return slips.explain_option(error, context)
    if isinstance(error, click.MissingParameter):
        return slips.explain_missing(error, context)
    return error.format_message()
