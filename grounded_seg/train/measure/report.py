"""`report.md`: base against tuned on the test split, what is left of older knowledge, and answers side by side."""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.files import as_output_error, write_text
from grounded_seg.images.draw import draw, save_picture
from grounded_seg.images.read import read_image
from grounded_seg.records import BoxXyxy, Detection, ImageResult, Instance
from grounded_seg.scoring.compare import FigureChange, figure_table
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.checks import Progress, WorkProgress
from grounded_seg.train.data.questions import all_prompts, all_questions
from grounded_seg.train.data.records import BoxExample, Example, TextExample, TrainingData
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.answers import ask
from grounded_seg.train.measure.comparison import Pair, images_of, leaves_out_adapter, pair_on, write_test_file
from grounded_seg.train.measure.metrics import LOWER_IS_BETTER, Answered, figures_of, in_words, lower_is_better
from grounded_seg.train.settings import PromptForm, TrainSettings

_N_ROWS = 20
"""Images, or texts, that are shown side by side."""
_MAX_CELL = 200
"""Characters of a text in a table."""
_KNOWN_AP = 0.1
"""A class that the base finds at least so well is one that it knew."""
_Rows = Sequence[tuple[str, float | None, float | None]]
"""Name, the base's figure and the tuned model's."""
_SIDES = ("image", "truth", "base", "tuned")
_Shown = tuple[Path, str, Sequence[tuple[Instance, ...]]]
"""Path and name of an image, and its boxes for each of these sides."""
_LOWER_IS_BETTER = "absent prompts with a box"
_FIGURES = (
    ("box AP", "boxes", "AP"),
    ("box AP50", "boxes", "AP50"),
    ("mask AP", "masks", "AP"),
    ("present prompts with a box", "presence", "IL_recall"),
    (_LOWER_IS_BETTER, "presence", "IL_FPR"),
)


def write_report(settings: TrainSettings, data: TrainingData, progress: WorkProgress) -> dict[str, Any]:
    """Measure base and tuned on the test split and write `report.md`, with its pictures and `test.json`.

    Questions of one class each are asked through the pipeline, as `eval` does it, masks too where the data set has some
    and the segmenter's weights are on this disk. The form `od` and texts are asked as they were trained.

    Returns:
        The figures of the test split by name, each with that of `base` and of `tuned`; those of classes by class.
    """
    folder = TrainFolder(settings.output)
    base = settings.models.detector or f"the preset {settings.models.preset}'s"
    if leaves_out_adapter(settings):
        base = f"the detector of the preset {settings.models.preset} without the preset's adapter, as training began"
    boxed = [one for one in data.test.examples if isinstance(one, BoxExample)]
    as_run = settings.prompt_form is PromptForm.CLASS
    parts = [f"# {folder.root.name}\n", f"Base: {base}. Test split: {_extent(data.test.examples)}."]
    figures: dict[str, Any] = {}
    if as_run and boxed:
        file, images = write_test_file(boxed, all_prompts(data, settings), folder)
        pair = pair_on(file, images, settings, partial(progress, "test images"))
        parts += _boxes_part(pair, images, folder)
        figures = _both(_figure_rows(pair)) | {"per_class": _both(_class_rows(pair))}
    others = [one for one in data.test.examples if not (as_run and isinstance(one, BoxExample))]
    if others:
        answers, compared = _answers_part(others, data, settings, partial(progress, "test questions"))
        parts += answers
        figures |= compared
    if settings.retention is not None:
        pair = pair_on(
            settings.retention, images_of(settings.retention), settings, partial(progress, "retention images")
        )
        known = f"AP of base and tuned model on {settings.retention.name}, whose objects the base knew before:"
        parts += ["## Retention", known, _class_table(pair)]
        figures["retention"] = _both(_class_rows(pair))
    write_text(folder.report, "\n\n".join(parts) + "\n")
    return figures


def _extent(examples: Sequence[Example]) -> str:
    counts = {
        "image": len({one.image for one in examples}),
        "text": sum(isinstance(one, TextExample) for one in examples),
    }
    return ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for what, n in counts.items() if n)


def _boxes_part(pair: Pair, images: Path, folder: TrainFolder) -> list[str]:
    known = [name for name, base, _ in _class_rows(pair) if base is not None and base >= _KNOWN_AP]
    text = f"The base knew {', '.join(known)}." if known else "The base knew none of the classes."
    classes = tuple(pair.base.scores.data_set.classes.values())
    return [
        "## Test split",
        _change_table([(in_words(name, {_LOWER_IS_BETTER}), base, tuned) for name, base, tuned in _figure_rows(pair)]),
        f"Minimum score for a box to count as found: {pair.base.scores.score_threshold:g}.",
        "### Retention, class by class",
        f"{text} Minimum box AP for a class to count as known: {_KNOWN_AP:g}.",
        _class_table(pair),
        "### Images",
        _table(_SIDES, _picture_rows(_shown_of_pair(pair, images), classes, folder.root)),
    ]


def _figure_rows(pair: Pair) -> _Rows:
    rows = []
    sides = [
        {name: stage.summary for name, stage in scores.stages().items()} | {"presence": scores.presence}
        for scores in (pair.base.scores, pair.tuned.scores)
    ]
    for name, part, figure in _FIGURES:
        base, tuned = (getattr(side[part], figure) if part in side else None for side in sides)
        rows.append((name, base, tuned))
    return rows


