"""Ask a model the questions of a data set, and read its answers as `run` does."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from grounded_seg.detect.answer.box_scores import shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.tasks import TASKS
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.records import Detection, ImageSize
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.records import BoxExample, Question
from grounded_seg.train.data.samples import ImageStore
from grounded_seg.train.measure.metrics import Answered

_QUESTIONS_AT_ONCE = 16
_SILENT = ("<s>", "</s>", "<pad>")


def answered(model: FlorenceModel, questions: Sequence[Question], images: ImageStore) -> Iterator[Answered]:
    """Ask each question; the questions about one image share its encoding where they stand together."""
    for _, group in groupby(questions, key=lambda question: question.example.image):
        about_one = list(group)
        features = model.encode_images([images.read(about_one[0])])
        for start in range(0, len(about_one), _QUESTIONS_AT_ONCE):
            some = about_one[start : start + _QUESTIONS_AT_ONCE]
            rows = features.expand(len(some), -1, -1)
            answers = model.answer(rows, [question.text for question in some])
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
