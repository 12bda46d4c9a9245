"""Tables of an evaluation on stdout, with `-` for figures that have no ground truth."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table
from rich.text import Text

from grounded_seg.cli.messages import stdout_console
from grounded_seg.evaluation.evaluate import Evaluation
from grounded_seg.scoring.average_precision import FIGURES
from grounded_seg.scoring.columns import KIND_NAMES
from grounded_seg.scoring.error_types import ErrorKind
from grounded_seg.scoring.measure import PRESENCE_FIGURES, Scores

_STAGE_TITLES = {"boxes": "boxes", "masks": "masks", "masks_given_true_boxes": "masks given the true boxes"}
_MAX_CLASSES = 100
"""Rows in a table; the JSON has all."""


def show_evaluation(evaluation: Evaluation) -> None:
    """Print all tables and figures."""
    console, scores = stdout_console(), evaluation.scores
    data_set = scores.data_set
    _line(console, f"{len(data_set.images)} images, {len(data_set.objects)} objects, {len(data_set.classes)} classes")
    for table in (_figures(scores), _per_class(scores), _per_prompt(scores), _presence(scores), _errors(scores)):
        if table is not None:
            console.print()
            console.print(table)
    console.print()
    for line in (*_shares(scores), *_speed(evaluation.speed)):
        _line(console, line)


def _figures(scores: Scores) -> Table:
    table = _table("", *FIGURES)
    for name, stage in scores.stages().items():
        values = [getattr(stage.summary, figure) for figure in FIGURES]
        table.add_row(_STAGE_TITLES[name], *map(_shown, values))
        if name in scores.intervals:
            table.add_row("  95 % interval", *(_interval(scores, name, figure) for figure in FIGURES))
    return table


def _per_class(scores: Scores) -> Table:
    stages = scores.stages()
    table = _table("class", *(f"{_STAGE_TITLES[name]}\n{figure}" for name in stages for figure in ("AP", "AP50")))
    for index, name in enumerate(scores.index.names[:_MAX_CLASSES]):
        per_stage = [stage.summary.per_class[index] for stage in stages.values()]
        table.add_row(Text(name), *(_shown(value) for one in per_stage for value in (one.AP, one.AP50)))
    return table


def _per_prompt(scores: Scores) -> Table | None:
    """Make the table per prompt, if prompts and classes differ."""
    stages = {name: stage for name, stage in scores.stages().items() if stage.per_prompt}
    if all(one.prompt == one.class_name for one in scores.boxes.per_prompt):
        return None
    titles = (f"{_STAGE_TITLES[name]}\n{figure}" for name in stages for figure in ("AP", "AP50"))
    table = _table("prompt", "class", *titles)
    for index, one in enumerate(scores.boxes.per_prompt[:_MAX_CLASSES]):
        per_stage = [stage.per_prompt[index] for stage in stages.values()]
        figures = (_shown(value) for each in per_stage for value in (each.AP, each.AP50))
        table.add_row(Text(one.prompt), Text(one.class_name), *figures)
    return table


def _presence(scores: Scores) -> Table:
    presence = scores.presence
    table = _table(f"presence, score >= {scores.score_threshold:g}", "present", "absent", *PRESENCE_FIGURES, "pmF1")
    values = (presence.IL_FPR, presence.IL_MCC, presence.cgF1, presence.pmF1)
    table.add_row(
        f"measured on {KIND_NAMES[scores.presence_kind]}",
        str(presence.n_positive),
        str(presence.n_negative),
        *map(_shown, values),
    )
    if "presence" in scores.intervals:
        spans = (_interval(scores, "presence", figure) for figure in PRESENCE_FIGURES)
        table.add_row("  95 % interval", "", "", *spans, "")
    return table


def _errors(scores: Scores) -> Table:
    """Make the table of error types, with the number of each and the AP50 that it costs."""
    kinds = list(scores.error_summaries)
    table = _table("error", *(f"{KIND_NAMES[kind]}\n{what}" for kind in kinds for what in ("count", "AP50 cost")))
    for error in ErrorKind:
        costs = [scores.error_summaries[kind].per_kind[error] for kind in kinds]
        table.add_row(error.value, *(text for one in costs for text in (str(one.n), _shown(one.AP50_cost))))
    return table


def _shares(scores: Scores) -> list[str]:
    lines = [
        f"calibration error of the scores, {KIND_NAMES[kind]}: {_shown(one.error)}"
        for kind, one in scores.calibration.items()
    ]
    if scores.loss is not None:
        lines.append(
            f"mask AP lost to the detector {_shown(scores.loss.detector)}, to the segmenter "
            f"{_shown(scores.loss.segmenter)}"
        )
    if scores.missed_masks is not None:
        missed = scores.missed_masks
        lines.append(
            f"objects without a mask at IoU 0.5: {missed.box_missed} without a box too, {missed.box_found} with a box"
        )
    return lines


def _speed(speed: Mapping[str, float] | None) -> list[str]:
    if not speed:
        return []
    parts = [f"{name.removesuffix('_s_per_image')} {value:.3f} s" for name, value in speed.items() if "_s_" in name]
    rate = f"{speed['images_per_s']:.2f} images/s; " if "images_per_s" in speed else ""
    return [f"{rate}per image: {', '.join(parts)}"]


def _interval(scores: Scores, part: str, figure: str) -> str:
    span = scores.intervals[part].get(figure)
    return "-" if span is None else f"{span[0]:.3f}\n{span[1]:.3f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _table(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def _line(console: Console, text: str) -> None:
    console.print(Text(text), soft_wrap=True)
