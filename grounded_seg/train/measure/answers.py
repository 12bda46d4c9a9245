"""Ask a base, or what was trained on it, the questions of a data set, and read its answers as `run` does."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from grounded_seg.detect.answer.box_scores import shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.decoding.greedy import N_AT_ONCE
from grounded_seg.detect.model.adapters import merge_adapter
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.record import check_adapter_base
from grounded_seg.detect.tasks import MAX_NEW_TOKENS, TASKS, Task
from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.errors import InputError
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.records import Detection
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.checks import Progress
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.questions import all_prompts, all_questions
from grounded_seg.train.data.records import BoxExample, Question
from grounded_seg.train.data.samples import AnswerWriter, ImageStore, without_long_rows
from grounded_seg.train.fit.trainable import locate_base
from grounded_seg.train.measure.metrics import Answered, figures_of
from grounded_seg.train.settings import Method, TrainSettings
from grounded_seg.weights.strict_loading import quiet_libraries

_LEAST_TOKENS = 64
"""Tokens that any answer may have: some ten boxes, also where no true answer has so many."""
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
        answers: list[Answered] = []
        limit = answer_limit(florence, questions)
        for some in question_batches(questions):
            answers += answered(florence, some, images, limit)
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


def question_batches(questions: Sequence[Question]) -> list[list[Question]]:
    """Questions that are answered together: all about some images, until there are as many as the model takes at once.

    Questions about one image have to stand together.
    """
    batches: list[list[Question]] = []
    for _, group in groupby(questions, key=lambda question: question.example.image):
        if not batches or len(batches[-1]) >= N_AT_ONCE:
            batches.append([])
        batches[-1] += group
    return batches


def answer_limit(model: FlorenceModel, questions: Sequence[Question]) -> int:
    """Tokens after which an answer is cut off: twice the longest true one, as what is longer is wrong in any case.

    A model that isn't tuned yet may write on up to the longest answer that it can.
    """
    writer = AnswerWriter(model)
    longest = max((len(writer.answer_ids(question)) for question in questions), default=0)
    return min(MAX_NEW_TOKENS, max(2 * longest, _LEAST_TOKENS))


def answered(
    model: FlorenceModel,
    questions: Sequence[Question],
    images: ImageStore,
    max_new_tokens: int,
    image_tokens: Callable[[Question], torch.Tensor] | None = None,
) -> list[Answered]:
    """Ask the questions of one batch, each image encoded once; the last bits of scores depend on the batch.

    `image_tokens` encodes a question's image to (1, n_image_tokens, width), where that isn't left to the model.
    """
    # One image after the other, as the vision tower needs by far the most memory.
    about: list[int] = []
    features: list[torch.Tensor] = []
    for _, group in groupby(questions, key=lambda question: question.example.image):
        about_one = list(group)
        about += [len(features)] * len(about_one)
        if image_tokens is None:
            features.append(model.encode_images([images.read(about_one[0])]))
        else:
            features.append(image_tokens(about_one[0]))
    texts = [question.text for question in questions]
    tasks = [_task_of(question) for question in questions]
    answers = model.answer(torch.cat(features), texts, about=about, max_new_tokens=max_new_tokens, tasks=tasks)
    return [_read(model, question, answer) for question, answer in zip(questions, answers, strict=True)]


def _task_of(question: Question) -> Task | None:
    """The task of a question about boxes; of one that the data set words itself nobody knows."""
    if not isinstance(question.example, BoxExample):
        return None
    return TASKS["CAPTION_TO_PHRASE_GROUNDING" if question.prompt else "OD"]


def _read(model: FlorenceModel, question: Question, answer: GeneratedAnswer) -> Answered:
    text = model.vocabulary.decode(answer.token_ids, skip_special_tokens=False)
    for token in _SILENT:
        text = text.replace(token, "")
    task = _task_of(question)
    detections = () if task is None else _detections(model, question, task, answer)
    return Answered(question, text.strip(), detections)


def _detections(model: FlorenceModel, question: Question, task: Task, answer: GeneratedAnswer) -> tuple[Detection, ...]:
    """Read boxes and drop duplicates of one class, as `run` does by default; best first."""
    found = [
        Detection(shape.label, question.prompt, box, shape_score(shape, answer.evidence))
        for shape in parse_tokens(task, answer.token_ids, model.vocabulary, question.prompt)
        if (box := box_from_shape(shape, question.example.size)) is not None
    ]
    kept = kept_by_group(
        array_from_boxes([one.box_xyxy for one in found]),
        np.array([one.score for one in found]),
        [question.prompt or one.label for one in found],
        DetectSettings().iou_threshold,
    )
    return tuple(sorted((found[index] for index in kept), key=lambda one: -one.score))