def _class_rows(pair: Pair) -> _Rows:
    base, tuned = (
        {one.name: one.AP for one in side.scores.boxes.summary.per_class} for side in (pair.base, pair.tuned)
    )
    return [(name, base[name], tuned.get(name)) for name in base]


def _class_table(pair: Pair) -> str:
    return _change_table(_class_rows(pair), "class", "base box AP", "tuned box AP")


def _change_table(rows: _Rows, what: str = "figure", base: str = "base", tuned: str = "tuned") -> str:
    changes = [FigureChange("", _cell(_cut(name)), before, after, None) for name, before, after in rows]
    return "\n".join(figure_table(changes, what, base, tuned))


def _both(rows: _Rows) -> dict[str, Any]:
    return {name: {"base": base, "tuned": tuned} for name, base, tuned in rows}


def _answers_part(
    examples: Sequence[Example], data: TrainingData, settings: TrainSettings, progress: Progress
) -> tuple[list[str], dict[str, Any]]:
    """Compare answers to questions that `run` doesn't ask: as pictures where they are boxes, else as texts."""
    questions = all_questions(examples, all_prompts(data, settings), settings.prompt_form)
    folder = TrainFolder(settings.output)
    sides = (None, folder.result(settings.method))
    before, after = (ask(settings, result, questions, progress=progress) for result in sides)
    base, tuned = (figures_of(side, settings.metrics) for side in (before, after))
    rows = [(name, base.get(name), tuned[name]) for name in tuned]
    lower = LOWER_IS_BETTER | lower_is_better(settings.metrics, after)
    named = [(in_words(name, lower), before, after) for name, before, after in rows]
    parts = ["## Answers", _change_table(named)]
    if pictures := _picture_rows(_shown_of_answers(before, after), data.classes, folder.root):
        parts.append(_table(_SIDES, pictures))
    texts = [
        tuple(map(_cut, (one.example.image.name, one.text, one.answer, old.text, new.text)))
        for one, old, new in zip(questions, before, after, strict=True)
        if isinstance(one.example, TextExample)
    ]
    if texts:
        parts.append(_table(("image", "question", "truth", "base", "tuned"), texts[:_N_ROWS]))
    return parts, _both(rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cut(text: str) -> str:
    """Shorten what a table can't show: a model that only repeats itself fills pages."""
    text = " ".join(text.split())
    return text if len(text) <= _MAX_CELL else f"{text[:_MAX_CELL].rstrip()}..."


def _cell(text: str) -> str:
    """Keep a text in its cell: its own bars and line breaks would end it, and `<` would start HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _shown_of_pair(pair: Pair, images: Path) -> Iterator[_Shown]:
    """What two measurements on one COCO file found, image by image, at the confidence threshold of `run`."""
    data_set = pair.base.scores.data_set
    for image in data_set.images:
        objects = (one for one in data_set.objects_by_image.get(image.id, ()) if not one.is_crowd)
        truth = tuple(_instance(data_set.classes[one.category_id], xyxy_from_xywh(one.bbox_xywh)) for one in objects)
        base, tuned = (_predicted(data_set, side.predictions, image.id) for side in (pair.base, pair.tuned))
        yield images / image.file_name, image.file_name, ((), truth, base, tuned)


def _predicted(data_set: DataSet, predictions: Sequence[Prediction], image_id: int) -> tuple[Instance, ...]:
    threshold = DetectSettings().score_threshold
    return tuple(
        _instance(data_set.classes[one.category_id], xyxy_from_xywh(one.box_xywh), one.score)
        for one in predictions
        if one.image_id == image_id and one.score >= threshold
    )


def _instance(name: str, box_xyxy: BoxXyxy, score: float = 1.0) -> Instance:
    return Instance(Detection(name, name, box_xyxy, score), mask=None, mask_score=None)


def _shown_of_answers(base: Sequence[Answered], tuned: Sequence[Answered]) -> Iterator[_Shown]:
    """Two models' answers to the same questions, those about boxes; each asks for all boxes of its image."""
    threshold = DetectSettings().score_threshold
    for answers in zip(base, tuned, strict=True):
        example = answers[0].question.example
        if isinstance(example, BoxExample):
            before, after = (
                tuple(Instance(one, mask=None, mask_score=None) for one in side.detections if one.score >= threshold)
                for side in answers
            )
            truth = tuple(_instance(box.label, box.box_xyxy) for box in example.boxes)
            yield example.image, example.image.name, ((), truth, before, after)


def _picture_rows(shown: Iterator[_Shown], classes: Sequence[str], root: Path) -> list[tuple[str, ...]]:
    """Draw the first images, plain and with each side's boxes, into a folder beside `report.md` in `root`.

    `classes` are all of them, so that each has its colour in all pictures. A row of Markdown cells for each image.
    """
    rows = []
    for number, (path, name, sides) in enumerate(islice(shown, _N_ROWS), start=1):
        image = read_image(path)
        cells = []
        for side, instances in zip(_SIDES, sides, strict=True):
            relative = f"report/{number:03}-{side}.jpg"
            result = ImageResult(image.path, image.size, instances)
            with as_output_error():
                save_picture(root / relative, draw(image, result, tuple(classes), with_scores=side != "truth"))
            cells.append(f"![{side}]({relative})")
        rows.append((f"{_cut(name)} {cells[0]}", *cells[1:]))
    return rows
