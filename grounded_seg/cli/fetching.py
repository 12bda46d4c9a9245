"""What `models fetch` and `models verify` show: progress on stderr, and a table on stdout."""

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from grounded_seg.cli.messages import cells, counted, error, note, plain_table, show, stderr_console, stdout_console
from grounded_seg.cli.progress import StatusLines
from grounded_seg.errors import WeightsError
from grounded_seg.weights.locate import locate
from grounded_seg.weights.sources import LocalSource
from grounded_seg.weights.stored import n_bytes_of, sources_of, verify
from grounded_seg.weights.take_along import Taken, fetch_into


@contextmanager
def fetched(what: str) -> Iterator[Callable[[int, int | None], None]]:
    """Give the function that shows how many bytes have arrived of how many, with speed and time left.

    It is a bar on a terminal, and a line a minute elsewhere.
    """
    on_terminal = sys.stderr.isatty()
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(
        *columns, TimeRemainingColumn(), console=stderr_console(), transient=True, disable=not on_terminal
    )
    task, lines = progress.add_task(what, total=None), StatusLines(on=not on_terminal)

    def show(n_done: int, n_all: int | None) -> None:
        progress.update(task, completed=n_done, total=n_all)
        progress.start()
        lines.show(f"MB of {what}", n_done // 10**6, None if n_all is None else n_all // 10**6)

    try:
        yield show
    finally:
        progress.stop()


def fetch_to_cache(name: str, *, update: bool) -> None:
    """Fetch a preset or model into the caches, and print what is there."""
    table = plain_table("part", "commit", "path", right=("MB",))
    for source in sources_of(name):
        if isinstance(source, LocalSource):
            note(f"{source.name} is on this disk already: nothing to fetch")
            continue
        with fetched(source.name) as show:
            found = locate(source, progress=show, update=update)
        table.add_row(*cells(found.name, found.revision or "", found.path, _mb(found.path)))
    if table.row_count:
        stdout_console().print(table, soft_wrap=True)


def fetch_to_folder(name: str, folder: Path, *, update: bool) -> None:
    """Fetch a preset or model into a folder, and print the options that take its parts."""
    with ExitStack() as shown:

        def progress(part: str) -> Callable[[int, int | None], None]:
            shown.pop_all().close()
            return shown.enter_context(fetched(part))

        taken = fetch_into(name, folder, update=update, progress=progress)
    table = plain_table("part", "commit", "path", right=("MB",))
    for one in taken:
        table.add_row(*cells(one.name, one.commit or "", one.path, _mb(one.path)))
    stdout_console().print(table, soft_wrap=True)
    show(f"\noptions: {' '.join(_options(taken))}")


def _options(taken: Sequence[Taken]) -> Iterator[str]:
    for one in taken:
        yield f"{one.option} {shlex.quote(str(one.path))}"


def show_verified(names: Sequence[str]) -> int:
    """Compare files with their published hashes, print each, and give the exit code."""
    table, n_wrong = plain_table("model", "file", "state", right=("MB",)), 0
    for one in verify(names):
        table.add_row(*cells(one.model, one.path, one.problem or "right", f"{one.n_bytes / 1e6:.1f}"))
        n_wrong += one.problem is not None
    if table.row_count:
        stdout_console().print(table, soft_wrap=True)
    else:
        note("no downloaded weights on this disk")
    if n_wrong:
        wrong = f"{counted(n_wrong, 'file')} {'is' if n_wrong == 1 else 'are'}"
        error(f"{wrong} missing or damaged; remove the model and fetch it again (`grounded-seg models -h`)")
        return WeightsError.exit_code
    return 0


def _mb(path: Path) -> str:
    return f"{n_bytes_of(path) / 1e6:.1f}"
