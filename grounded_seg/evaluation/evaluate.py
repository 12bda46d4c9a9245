"""One evaluation: read the truth, ask the models or read predictions, and measure."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet, read_data_set
from grounded_seg.coco.predictions import Prediction, read_predictions
from grounded_seg.detect.prompts import PromptSet, read_classes
from grounded_seg.errors import InputError, UsageError
from grounded_seg.evaluation.answer_file import AskSettings
from grounded_seg.evaluation.answers import Progress, answers_for
from grounded_seg.evaluation.requests import questions_for
from grounded_seg.evaluation.source_run import SourceRun, run_of
from grounded_seg.scoring.measure import Scores, score


@dataclass(frozen=True)
class EvaluationSettings:
    """What is measured against what."""

    ground_truth: Path
    """A COCO data set."""
    source: AskSettings | Path
    """How the models are asked, or a file of predictions."""
    score_threshold: float
    """From which score on a box says that something is there, in [0, 1]."""
    prompts: Path | None = None
    """YAML file of prompts and their classes; None to ask for the class names, or for those of the run's `run.json`."""
    n_absent: int | None = None
    """Classes that an image hasn't that it is asked about; None for all."""
    boxes_only: bool = False
    n_draws: int = 0
    """Draws for 95 % intervals; 0 for none."""

    def __post_init__(self) -> None:
        """Refuse what only goes with asking the models."""
        if isinstance(self.source, Path) and self.n_absent is not None:
            raise UsageError("--absent says what the models are asked; it doesn't go with --predictions")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What came out."""

    scores: Scores
    predictions: tuple[Prediction, ...]
    speed: Mapping[str, float] | None
    """None for predictions from a file."""
    made_with: Mapping[str, Any]
    """Where the predictions come from, in JSON: weights and settings, or the file's name."""
    notes: tuple[str, ...]
    """What there is to say about how the files were read, a line each."""


def evaluate(settings: EvaluationSettings, progress: Progress) -> Evaluation:
    """Measure both stages.

    Args:
        settings: What is measured against what.
        progress: Told how many images the models are done with.

    Raises:
        UsageError: If settings don't go together, or prompts name no class of the data set.
        InputError: If the data set, the predictions or an image can't be read.
        WeightsError, DeviceError, OutputError: As for asking the models.
    """
    data_set = read_data_set(settings.ground_truth)
    prompts = None if settings.prompts is None else read_classes(settings.prompts)
    if isinstance(settings.source, Path):
        return _of_file(data_set, settings.source, prompts, settings)
    questions = questions_for(data_set, prompts, settings.n_absent)
    answers = answers_for(questions, settings.source, progress)
    scores = score(
        questions.data_set,
        answers.predictions,
        answers.given_true_boxes,
        score_threshold=settings.score_threshold,
        asked=questions.pairs(),
        class_by_prompt=questions.prompts.class_by_prompt,
        boxes_only=settings.boxes_only,
        n_resamples=settings.n_draws,
    )
    notes = (*data_set.notes, *questions.notes)
    return Evaluation(scores, answers.predictions, answers.speed, answers.made_with, notes)


def _of_file(data_set: DataSet, path: Path, prompts: PromptSet | None, settings: EvaluationSettings) -> Evaluation:
    run = run_of(path) or SourceRun(None, None)
    class_by_prompt = run.class_by_prompt if prompts is None else prompts.class_by_prompt
    file = read_predictions(path, data_set, class_by_prompt)
    notes = [*data_set.notes, *file.notes]
    if file.asked is not None:
        known = file.asked & set(data_set.classes.values())
        if not known:
            raise InputError(
                f"{path} has classes {', '.join(sorted(file.asked)) or 'of no name'}, and none of them is in "
                f"{data_set.path}; say which prompt is which class with --prompts"
            )
        n_left_out = len(data_set.classes) - len(known)
        if n_left_out:
            notes.append(f"{n_left_out} of {len(data_set.classes)} classes weren't asked about and are left out")
            data_set = data_set.only_classes(known)
    if not settings.boxes_only and data_set.has_masks and file.predictions and not file.has_masks:
        notes.append("the predictions have boxes only: masks are not measured")
    made_with: dict[str, Any] = {"predictions": path.name}
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
        n_resamples=settings.n_draws,
    )
    return Evaluation(scores, file.predictions, None, made_with, tuple(notes))
