"""`metrics.jsonl` and the curves of its losses. matplotlib is imported only when they are drawn."""

import json
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TypeAlias

from grounded_seg.errors import InputError
from grounded_seg.files import as_output_error, whole_file, write_text
from grounded_seg.text.documents import json_of
from grounded_seg.train.measure.metrics import LOWER_IS_BETTER

Row: TypeAlias = Mapping[str, float]
"""Figures of one moment, with its `step` and `epoch`."""

_LOG = logging.getLogger(__name__)


class MetricsLog:
    """`metrics.jsonl`, in memory as well: a line for each step's loss, and for each validation."""

    def __init__(
        self,
        path: Path,
        up_to_step: int = 0,
        *,
        writes: bool = True,
        lower_is_better: Collection[str] = LOWER_IS_BETTER,
    ) -> None:
        """Read the rows up to a checkpoint's step, 0 to start anew; `InputError` if one of them is damaged.

        `writes` is off where another process of the same training writes the file, which need not exist.
        """
        self._path = path
        self._writes = writes
        self._lower_is_better = lower_is_better
        self.rows: list[Row] = []
        lines = path.read_bytes().splitlines() if path.exists() and up_to_step else []
        for number, line in enumerate(lines, start=1):
            row = _row_of(line)
            # A kill may cut the last line off.
            if row is None and number < len(lines):
                raise InputError(f"{path}:{number}: this is no row of figures; train again into another folder")
            if row is None or row["step"] > up_to_step:
                break
            self.rows.append(row)

    def start(self) -> None:
        """Cut off in the file what came after the checkpoint, or begin an empty one."""
        if self._writes:
            with as_output_error(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, "".join(json.dumps(row) + "\n" for row in self.rows))

    def add(self, row: Row) -> None:
        """Write a row."""
        self.rows.append(dict(row))
        if self._writes:
            with as_output_error(self._path), self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def best(self, metric: str) -> Row | None:
        """The validation with the best value of a figure, of equal ones with the lowest loss; None before there is any.

        While nothing is found at all, AP is 0 and the loss alone tells that something is being learnt.
        """
        rows = [row for row in self.rows if f"valid_{metric}" in row]
        return max(rows, key=lambda row: (self._goodness(metric, row), -row.get("valid_loss", math.inf)), default=None)

    def epochs_since_best(self, metric: str) -> float:
        """Count the epochs from the first best value of a figure to the last line; 0 before there is any."""
        rows = [row for row in self.rows if f"valid_{metric}" in row]
        best = max(rows, key=lambda row: self._goodness(metric, row), default=None)
        return 0.0 if best is None else self.rows[-1]["epoch"] - best["epoch"]

    def _goodness(self, metric: str, row: Row) -> float:
        value = row[f"valid_{metric}"]
        return -value if metric in self._lower_is_better else value


def _row_of(line: bytes) -> Row | None:
    try:
        row = json_of(line, is_finite=False)
    except ValueError:
        return None
    is_row = isinstance(row, dict) and "step" in row and "epoch" in row
    return row if is_row and all(isinstance(value, int | float) for value in row.values()) else None


def smoothed(losses: Sequence[float]) -> list[float]:
    """Running means of a tenth of the losses, around each of them, and of fewer near the ends.

    >>> smoothed([4.0, 1.0, 1.0])
    [2.5, 2.0, 1.0]
    """
    half = max(1, len(losses) // 20)
    parts = [losses[max(index - half, 0) : index + half + 1] for index in range(len(losses))]
    return [sum(part) / len(part) for part in parts]


def draw_losses(rows: Sequence[Row], path: Path) -> None:
    """Draw the loss of each step and each validation; the log says so once where matplotlib isn't installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError:
        _say_missing(path)
        return
    figure = Figure(figsize=(8.0, 5.0), layout="constrained")
    axes = figure.subplots()
    training = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    validation = [(row["step"], row["valid_loss"]) for row in rows if "valid_loss" in row]
    if training:
        steps, losses = zip(*training, strict=True)
        axes.plot(steps, losses, color="tab:blue", alpha=0.35, linewidth=0.8, label="training, each step")
        axes.plot(steps, smoothed(losses), color="tab:blue", linewidth=2, label="training, smoothed")
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", color="tab:orange", label="validation", markersize=4)
    axes.set_title("Loss of the training")
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_ylabel("loss per token")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3)
    with as_output_error(path), whole_file(path) as file:
        figure.savefig(file, format="png")


@cache
def _say_missing(path: Path) -> None:
    _LOG.warning("%s isn't drawn: it needs matplotlib, pip install 'grounded-seg[train]'.", path)
