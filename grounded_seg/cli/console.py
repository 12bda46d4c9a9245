"""Standard output as rich prints tables on it."""

import sys

from rich.console import Console

_PIPE_WIDTH = 200
"""Characters a line where nobody's screen sets them: enough that no cell is broken."""


class _StdoutConsole(Console):
    """Leaves it to the command line what becomes of a reader that went away."""

    def on_broken_pipe(self) -> None:
        """Let the error on its way, which rich would make an exit code of its own."""
        raise


def stdout_console() -> Console:
    """Make a console as wide as the terminal, or wide enough for a file or another program."""
    return _StdoutConsole() if sys.stdout.isatty() else _StdoutConsole(width=_PIPE_WIDTH)
