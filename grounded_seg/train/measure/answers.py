"""Ask a base, or what was trained on it, the questions of a data set, and read its answers as `run` does."""

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from grounded_seg.detect.answer.box_scores import shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.model.adapters import merge_adapter
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.record import check_adapter_base
from grounded_seg.detect.tasks import TASKS
from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import InputError
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.records import Detection, ImageSize
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.checks import Progress
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.questions import all_prompts, all_questions
from grounded_seg.train.data.records import BoxExample, Question
from grounded_seg.train.data.samples import ImageStore, without_long_rows
from grounded_seg.train.fit.trainable import locate_base
from grounded_seg.train.measure.metrics import Answered, figures_of
from grounded_seg.train.settings import Method, TrainSettings
from grounded_seg.weights.strict_loading import quiet_libraries

_QUESTIONS_AT_ONCE = 16
_SILENT = ("<s>", "</s>", "<pad>")


@quiet_libraries()
def evaluate(
    settings: TrainSettings, result: Path | None = None, *, split: Literal["train", "valid", "test"] = "test"
) -> dict[str, float]:
    """Ask a model all questions of a split and take the figures that a validation has.

    Every image with boxes is asked about every class, there or not, as `grounded-seg eval` does. What was trained sees
    images resized as in its training, the base sees them whole.

    Args:
        settings: Those of the training.
        result: The adapter that was trained, or with full tuning the model; None for the bare base.
        split: What is asked about.

    Returns:
        `AP`, `AP50`, `present_rate`, `absent_rate` where there are boxes; `exact_match`, `edit_distance` where there
        are texts; and those of `settings.metrics`.
    """
    data = read_training_data(settings)
    if not data.splits[split].examples:
        raise InputError(f"{settings.dataset} has no rows in its split {split}; name another one")
    florence = _load_trained(settings, result)
    # As in the training, which couldn't take them in either.
    data = without_long_rows(data, florence, settings)
    questions = all_questions(data.splits[split].examples, all_prompts(data, settings), settings.prompt_form)
    return figures_of(ask(settings, result, questions, florence), settings.metrics)


def ask(
    settings: TrainSettings,
    result: Path | None,
    questions: Sequence[Question],
    florence: FlorenceModel | None = None,
    *,
    progress: Progress = lambda _done, _all: None,
) -> list[Answered]:
    """Ask a model questions that it can take in.

    `florence` is that of `result`, where it is loaded already; `progress` is told how many questions are answered.
    """
    florence = florence or _load_trained(settings, result)
    device = resolve_device(settings.models.device)
    # The base wasn't trained on resized images, and no run would resize them for it.
    images = ImageStore(settings.image_size if result else None, settings.max_pixels)
    with out_of_memory_as_device_error("measuring", "Use a smaller preset or --device cpu."):
        florence.to(device, resolve_dtype(settings.models.dtype, device))
        answers = []
        for answer in answered(florence, questions, images):
            answers.append(answer)
            progress(len(answers), len(questions))
    return answers


def _load_trained(settings: TrainSettings, result: Path | None) -> FlorenceModel:
    """The bare base, or what was trained on it, in float32 on the CPU."""
    if result is not None and settings.method is Method.FULL:
        return load_florence(result)
    base = locate_base(settings)
    florence = load_florence(base.path)
    if result is not None:
        check_adapter_base(result, base)
        florence.network = merge_adapter(florence.network, result)
    return florence


def answered(
    model: FlorenceModel,
    questions: Sequence[Question],
    images: ImageStore,
    kept: Callable[[Question], torch.Tensor | None] = lambda _: None,
) -> Iterator[Answered]:
    """Ask each question; the questions about one image share its encoding where they stand together.

    `kept` gives the features of a question's image, (1, n_image_tokens, width), where they are known already.
    """
    for _, group in groupby(questions, key=lambda question: question.example.image):
        about_one = list(group)
        features = kept(about_one[0])
        if features is None:
            features = model.encode_images([images.read(about_one[0])])
        for start in range(0, len(about_one), _QUESTIONS_AT_ONCE):
            some = about_one[start : start + _QUESTIONS_AT_ONCE]
            answers = model.answer(features.expand(len(some), -1, -1), [question.text for question in some])
            yield from (_read(model, question, answer) for question, answer in zip(some, answers, strict=True))


def _read(model: FlorenceModel, question: Question, answer: GeneratedAnswer) -> Answered:
    text = model.vocabulary.decode(answer.token_ids, skip_special_tokens=False)
    for token in _SILENT:
        text = text.replace(token, "")
    example = question.example
    detections = _detections(model, question, answer, example.size) if isinstance(example, BoxExample) else ()
    return Answered(question, text.strip(), detections)


def _detections(
    model: FlorenceModel, question: Question, answer: GeneratedAnswer, size: ImageSize
) -> tuple[Detection, ...]:
    """Read boxes and drop duplicates of one class, as `run` does by default; best first."""
    task = TASKS["CAPTION_TO_PHRASE_GROUNDING" if question.prompt else "OD"]
    found = [
        Detection(shape.label, question.prompt, box, shape_score(shape, answer.evidence))
        for shape in parse_tokens(task, answer.token_ids, model.vocabulary, question.prompt)
        if (box := box_from_shape(shape, size)) is not None
    ]
    kept = kept_by_group(
        array_from_boxes([one.box_xyxy for one in found]),
        np.array([one.score for one in found]),
        [question.prompt or one.label for one in found],
        DetectSettings().iou_threshold,
    )
    return tuple(sorted((found[index] for index in kept), key=lambda one: -one.score))
