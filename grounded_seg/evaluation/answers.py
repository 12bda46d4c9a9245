"""Run the pipeline on a data set: what it finds, what it makes of the true boxes, and how long that takes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from grounded_seg.coco.predictions import Prediction
from grounded_seg.evaluation.answer_file import AskSettings, asked_with, keep, kept_lines, locked
from grounded_seg.evaluation.listed_images import check_all_there
from grounded_seg.evaluation.new_lines import asks_true_boxes, new_lines
from grounded_seg.evaluation.requests import Questions
from grounded_seg.geometry.masks import run_length_from_coco
from grounded_seg.pipeline.load import FoundModels, find_models

Progress = Callable[[int, int], None]
"""Is told how many images are done, and how many there are."""


@dataclass(frozen=True)
class Answers:
    """What the models said about a data set."""

    predictions: tuple[Prediction, ...]
    given_true_boxes: tuple[Prediction, ...] | None
    """None where masks weren't asked for, or the data set has none."""
    speed: Mapping[str, float]
    """Images per second, and seconds per image of each stage, without loading the models."""
    made_with: Mapping[str, Any]
    """Weights, settings, device and versions, in JSON."""


def answers_for(questions: Questions, settings: AskSettings, progress: Progress) -> Answers:
    """Ask the models about every image of a data set.

    Raises:
        UsageError: If the folder of the answers is in use, or holds those of other settings or weights.
        InputError: If an image is missing, can't be read, or isn't of the size that the data set says.
        WeightsError, DeviceError: As for `GroundedSegmenter.from_preset`.
        OutputError: If the answers can't be kept.
    """
    check_all_there(questions.data_set, settings.images)
    models = find_models(settings.models, boxes_only=settings.boxes_only)
    with locked(settings):
        lines = _all_lines(questions, settings, models, progress)
    predictions, given = _predictions(lines, questions)
    return Answers(
        predictions=predictions,
        given_true_boxes=given if asks_true_boxes(questions.data_set, settings) else None,
        speed=_speed([line["seconds"] for line in lines]),
        made_with=asked_with(settings, models),
    )


def _all_lines(
    questions: Questions, settings: AskSettings, models: FoundModels, progress: Progress
) -> list[dict[str, Any]]:
    """Give a line for each image: those that are kept, and new ones, which are kept then."""
    n_images = len(questions.data_set.images)
    lines = kept_lines(questions, settings, models)
    done = {line["image_id"] for line in lines}
    if len(done) < n_images:
        progress(len(done), n_images)
        with closing(new_lines(questions, settings, models, done)) as asked:
            for line in asked:
                lines.append(line)
                keep(line, settings)
                progress(len(lines), n_images)
    return lines


def _predictions(
    lines: Iterable[Mapping[str, Any]], questions: Questions
) -> tuple[tuple[Prediction, ...], tuple[Prediction, ...]]:
    """Take what was found, and what was made of the true boxes, by image."""
    id_by_name = {name: class_id for class_id, name in questions.data_set.classes.items()}
    class_by_prompt = questions.prompts.class_by_prompt
    found, given = [], []
    for line in sorted(lines, key=lambda one: int(one["image_id"])):
        for one in line["instances"]:
            category_id = id_by_name[class_by_prompt[one["attributes"]["prompt"]]]
            found.append(_prediction(line["image_id"], category_id, one, one["score"]))
        for one in line["given_true_boxes"] or ():
            # All boxes are true: what ranks these masks is the segmenter's own score.
            score = one["attributes"]["mask_score"]
            category_id = id_by_name[one["attributes"]["prompt"]]
            given.append(_prediction(line["image_id"], category_id, one, 1.0 if score is None else score))
    return tuple(found), tuple(given)


def _prediction(image_id: int, category_id: int, annotation: Mapping[str, Any], score: float) -> Prediction:
    x, y, width, height = annotation["detector_bbox"]
    mask = annotation["segmentation"]
    return Prediction(
        image_id=image_id,
        category_id=category_id,
        score=score,
        box_xywh=(x, y, width, height),
        mask=run_length_from_coco(mask) if mask else None,
        prompt=annotation["attributes"]["prompt"],
    )


def _speed(seconds_of_images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the stages; the true boxes are asked beside the chain, and don't slow it down."""
    seconds: Counter[str] = Counter()
    for stages in seconds_of_images:
        seconds.update(stages)
    n_images = len(seconds_of_images)
    per_image = {f"{stage}_s_per_image": total / n_images for stage, total in seconds.items()}
    chain_s = sum(total for stage, total in seconds.items() if stage != "true_boxes")
    return {"images_per_s": n_images / chain_s, **per_image} if chain_s else per_image
