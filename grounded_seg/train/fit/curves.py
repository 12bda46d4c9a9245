"""The curves of a training's losses as a picture. matplotlib is imported only when one is drawn."""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from grounded_seg.files import as_output_error
from grounded_seg.train.folder import Row

_LOG = logging.getLogger(__name__)
_SIZE_INCHES = (8.0, 5.0)


def draw_losses(rows: Sequence[Row], path: Path) -> None:
    """Draw the loss of each step and of each validation.

    Args:
        rows: Of `metrics.jsonl`.
        path: Where to, whole or not at all; the log says so once where matplotlib isn't installed.

    Raises:
        OutputError: If it can't be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        _say_missing(path)
        return
    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for key, label, style in (("loss", "training", "-"), ("valid_loss", "validation", "o-")):
        points = [(row["step"], row[key]) for row in rows if key in row]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=4)
    axes.set_xlabel("step")
    axes.set_ylabel("loss per token")
    axes.set_ylim(bottom=0)
    axes.legend()
    part = path.with_suffix(".part")
    with as_output_error():
        figure.savefig(part, format="png")
        part.replace(path)


@cache
def _say_missing(path: Path) -> None:
    """Say it once, although a training draws again and again."""
    _LOG.warning("%s isn't drawn: it needs a package, pip install 'grounded-seg[train]'.", path)
