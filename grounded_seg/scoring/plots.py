"""Plots of an evaluation: precision against recall, scores, reliability, and which class is taken for which.

The home of matplotlib, which is an optional extra; it is imported when a picture is drawn, and never through pyplot,
which keeps global state.
"""

from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from grounded_seg.errors import UsageError
from grounded_seg.files import as_output_error
from grounded_seg.scoring.average_precision import RECALL_THRESHOLDS
from grounded_seg.scoring.calibration import Calibration
from grounded_seg.scoring.columns import KIND_NAMES
from grounded_seg.scoring.error_types import ErrorKind
from grounded_seg.scoring.fit_maps import JudgedMap
from grounded_seg.scoring.matching import ALL_SIZES, AT_50
from grounded_seg.scoring.measure import Scores, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_Draw: TypeAlias = "Callable[[Axes, Scores, Stage], None]"

_MAX_CURVES = 12
"""Classes with a curve of their own; the mean is over all."""
_MAX_CONFUSED = 30
"""Classes in the confusion matrix: with more nothing could be read."""


def check_can_plot() -> None:
    """Raise a `UsageError` where matplotlib isn't installed, before anything is measured that is to be drawn."""
    if find_spec("matplotlib") is None:
        raise UsageError("--plots needs matplotlib; install it with `pip install 'grounded-seg[plots]'`")


def write_plots(scores: Scores, folder: Path) -> list[Path]:
    """Draw every plot of boxes and, where measured, of masks into a folder, and list the files."""
    check_can_plot()
    from matplotlib.figure import Figure

    paths = []
    stages = [stage for stage in (scores.boxes, scores.masks) if stage is not None]
    for stage, (name, draw) in product(stages, _PICTURES.items()):
        path = folder / f"{name}-{KIND_NAMES[stage.kind]}.png"
        figure = Figure(figsize=(7, 5.5), layout="constrained")
        draw(figure.add_subplot(), scores, stage)
        with as_output_error(path, "another folder with --plots"):
            folder.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=120)
        paths.append(path)
    return paths


def _precision_recall(axes: "Axes", _: Scores, stage: Stage) -> None:
    """Draw precision at each recall at IoU .5, a line per class with most objects, and the mean over all classes."""
    curves = stage.tables.precision[:, ALL_SIZES, AT_50]
    measured = np.flatnonzero(~np.isnan(curves[:, 0]))
    n_objects = np.bincount(stage.matches.truth_category, minlength=len(curves))
    most = sorted(measured.tolist(), key=lambda one: -n_objects[one])[:_MAX_CURVES]
    # In the order of the tables.
    for number, category in enumerate(sorted(most)):
        label = f"{_text(stage.matches.index.names[category])} {curves[category].mean():.2f}"
        # Ten colours, and then again with another line.
        style = "-" if number < 10 else "--"
        axes.plot(RECALL_THRESHOLDS, curves[category], style, linewidth=1.2, label=label, color=f"C{number % 10}")
    if len(measured):
        mean = curves[measured].mean(axis=0)
        axes.plot(RECALL_THRESHOLDS, mean, color="black", linewidth=2.5, label=f"all classes {mean.mean():.2f}")
        # Beside the picture: lines go anywhere.
        axes.legend(title="AP50", fontsize="small", loc="center left", bbox_to_anchor=(1.01, 0.5))
    axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.set_title(f"Precision and recall at IoU 0.5: {KIND_NAMES[stage.kind]}")


def _score_histogram(axes: "Axes", _: Scores, stage: Stage) -> None:
    """Count predictions by score, right and wrong ones apart, each bar with its number."""
    matches = stage.matches
    judged = ~matches.ignored[:, ALL_SIZES, AT_50]
    is_right = matches.matched[:, ALL_SIZES, AT_50]
    edges = np.linspace(0, 1, 21)
    width = (edges[1] - edges[0]) * 0.45
    for what, chosen, colour, start in (
        ("right", judged & is_right, "tab:blue", edges[:-1]),
        ("wrong", judged & ~is_right, "tab:orange", edges[:-1] + width),
    ):
        counts, _edges = np.histogram(matches.score[chosen], edges)
        bars = axes.bar(start, counts, width, align="edge", color=colour, label=f"{what} ({counts.sum()})")
        texts = [str(count) if count else "" for count in counts.tolist()]
        axes.bar_label(bars, texts, fontsize=6, rotation=90, padding=2)
    if judged.any():
        # A thousand boxes of hardly any score would leave nothing to see of the rest; a single one has a bar too.
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.6, top=axes.get_ylim()[1] * 2.5)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
    axes.set(xlabel="score", ylabel="predictions", xlim=(0, 1))
    axes.set_title(f"Scores of right and wrong predictions at IoU 0.5: {KIND_NAMES[stage.kind]}")


