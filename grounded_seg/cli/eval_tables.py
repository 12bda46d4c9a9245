"""Tables of an evaluation on stdout, with `-` for figures that have no ground truth."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from rich.table import Table

from grounded_seg.cli.messages import cells, counted, plain_table, stdout_console
from grounded_seg.evaluation.evaluate import Evaluation
from grounded_seg.scoring.average_precision import FIGURES
from grounded_seg.scoring.columns import KIND_NAMES
from grounded_seg.scoring.error_types import ErrorKind
from grounded_seg.scoring.fit_maps import CalibrationReport
from grounded_seg.scoring.measure import PRESENCE_FIGURES, Scores

_STAGE_TITLES = {"boxes": "boxes", "masks": "masks", "masks_given_true_boxes": "masks given the true boxes"}
_MAX_ROWS = 100
"""Classes or prompts in a table; the JSON has all."""


def show_evaluation(evaluation: Evaluation) -> None:
    """Print all tables and figures."""
    console, scores = stdout_console(), evaluation.scores
    data_set = scores.data_set
    n_classes = len(data_set.classes)
    classes = "1 class" if n_classes == 1 else f"{n_classes} classes"
    head = f"{counted(len(data_set.images), 'image')}, {counted(len(data_set.objects), 'object')}, {classes}"
    console.print(*cells(head), soft_wrap=True)
    per_class = (_per_class(scores), _per_prompt(scores), _thresholds(scores))
    for table in (_figures(scores), *per_class, _presence(scores), _errors(scores)):
        if table is not None:
            console.print()
            console.print(table)
    console.print()
    for line in (*_shares(scores), *_speed(evaluation.speed)):
        console.print(*cells(line), soft_wrap=True)


def show_calibration(made: CalibrationReport) -> None:
    """Print how each map does, before and after, on images that it wasn't fitted to."""
    figures = ("boxes", "error before", "error after", "Brier score before", "Brier score after")
    table = plain_table("class", "map", right=figures)
    for one in islice(made.judged, _MAX_ROWS + 1):
        method = one.method if one.name is not None else "each its own"
        values = map(_shown, (*one.errors, *one.briers))
        table.add_row(*cells(one.name or "all classes"), method, str(one.before.n), *values)
    stdout_console().print(table)


def _figures(scores: Scores) -> Table:
    table = plain_table("", right=FIGURES)
    for name, stage in scores.stages().items():
        table.add_row(_STAGE_TITLES[name], *(_shown(getattr(stage.summary, figure)) for figure in FIGURES))
        if name in scores.intervals:
            table.add_row("  95 % interval", *(_interval(scores, name, figure) for figure in FIGURES))
    return table


def _per_class(scores: Scores) -> Table:
    per_stage = {name: stage.summary.per_class for name, stage in scores.stages().items()}
    return _average_precisions(["class"], [[name] for name in scores.index.names], per_stage)


def _per_prompt(scores: Scores) -> Table | None:
    """The table per prompt, if prompts and classes differ."""
    labels = [[one.prompt, one.class_name] for one in scores.boxes.per_prompt]
    if all(prompt == class_name for prompt, class_name in labels):
        return None
    per_stage = {name: stage.per_prompt for name, stage in scores.stages().items() if stage.per_prompt}
    return _average_precisions(["prompt", "class"], labels, per_stage)


def _average_precisions(
    columns: Sequence[str], labels: Sequence[Sequence[str]], per_stage: Mapping[str, Sequence[Any]]
) -> Table:
    """A row per class or prompt: its labels, and in each stage its AP and AP50."""
    figures = [f"{_STAGE_TITLES[name]}\n{figure}" for name in per_stage for figure in ("AP", "AP50")]
    table = plain_table(*columns, right=figures)
    for texts, *summaries in islice(zip(labels, *per_stage.values(), strict=True), _MAX_ROWS):
        values = (_shown(value) for one in summaries for value in (one.AP, one.AP50))
        table.add_row(*cells(*texts), *values)
    return table


def _thresholds(scores: Scores) -> Table | None:
    """The thresholds of boxes: with the best F1, and from which on 90 and 95 % are right, of classes that have them."""
    columns = ("best F1 of boxes", "threshold", "precision", "recall", "90 % precision from", "95 % precision from")
    table = plain_table("class", right=columns)
    for one in islice(scores.thresholds, _MAX_ROWS):
        if (best := one.best_f1) is None:
            continue
        spans = map(_span, (best.F1_interval, best.threshold_interval, best.precision_interval, None))
        values = (_shown(best.F1), f"{best.threshold:g}", _shown(best.precision), _shown(best.recall))
        figures = (value + span for value, span in zip(values, spans, strict=True))
        reached = (one.precision_90, one.precision_95)
        others = ("-" if at is None else f"{at.threshold:g}{_span(at.threshold_interval)}" for at in reached)
        table.add_row(*cells(one.name), *figures, *others)
    return table if table.row_count else None


def _presence(scores: Scores) -> Table:
    presence = scores.presence
    title = f"presence, score >= {scores.score_threshold:g}"
    table = plain_table(title, right=("present", "absent", *PRESENCE_FIGURES, "pmF1"))
    values = map(_shown, (presence.IL_FPR, presence.IL_MCC, presence.cgF1, presence.pmF1))
    measured_on = f"measured on {KIND_NAMES[scores.presence_kind]}"
    table.add_row(measured_on, str(presence.n_positive), str(presence.n_negative), *values)
    if "presence" in scores.intervals:
        spans = (_interval(scores, "presence", figure) for figure in PRESENCE_FIGURES)
        table.add_row("  95 % interval", "", "", *spans, "")
    return table


def _errors(scores: Scores) -> Table:
    """The number of errors of each type, and the AP50 that they cost."""
    kinds = list(scores.error_summaries)
    table = plain_table(
        "error", right=[f"{KIND_NAMES[kind]}\n{what}" for kind in kinds for what in ("count", "AP50 cost")]
    )
    for error in ErrorKind:
        costs = [scores.error_summaries[kind].per_kind[error] for kind in kinds]
        table.add_row(error.value, *(text for one in costs for text in (str(one.n), _shown(one.AP50_cost))))
    return table


def _shares(scores: Scores) -> Iterator[str]:
    for kind, one in scores.calibration.items():
        brier = f"Brier score {_shown(one.brier)}"
        yield f"calibration error of the scores, {KIND_NAMES[kind]}: {_shown(one.error)}, {brier}"
    if (loss := scores.loss) is not None:
        yield f"mask AP lost to the detector {_shown(loss.detector)}, to the segmenter {_shown(loss.segmenter)}"
    if (missed := scores.missed_masks) is not None:
        yield f"objects without a mask at IoU 0.5: {missed.box_missed} without a box too, {missed.box_found} with a box"


def _speed(speed: Mapping[str, float] | None) -> list[str]:
    if not speed:
        return []
    parts = [f"{name.removesuffix('_s_per_image')} {value:.3f} s" for name, value in speed.items() if "_s_" in name]
    rate = f"{speed['images_per_s']:.2f} images/s; " if "images_per_s" in speed else ""
    return [f"{rate}per image: {', '.join(parts)}"]


def _interval(scores: Scores, part: str, figure: str) -> str:
    span = scores.intervals[part].get(figure)
    return "-" if span is None else f"{span[0]:.3f}\n{span[1]:.3f}"


def _span(interval: tuple[float, float] | None) -> str:
    """An interval below its figure; nothing where there is none."""
    return "" if interval is None else f"\n{interval[0]:.3f}\n{interval[1]:.3f}"


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
