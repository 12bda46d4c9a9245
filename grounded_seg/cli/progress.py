"""How far a command has come, on stderr: a progress bar on a terminal, else a line a minute, nothing with `--quiet`."""

import sys
import time
from collections.abc import Callable
from functools import partial

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from grounded_seg.cli.messages import status, stderr_console

_EVERY_S = 60.0


class StatusLines:
    """One line a minute about work that takes longer, for a log file."""

    def __init__(self, *, on: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count the first minute; `clock` gives seconds."""
        self._on, self._clock = on, clock
        self._printed_s = self._began_s = clock()
        self._what, self._n_first, self._n_done = "", 0, 0

    def show(self, what: str, n_done: int, n_all: int | None, more: str = "") -> None:
        """Print a line if the last one is a minute old.

        Args:
            what: What is counted, such as "images"; another word begins another count, as does a lower `n_done`.
            n_done: How many are done. The rate is counted from the first one told.
            n_all: Of how many; None if that isn't known.
            more: What else there is to say.
        """
        now_s = self._clock()
        if what != self._what or n_done < self._n_done:
            self._what, self._n_first, self._began_s = what, n_done, now_s
        self._n_done = n_done
        if not self._on or now_s - self._printed_s < _EVERY_S:
            return
        self._printed_s = now_s
        said = [f"{n_done} {what}"] if n_all is None else [f"{n_done} of {n_all} {what}", f"{n_all - n_done} left"]
        if now_s > self._began_s:
            rate = (n_done - self._n_first) / (now_s - self._began_s)
            said.append(f"{rate:.0f} per second" if rate >= 10 else f"{rate:.2g} per second")
        status(", ".join([*said, more] if more else said))


class WorkDisplay:
    """The display of a command with one or several kinds of work; see `of`."""

    def __init__(self, *, quiet: bool, clock: Callable[[], float] = time.monotonic) -> None:
        """Show nothing yet."""
        on_terminal = sys.stderr.isatty()
        self._lines = StatusLines(on=not quiet and not on_terminal, clock=clock)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns,
            console=stderr_console(),
            transient=True,
            redirect_stdout=False,
            disable=quiet or not on_terminal,
        )
        self._task = self._bar.add_task("", total=None)
        self._what = ""

    def __enter__(self) -> "WorkDisplay":
        return self

    def __exit__(self, *_exception: object) -> None:
        self.clear()

    def of(self, what: str) -> Callable[[int, int], None]:
        """Give the function that shows how many of `what` are done, of how many."""
        return partial(self.show, what)

    def show(self, what: str, n_done: int, n_all: int, more: str = "") -> None:
        """Show how many are done of how many; the bar is there from the first one until all are done."""
        self._lines.show(what, n_done, n_all, more)
        if what != self._what:
            self._what = what
            self._bar.reset(self._task, description=what)
        self._bar.update(self._task, completed=n_done, total=n_all)
        if n_done < n_all:
            self._bar.start()
        else:
            self.clear()

    def clear(self) -> None:
        """Take the bar away until the next call, so that other lines can be printed."""
        self._bar.stop()
