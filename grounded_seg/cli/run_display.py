"""How a run shows: JSON lines or a table on stdout, a progress bar on stderr where that is a terminal."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from grounded_seg.cli.messages import stdout_console, stdout_error
from grounded_seg.coco.schema import JournalLine
from grounded_seg.geometry.masks import area_px
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import ImageSkipped, Instance, RunReport
from grounded_seg.runs.journal import text_of
from grounded_seg.runs.run import Outcome

_TEXT_COLUMNS = ("image", "prompt", "label")
_NUMBER_COLUMNS = ("score", "x0 y0 x1 y1", "mask px", "mask\nscore")
_MAX_ROWS = 50
"""Rows of the table: a long run would fill memory and screen alike. All of it is in the files."""
_MAX_SKIPPED = 20
"""Likewise, skipped images with their reasons."""


class _RateColumn(ProgressColumn):
    """Images per second, of late."""

    def render(self, task: Task) -> Text:
        """Give the rate as text, once there is one."""
        return Text("" if task.speed is None else f"{task.speed:.1f} images/s")


class RunDisplay:
    """Watches a run: prints JSON lines as they come, or keeps rows for a table at its end."""

    def __init__(self, *, json_lines: bool) -> None:
        """Choose what stdout gets; nothing is shown yet.

        Args:
            json_lines: Journal lines instead of a table.
        """
        self._json_lines = json_lines
        self._rows: list[tuple[str, ...]] = []
        self._n_rows_left_out = 0
        self._skipped: list[str] = []
        # stdout is not for the bar: it may be a file or another program. On one screen with JSON lines, they win.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[found]} found, {task.fields[skipped]} skipped"),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not sys.stderr.isatty() or (json_lines and sys.stdout.isatty()),
        )
        self._task = self._progress.add_task("loading models", total=None, found=0, skipped=0)
        self._n_found = self._n_skipped = 0
        self.has_started = False
        """The models are loaded, and the output folder is this run's."""

    def __enter__(self) -> "RunDisplay":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._progress.stop()

    def fetching(self, n_bytes: int, n_total: int | None) -> None:
        """Show how far a download has come."""
        total_mb = None if n_total is None else n_total // 10**6
        self._progress.update(self._task, description="fetching, MB", completed=n_bytes // 10**6, total=total_mb)

    def started(self, n_images: int, n_done: int, n_found: int, n_skipped: int) -> None:
        """Begin to count images, after those that an earlier run did."""
        self.has_started = True
        self._n_found, self._n_skipped = n_found, n_skipped
        self._progress.reset(
            self._task, description="images", total=n_images, completed=n_done, found=n_found, skipped=n_skipped
        )

    def finished_image(self, file_name: str, outcome: Outcome, line: JournalLine) -> None:
        """Print the image's JSON line, or keep its rows for the table."""
        self._n_found += len(line["instances"])
        self._n_skipped += line["status"] == "skipped"
        self._progress.update(self._task, advance=1, found=self._n_found, skipped=self._n_skipped)
        if self._json_lines:
            try:
                click.echo(text_of(line))
            except BrokenPipeError:
                raise
            except OSError as problem:
                raise stdout_error(problem) from problem
            return
        if isinstance(outcome, ImageSkipped):
            if len(self._skipped) < _MAX_SKIPPED:
                self._skipped.append(f"skipped {_printable(file_name)}: {outcome.error}: {outcome.reason}")
            return
        for row in _rows(file_name, outcome):
            if len(self._rows) < _MAX_ROWS:
                self._rows.append(row)
            else:
                self._n_rows_left_out += 1

    def summarise(self, report: RunReport, written: Sequence[Path]) -> None:
        """Print the table, the sum and what was written; after JSON lines there is nothing to add."""
        if self._json_lines:
            return
        console = stdout_console()
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in _TEXT_COLUMNS:
            table.add_column(name, overflow="fold")
        for name in _NUMBER_COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in self._rows:
            # As plain text: a file's name may hold what rich would take for markup.
            table.add_row(*map(Text, row))
        # There are none where a finished run was resumed, or all images were skipped.
        if self._rows:
            console.print(table)
        if self._n_rows_left_out:
            console.print(f"and {self._n_rows_left_out} more rows in the files", highlight=False)
        if report.n_skipped > len(self._skipped):
            self._skipped.append(f"skipped {report.n_skipped - len(self._skipped)} more, as results.jsonl tells")
        for line in (*self._skipped, "", _sum(report), *(_printable(str(path)) for path in written)):
            # Paths stay in one piece, so that they can be copied.
            console.print(Text(line), soft_wrap=True)


def _rows(file_name: str, outcome: PromptedResult) -> list[tuple[str, ...]]:
    """Give an image's rows: one for each instance, or one that says why there is none."""
    name = _printable(file_name)
    if not outcome.instances:
        return [(name, "nothing found")]
    return [_instance_row(name, instance) for instance in outcome.instances]


def _instance_row(name: str, instance: Instance) -> tuple[str, ...]:
    detection = instance.detection
    return (
        name,
        detection.prompt,
        detection.label,
        f"{detection.score:.2f}",
        " ".join(f"{edge:.0f}" for edge in detection.box_xyxy),
        "" if instance.mask is None else str(area_px(instance.mask)),
        "" if instance.mask_score is None else f"{instance.mask_score:.2f}",
    )


def _sum(report: RunReport) -> str:
    images = "1 image" if report.n_done == 1 else f"{report.n_done} images"
    skipped = f", {report.n_skipped} skipped" if report.n_skipped else ""
    return f"{report.n_instances} found in {images}{skipped}, {report.seconds:.1f} s"


def _printable(name: str) -> str:
    """Write out what a line of text can't show, such as line breaks and bytes that are no UTF-8."""
    return "".join(character if character.isprintable() else repr(character)[1:-1] for character in name)
