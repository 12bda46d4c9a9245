"""`report.md`: base against tuned on the test split, what is left of older knowledge, and answers side by side."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from grounded_seg.files import write_text
from grounded_seg.scoring.compare import FigureChange, figure_table
from grounded_seg.scoring.measure import Scores
from grounded_seg.train.data.checks import Progress
from grounded_seg.train.data.questions import all_prompts, all_questions
from grounded_seg.train.data.records import BoxExample, Example, TextExample, TrainingData
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.comparison import Pair, images_of, pair_on, write_test_file
from grounded_seg.train.measure.metrics import Answered, figures_of
from grounded_seg.train.measure.pictures import picture_rows, shown_of_answers, shown_of_pair
from grounded_seg.train.measure.split import ask
from grounded_seg.train.settings import PromptForm, TrainSettings

_N_ROWS = 20
"""Images, or texts, that are shown side by side."""
_KNOWN_AP = 0.1
"""A class that the base finds at least so well is one that it knew."""
_Rows = Sequence[tuple[str, float | None, float | None]]
"""Name, the base's figure and the tuned model's."""
_SIDES = ("image", "truth", "base", "tuned")


def write_report(settings: TrainSettings, data: TrainingData, progress: Progress) -> dict[str, Any]:
    """Measure base and tuned on the test split and write `report.md`, with its pictures and `test.json`.

    Questions of one class each are asked through the pipeline, as `eval` does it, masks too where the data set has some
    and the segmenter's weights are on this disk. The form `od` and texts are asked as they were trained.

    Returns:
        The figures of the test split by name, each with that of `base` and of `tuned`; those of classes by class.
    """
    folder = TrainFolder(settings.output)
    boxed = [one for one in data.test.examples if isinstance(one, BoxExample)]
    as_run = settings.prompt_form is PromptForm.CLASS
    parts = [f"# {folder.root.name}\n", f"Base: {_base_name(settings)}. Test split: {len(data.test.examples)} rows."]
    figures: dict[str, Any] = {}
    if as_run and boxed:
        file, images = write_test_file(boxed, all_prompts(data, settings), folder)
        pair = pair_on(file, images, settings, progress)
        parts += _boxes_part(pair, images, folder)
        figures |= _both(_figure_rows(pair))
        figures["per_class"] = _both(_class_rows(pair))
    others = [one for one in data.test.examples if not (as_run and isinstance(one, BoxExample))]
    if others:
        answers, compared = _answers_part(others, data, settings, folder)
        parts += answers
        figures |= compared
    if settings.retention is not None:
        pair = pair_on(settings.retention, images_of(settings.retention), settings, progress)
        known = f"What is left on {settings.retention.name}, a data set of what the base knew:"
        parts += ["## Retention", known, _class_table(pair)]
        figures["retention"] = _both(_class_rows(pair))
    write_text(folder.report, "\n\n".join(parts) + "\n")
    return figures


def _boxes_part(pair: Pair, images: Path, folder: TrainFolder) -> list[str]:
    classes = tuple(pair.base.scores.data_set.classes.values())
    known = [name for name, base, _ in _class_rows(pair) if base is not None and base >= _KNOWN_AP]
    text = f"The base knew {', '.join(known)}." if known else "The base knew none of the classes."
    return [
        "## Test split",
        _change_table(_figure_rows(pair)),
        f"A box counts as found from a score of {pair.base.scores.score_threshold:g} upwards.",
        "### Retention, class by class",
        f"{text} A class counts as known from a box AP of {_KNOWN_AP:g} upwards.",
        _class_table(pair),
        "### Images",
        _table(_SIDES, picture_rows(islice(shown_of_pair(pair, images), _N_ROWS), classes, folder.root)),
    ]


def _figure_rows(pair: Pair) -> list[tuple[str, float | None, float | None]]:
    base, tuned = pair.base.scores, pair.tuned.scores
    return [
        *(
            (name, _stage_figure(base, stage, figure), _stage_figure(tuned, stage, figure))
            for name, stage, figure in (
                ("box AP", "boxes", "AP"),
                ("box AP50", "boxes", "AP50"),
                ("mask AP", "masks", "AP"),
            )
        ),
        ("present prompts with a box", base.presence.IL_recall, tuned.presence.IL_recall),
        ("absent prompts with a box", base.presence.IL_FPR, tuned.presence.IL_FPR),
    ]


def _stage_figure(scores: Scores, stage: str, figure: str) -> float | None:
    found = scores.stages().get(stage)
    value: float | None = None if found is None else getattr(found.summary, figure)
    return value


def _class_rows(pair: Pair) -> list[tuple[str, float | None, float | None]]:
    sides = [{one.name: one.AP for one in side.scores.boxes.summary.per_class} for side in (pair.base, pair.tuned)]
    return [(name, sides[0][name], sides[1].get(name)) for name in sides[0]]


def _class_table(pair: Pair) -> str:
    return _change_table(_class_rows(pair), "class", "base box AP", "tuned box AP")


def _change_table(rows: _Rows, what: str = "figure", base: str = "base", tuned: str = "tuned") -> str:
    changes = [FigureChange("", _cell(name), before, after, None) for name, before, after in rows]
    return "\n".join(figure_table(changes, what, base, tuned))


def _both(rows: _Rows) -> dict[str, Any]:
    return {name: {"base": base, "tuned": tuned} for name, base, tuned in rows}


def _answers_part(
    examples: Sequence[Example], data: TrainingData, settings: TrainSettings, folder: TrainFolder
) -> tuple[list[str], dict[str, Any]]:
    """Compare answers to questions that `run` doesn't ask: as pictures where they are boxes, else as texts."""
    questions = all_questions(examples, all_prompts(data, settings), settings.prompt_form)
    before, after = (ask(settings, result, questions) for result in (None, folder.result(settings.method)))
    base, tuned = (figures_of(side, settings.metrics) for side in (before, after))
    rows = [(name, base.get(name), tuned[name]) for name in tuned]
    parts = ["## Answers", _change_table(rows)]
    shown = islice(shown_of_answers(before, after), _N_ROWS)
    if pictures := picture_rows(shown, data.classes, folder.root):
        parts.append(_table(_SIDES, pictures))
    sides = zip(before, after, strict=True)
    texts = [_answer_row(old, new) for old, new in sides if isinstance(old.question.example, TextExample)]
    if texts:
        parts.append(_table(("image", "question", "truth", "base", "tuned"), texts[:_N_ROWS]))
    return parts, _both(rows)


def _answer_row(base: Answered, tuned: Answered) -> tuple[str, ...]:
    question = base.question
    return question.example.image.name, question.text, question.answer, base.text, tuned.text


def _base_name(settings: TrainSettings) -> str:
    return settings.models.detector or f"the preset {settings.models.preset}'s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """Keep a text in its cell: its own bars and line breaks would end it, and `<` would start HTML."""
    flat = " ".join(text.split()).replace("|", "\\|")
    return flat.replace("<", "&lt;")