def write_reliability(judged: JudgedMap, folder: Path) -> Path:
    """Draw the reliability of scores and, beside it, of the probabilities made of them into a folder.

    Raises:
        UsageError: If matplotlib isn't installed.
        OutputError: If the file can't be written.
    """
    check_can_plot()
    from matplotlib.figure import Figure

    path = folder / "calibration.png"
    parts = [("scores", judged.before), ("probabilities, by cross-validation", judged.after)]
    drawn = [(what, one) for what, one in parts if one is not None]
    figure = Figure(figsize=(7 * len(drawn), 5.5), layout="constrained")
    for axes, (what, calibration) in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
        _bins(axes, calibration, f"Reliability of {what}")
    with as_output_error(path, "another folder with --plots"):
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    return path


def _reliability(axes: "Axes", scores: Scores, stage: Stage) -> None:
    """Draw the share that is right in each bin of scores; on the diagonal a score means what it says."""
    _bins(axes, scores.calibration[stage.kind], f"Reliability of {KIND_NAMES[stage.kind]} at IoU 0.5")


def _bins(axes: "Axes", calibration: Calibration, title: str) -> None:
    filled = [one for one in calibration.bins if one.n]
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="a score means what it says")
    heights = [one.share_right or 0.0 for one in filled]
    middles = [(one.low + one.high) / 2 for one in filled]
    axes.bar(middles, heights, width=0.09, alpha=0.6, label="share that is right, and number of predictions")
    axes.plot([one.mean_score or 0.0 for one in filled], heights, "o", color="black", label="mean score")
    for one, middle, height in zip(filled, middles, heights, strict=True):
        above = (0, 6)
        axes.annotate(str(one.n), (middle, height), above, textcoords="offset points", ha="center", fontsize="small")
    error = "-" if calibration.error is None else f"{calibration.error:.3f}"
    axes.set(xlabel="score", ylabel="share that is right", xlim=(0, 1), ylim=(0, 1.12))
    axes.set_title(f"{title}: expected calibration error {error}")
    # Bars may stand anywhere: below the picture nothing is hidden.
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), fontsize="small", ncols=3)


def _confusion(axes: "Axes", scores: Scores, stage: Stage) -> None:
    """Count which class objects were taken for, with predictions at or above the threshold, those on nothing too."""
    matches, errors = stage.matches, scores.errors[stage.kind]
    n_classes = matches.index.n_classes
    table = np.zeros((n_classes + 1, n_classes + 1), dtype=np.int64)
    used = np.zeros(len(matches.truth_image), dtype=np.bool_)
    for row in np.flatnonzero(matches.score >= scores.score_threshold).tolist():
        kind = errors.kind[row]
        truth = int(matches.truth[row]) if kind is None else int(errors.truth[row]) if kind is ErrorKind.CLASS else -1
        if kind is None and (truth < 0 or not matches.truth_counts[truth, ALL_SIZES]):
            continue
        if truth >= 0:
            used[truth] = True
        table[n_classes if truth < 0 else matches.truth_category[truth], matches.category[row]] += 1
    missed = matches.truth_counts[:, ALL_SIZES] & ~used
    table[:n_classes, n_classes] = np.bincount(matches.truth_category[missed], minlength=n_classes)
    # Those with most confusion are worth the room.
    confused = table.sum(axis=1)[:n_classes] + table.sum(axis=0)[:n_classes] - 2 * np.diag(table)[:n_classes]
    shown = [*sorted(np.argsort(-confused, kind="stable")[:_MAX_CONFUSED].tolist()), n_classes]
    names = [*map(_text, matches.index.names), "nothing"]
    part = table[np.ix_(shown, shown)]
    shares = part / np.maximum(part.sum(axis=1, keepdims=True), 1)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure = axes.get_figure()
    if figure is not None:
        # One scale for every picture: the numbers are counts, the colour is their share of the row.
        figure.colorbar(image, ax=axes, label="share of the row", shrink=0.8)
    size = "small" if len(shown) <= 12 else 5
    axes.set_xticks(range(len(shown)), [names[category] for category in shown], rotation=90, fontsize=size)
    axes.set_yticks(range(len(shown)), [names[category] for category in shown], fontsize=size)
    for (row, column), count in np.ndenumerate(part):
        if count:
            ink = "white" if shares[row, column] > 0.6 else "black"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=size, color=ink)
    axes.set(xlabel=f"predicted, score at least {scores.score_threshold:g}", ylabel="true")
    axes.set_title(f"What is taken for what at IoU 0.5: {KIND_NAMES[stage.kind]}")


_PICTURES: dict[str, _Draw] = {
    "precision-recall": _precision_recall,
    "scores": _score_histogram,
    "reliability": _reliability,
    "confusion": _confusion,
}


def _text(name: str) -> str:
    """Keep a name on one short line, and its dollar signs from being read as formulas."""
    plain = " ".join(name.split()).replace("$", r"\$")
    return plain if len(plain) <= 30 else f"{plain[:29]}…"
