"""One evaluation: read the truth, ask the models or read predictions, and measure."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet, DataSetImage, read_data_set
from grounded_seg.coco.image_files import check_sizes
from grounded_seg.coco.image_names import names_among
from grounded_seg.coco.predictions import Prediction, PredictionFile, predictions_from, read_predictions
from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes
from grounded_seg.detect.class_file import read_classes
from grounded_seg.detect.prompt_set import PromptSet
from grounded_seg.errors import InputError
from grounded_seg.evaluation.ask_models import Progress, ask_models
from grounded_seg.evaluation.requests import questions_for
from grounded_seg.evaluation.source_run import SourceRun, notes_on_calibration, run_of
from grounded_seg.evaluation.suggest import suggested_classes
from grounded_seg.files import as_output_error, write_text
from grounded_seg.records import ImageSize
from grounded_seg.review.decisions_applied import check_reviewable, reviewed_file
from grounded_seg.runs.folder import RunFolder
from grounded_seg.scoring.json_report import report_of
from grounded_seg.scoring.measure import Scores, resamples, score
from grounded_seg.scoring.thresholds import class_thresholds
from grounded_seg.setting_types import NonNegativeInt, Share, convert_fields, refuse
from grounded_seg.settings import Reviewed, RunSettings

_RESAMPLES_TO_SUGGEST = 1000


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured against what."""

    ground_truth: Path
    """A COCO data set."""
    source: "RunSettings | Path"
    """How the models are asked, or a file of predictions."""
    score_threshold: Share
    """Minimum score for a box to count as found; average precision takes every box."""
    images: Path | None = None
    """Folder that the data set's file names start from, to ask the models."""
    output: Path | None = None
    """Folder that keeps the models' predictions; None for a temporary one."""
    prompts: Path | None = None
    """YAML file of prompts and their classes; None to ask for the class names, or for those of the run's `run.json`."""
    n_absent: NonNegativeInt | None = None
    """Classes that an image hasn't that it is asked about; None for all."""
    boxes_only: bool = False
    n_resamples: NonNegativeInt = 0
    """Bootstrap resamples for 95 % intervals; 0 for none."""
    reviewed: Reviewed | None = None
    """Which instances of a reviewed run are scored; None for all, whatever was decided."""

    def __post_init__(self) -> None:
        """Convert what was given, and refuse all that is wrong or contradictory at once."""
        problems = convert_fields(self, {"n_absent": "absent", "n_resamples": "intervals"})
        if isinstance(self.source, Path):
            if self.n_absent is not None:
                problems.append("--absent says what the models are asked; leave it out with --predictions")
        else:
            if self.reviewed is not None:
                problems.append("--reviewed takes a run's folder as --predictions; name that")
            if self.images is None:
                problems.append("name the folder of the images with --images, or a file to score with --predictions")
            if self.source.resume and self.output is None:
                problems.append("--resume needs the folder that keeps the models' answers; name it with --output")
        refuse(problems)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """The results of an evaluation: scores, predictions, speed, and notes on the files."""

    scores: Scores
    predictions: tuple[Prediction, ...]
    speed: Mapping[str, float] | None
    """None for predictions from a file."""
    made_with: Mapping[str, Any]
    """Where the predictions come from, in JSON: weights and settings, or the file's name."""
    notes: tuple[str, ...]
    """What there is to say about how the files were read, a line each."""
    prompts: PromptSet
    """What was asked; the class names where that isn't known."""

    def suggest(self, path: Path | str) -> Path:
        """Write a file of classes with the threshold of best F1 for each, as `eval --suggest` does.

        Where no resamples were asked for, 1000 are drawn for the intervals.

        Raises:
            OutputError: If the file can't be written.
        """
        scores, path = self.scores, Path(path)
        thresholds = scores.thresholds
        if not scores.intervals:
            drawn = resamples(scores.index.n_images, _RESAMPLES_TO_SUGGEST)
            thresholds = class_thresholds(scores.boxes.matches, drawn)
        measured_on = f"{scores.data_set.path.name} ({len(scores.data_set.images)} images)"
        text = suggested_classes(self.prompts, thresholds, measured_on, self.made_with.get("calibration"))
        instead = "another file with --suggest"
        with as_output_error(path, instead):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text, instead)
        return path

    def report(self) -> dict[str, Any]:
        """Give all figures in JSON, as `eval --json` writes them."""
        return report_of(self.scores, self.speed, self.notes, self.made_with)

    def __repr__(self) -> str:
        """Name the size of the data set, and the AP of each stage."""
        figures = ", ".join(
            f"AP of {name.replace('_', ' ')} {'none' if ap is None else f'{ap:.3f}'}"
            for name, stage in self.scores.stages().items()
            for ap in [stage.summary.AP]
        )
        return f"Evaluation({len(self.scores.data_set.images)} images, {len(self.predictions)} predictions: {figures})"


