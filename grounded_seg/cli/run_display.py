"""Display of a run: JSON lines or a table on stdout, and a progress bar on stderr if that is a terminal."""

import gc
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from grounded_seg.cli.messages import (
    cells,
    counted,
    plain_table,
    show_json,
    stderr_console,
    stdout_console,
    stdout_error,
)
from grounded_seg.cli.progress import StatusLines
from grounded_seg.coco.schema import JournalInstance, JournalLine, xyxy_from_xywh
from grounded_seg.runs.journal import text_of
from grounded_seg.runs.manifest import Counts
from grounded_seg.text.printable import safe_text

_TEXT_COLUMNS = ("image", "prompt", "label")
_NUMBER_COLUMNS = ("score", "x0 y0 x1 y1", "mask px", "mask\nscore")
_N_MASK_COLUMNS = 2
_MAX_ROWS = 50
"""Rows in the table, so that a long run doesn't fill memory and screen; the files have all."""
_MAX_SKIPPED = 20
"""Skipped images shown with their reasons."""


class _RateColumn(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.1f} {task.fields['unit']}/s")


class RunDisplay:
    """The display of one run: prints JSON lines at once, or a table at the end."""

    def __init__(
        self,
        *,
        json_lines: bool,
        boxes_only: bool = False,
        quiet: bool = False,
        at_start: Sequence[Callable[[], None]] = (),
    ) -> None:
        """Choose what is shown; nothing is yet.

        Args:
            json_lines: Print the journal's lines instead of a table.
            boxes_only: Leave out the columns of masks.
            quiet: Show no progress.
            at_start: What else to print when the images begin, such as notes.
        """
        self._json_lines = json_lines
        self._number_columns = _NUMBER_COLUMNS[: -_N_MASK_COLUMNS if boxes_only else None]
        self._at_start = at_start
        self._rows: list[tuple[str, ...]] = []
        self._n_rows_left_out = 0
        self._skipped: list[str] = []
        # No bar beside JSON lines on one screen: they would mix.
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[found]} found, {task.fields[skipped]} skipped"),
            console=stderr_console(),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=quiet or not sys.stderr.isatty() or (json_lines and sys.stdout.isatty()),
        )
        self._lines = StatusLines(on=not quiet and not sys.stderr.isatty())
        self._task = self._progress.add_task("loading models", total=None, found=0, skipped=0, unit="images")
        self._counts, self._n_images = Counts(), 0
        self.has_started = False
        """Whether the models are loaded and images are being processed."""

    def __enter__(self) -> "RunDisplay":
        self._progress.start()
        # Until the images begin, as for `collection_paused`: what is imported and loaded stays to the end.
        gc.disable()
        return self

    def __exit__(self, *_exception: object) -> None:
        gc.enable()
        self._progress.stop()

    def fetching(self, n_bytes: int, n_total: int | None) -> None:
        """Show the progress of a download."""
        # Downloads may take hours.
        gc.enable()
        total_mb = None if n_total is None else n_total // 10**6
        self._progress.update(
            self._task, description="fetching, MB", completed=n_bytes // 10**6, total=total_mb, unit="MB"
        )
        self._lines.show("MB fetched", n_bytes // 10**6, total_mb)

    def started(self, n_images: int, counts: Counts) -> None:
        """Start counting images, after those that an earlier run finished."""
        self.has_started = True
        gc.freeze()
        gc.enable()
        if self._at_start:
            # Not beside the bar.
            self._progress.stop()
            for tell in self._at_start:
                tell()
            self._progress.start()
        self._counts, self._n_images = replace(counts), n_images
        # A reset forgets the fields that aren't given anew.
        self._progress.reset(
            self._task,
            description="images",
            total=n_images,
            completed=counts.n_images,
            found=counts.n_instances,
            skipped=counts.n_skipped,
            unit="images",
        )
        self._show_counts()

    def finished_image(self, line: JournalLine) -> None:
        """Print an image's JSON line, or keep its rows for the table."""
        self._counts.add_line(line)
        self._show_counts()
        if self._json_lines:
            try:
                show_json(text_of(line))
            except BrokenPipeError:
                raise
            except OSError as problem:
                raise stdout_error(problem) from problem
            return
        name = safe_text(line["file_name"])
        if line["status"] == "skipped":
            if len(self._skipped) < _MAX_SKIPPED:
                self._skipped.append(f"skipped {name}: {line['error']}: {line['reason']}")
            return
        rows = [_row(name, one) for one in line["instances"]] or [(name, "nothing found")]
        n_shown = min(len(rows), _MAX_ROWS - len(self._rows))
        self._rows += rows[:n_shown]
        self._n_rows_left_out += len(rows) - n_shown

    def summarise(self, counts: Counts, written: Sequence[Path]) -> None:
        """Print the table, the totals and the paths written; nothing after JSON lines."""
        if self._json_lines:
            return
        console = stdout_console()
        table = plain_table(*_TEXT_COLUMNS, right=self._number_columns)
        for column in table.columns:
            column.no_wrap = column.justify == "right"
            column.overflow = "ellipsis" if column.no_wrap else "fold"
        for row in self._rows:
            table.add_row(*cells(*row[: len(table.columns)]))
        # A finished run that is resumed has no rows, nor has one whose images were all skipped.
        if self._rows:
            console.print(table)
        if self._n_rows_left_out:
            console.print(f"and {self._n_rows_left_out} more rows in the files", highlight=False)
        if counts.n_skipped > len(self._skipped):
            more = " more" if self._skipped else ""
            self._skipped.append(f"skipped {counts.n_skipped - len(self._skipped)}{more}, listed in results.jsonl")
        for line in (*self._skipped, "", _sum(counts), *map(str, written)):
            # Paths aren't wrapped, so that they can be copied.
            console.print(*cells(line), soft_wrap=True)

    def _show_counts(self) -> None:
        done, n_found, n_skipped = self._counts.n_images, self._counts.n_instances, self._counts.n_skipped
        self._progress.update(self._task, completed=done, found=n_found, skipped=n_skipped)
        self._lines.show("images", done, self._n_images, f"{n_found} found, {n_skipped} skipped")


def _row(name: str, instance: JournalInstance) -> tuple[str, ...]:
    attributes = instance["attributes"]
    mask_score = attributes["mask_score"]
    x, y, width, height = instance["detector_bbox"]
    return (
        name,
        attributes["prompt"],
        attributes["label"],
        f"{instance['score']:.2f}",
        " ".join(f"{edge:.0f}" for edge in xyxy_from_xywh((x, y, width, height))),
        f"{instance['area']:.0f}" if instance["segmentation"] else "",
        "" if mask_score is None else f"{mask_score:.2f}",
    )


def _sum(counts: Counts) -> str:
    images = counted(counts.n_done, "image")
    skipped = f", {counts.n_skipped} skipped" if counts.n_skipped else ""
    return f"{counts.n_instances} found in {images}{skipped}, {counts.seconds['total']:.1f} s"
