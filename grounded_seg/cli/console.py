"""Standard output as rich prints tables on it."""

import sys

from rich.console import Console

_PIPE_WIDTH = 200
"""Characters a line where nobody's screen sets them: enough that no cell is broken."""


def stdout_console() -> Console:
    """Make a console as wide as the terminal, or wide enough for a file or another program."""
    return Console() if sys.stdout.isatty() else Console(width=_PIPE_WIDTH)