def evaluate(settings: EvaluationSettings, progress: Progress) -> Evaluation:
    """Measure both stages; `progress` is told how many images the models are done with, and how many there are.

    Raises:
        UsageError: If prompts name no class of the data set.
        InputError: If the data set, the predictions or an image can't be read.
    """
    data_set = _checked_data_set(settings.ground_truth, settings.images)
    prompts = None if settings.prompts is None else read_classes(settings.prompts)
    if isinstance(settings.source, Path) or settings.images is None:
        return _of_file(data_set, Path(str(settings.source)), prompts, settings)
    questions = questions_for(data_set, prompts, settings.n_absent)
    # Before the models are asked, which may take hours.
    of_calibration = notes_on_calibration(questions.data_set, settings.source.models.calibration)
    asked = ask_models(
        questions, settings.images, settings.source, progress, output=settings.output, n_absent=settings.n_absent
    )
    scores = score(
        questions.data_set,
        asked.predictions,
        asked.given_true_boxes,
        score_threshold=settings.score_threshold,
        asked=questions.pairs(),
        class_by_prompt=questions.prompts.class_by_prompt,
        boxes_only=settings.boxes_only,
        n_resamples=settings.n_resamples,
    )
    notes = (*data_set.notes, *questions.notes, *_two_kinds_of_box(data_set), *of_calibration)
    return Evaluation(scores, asked.predictions, asked.speed, asked.made_with, notes, questions.prompts)


def _checked_data_set(path: Path, folder: Path | None) -> DataSet:
    """Read the truth; the sizes of its images are compared before all else where these are at hand."""
    notes = Notes()

    def check_images(listed: Sequence[DataSetImage]) -> Mapping[str, ImageSize]:
        if folder is None:
            return {}
        named = [(f"images[{index}]", image.file_name, image.size) for index, image in enumerate(listed)]
        return check_sizes(path, named, folder, notes)

    data_set = read_data_set(path, check_images=check_images)
    return replace(data_set, notes=(*data_set.notes, *notes.lines()))


def _predictions_at(path: Path) -> Path:
    """The file of predictions that a path names: itself, or what a run left in its folder."""
    if not os.path.isdir(path):
        return path
    folder = RunFolder(path)
    for file in (folder.annotations, folder.journal):
        if os.path.isfile(file):
            return file
    raise InputError(
        f"{path} is a folder without {folder.annotations.name} or {folder.journal.name}; name a run's folder, or a "
        "file of predictions"
    )


def _of_file(data_set: DataSet, source: Path, prompts: PromptSet | None, settings: EvaluationSettings) -> Evaluation:
    path = _predictions_at(source)
    run = run_of(path) or SourceRun()
    asked = run.prompts if prompts is None else prompts
    of_classes = Notes()
    if asked is not None:
        own = names_among(asked.classes, data_set.classes.values(), of_classes)
        asked = replace(asked, class_names=tuple(own.get(name, name) for name in asked.class_names))
    class_by_prompt = None if asked is None else asked.class_by_prompt
    file, of_review = _predictions(source, path, data_set, class_by_prompt, settings.reviewed)
    notes = [*of_review, *data_set.notes, *dict.fromkeys((*of_classes.lines(), *file.notes))]
    if file.asked is not None:
        known = file.asked & set(data_set.classes.values())
        if not known:
            raise InputError(
                f"{path} has classes {', '.join(sorted(file.asked)) or 'of no name'}, and none of them is in "
                f"{data_set.path}; say which prompt is which class with --prompts"
            )
        n_left_out = len(data_set.classes) - len(known)
        if n_left_out:
            were, are = ("wasn't", "is") if n_left_out == 1 else ("weren't", "are")
            notes.append(f"{n_left_out} of {len(data_set.classes)} classes {were} asked about and {are} left out")
            data_set = data_set.only_classes(known)
    if not settings.boxes_only and data_set.has_masks and file.predictions and not file.has_masks:
        notes.append("the predictions have boxes only: masks are not measured")
    if file.has_detector_boxes:
        notes += _two_kinds_of_box(data_set)
    made_with: dict[str, Any] = {"predictions": path.name, **run.made_with}
    made_with |= {} if settings.reviewed is None else {"reviewed": str(settings.reviewed)}
    if run.score_threshold is not None:
        made_with["detect"] = {"score_threshold": run.score_threshold}
    if run.score_threshold:
        notes.append(
            f"the run kept what scores {run.score_threshold:g} or more: AP and recall lack the rest; run with "
            "--score-threshold 0 to measure it too"
        )
    scores = score(
        data_set,
        file.predictions,
        score_threshold=settings.score_threshold,
        class_by_prompt=class_by_prompt,
        boxes_only=settings.boxes_only,
        n_resamples=settings.n_resamples,
    )
    names = tuple(data_set.classes.values())
    return Evaluation(scores, file.predictions, None, made_with, tuple(notes), asked or PromptSet(names, names))


def _predictions(
    source: Path, path: Path, data_set: DataSet, class_by_prompt: Mapping[str, str] | None, reviewed: Reviewed | None
) -> tuple[PredictionFile, tuple[str, ...]]:
    """Read a file, or what decisions left of a run's, and say what that is."""
    if reviewed is None:
        return read_predictions(path, data_set, class_by_prompt), ()
    check_reviewable(source)
    with reviewed_file(source, reviewed) as (file, counts):
        return predictions_from(read_json(file), RunFolder(source).review, data_set), tuple(counts.lines())


def _two_kinds_of_box(data_set: DataSet) -> list[str]:
    """Say that boxes of the detector are compared with boxes of masks, where a run's file is the truth."""
    if not data_set.is_of_run:
        return []
    name = data_set.path.name
    return [
        f"{name} is a run's file: its boxes are those of the masks, and predicted boxes are the detector's; box AP "
        "compares the two, so the same file as both has a box AP below 1"
    ]
