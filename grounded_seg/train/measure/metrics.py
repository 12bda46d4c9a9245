"""Figures of a validation: each metric sees every question with its true and its given answer."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from rapidfuzz.distance import Levenshtein

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.records import Detection
from grounded_seg.scoring.average_precision import evaluate
from grounded_seg.settings import DetectSettings
from grounded_seg.train.data.records import BoxExample, Question, TextExample


@dataclass(frozen=True)
class Answered:
    """A question and what the model said."""

    question: Question
    text: str
    """As generated, with location tokens, without `<s>` and `</s>`."""
    detections: tuple[Detection, ...] = ()
    """The boxes in it, all scores; in the pixels of the upright image."""


class Metric(Protocol):
    """A figure, or several, of a validation; any function with this signature is one.

    The highest value is the best, unless the metric has a true attribute `lower_is_better`.
    """

    def __call__(self, answered: Sequence[Answered], /) -> Mapping[str, float]:
        """Give each figure by its name; none where the answers have nothing to measure."""


def box_precision(answered: Sequence[Answered]) -> Mapping[str, float]:
    """Measure COCO's AP and AP50 over all questions about boxes, as fractions."""
    about_boxes = [one for one in answered if isinstance(one.question.example, BoxExample)]
    if not about_boxes:
        return {}
    summary = evaluate(*_as_records(about_boxes), "bbox")
    figures = {"AP": summary.AP, "AP50": summary.AP50}
    return {name: value for name, value in figures.items() if value is not None}


def found_rate(answered: Sequence[Answered]) -> Mapping[str, float]:
    """Measure the share of questions about things that are there, and of absent ones, that get a box with `run`."""
    # Precision only ranks, and is as good where no score reaches the threshold.
    threshold = DetectSettings().score_threshold
    fired: dict[str, list[bool]] = {"present_rate": [], "absent_rate": []}
    for one in answered:
        if isinstance(one.question.example, BoxExample):
            name = "present_rate" if one.question.answer else "absent_rate"
            fired[name].append(any(box.score >= threshold for box in one.detections))
    return {name: sum(some) / len(some) for name, some in fired.items() if some}


def text_match(answered: Sequence[Answered]) -> Mapping[str, float]:
    """Measure text answers: share that are exactly right, and the mean normalised edit distance, 0 for equal texts."""
    texts = [one for one in answered if isinstance(one.question.example, TextExample)]
    if not texts:
        return {}
    exact = sum(one.text.strip() == one.question.answer.strip() for one in texts)
    distance = sum(Levenshtein.normalized_distance(one.text.strip(), one.question.answer.strip()) for one in texts)
    return {"exact_match": exact / len(texts), "edit_distance": distance / len(texts)}


LOWER_IS_BETTER = frozenset({"loss", "absent_rate", "edit_distance"})
"""Among the built-in figures."""
_WORDS = {
    "AP": "box AP",
    "AP50": "box AP50",
    "present_rate": "present prompts with a box",
    "absent_rate": "absent prompts with a box",
    "exact_match": "exact matches",
    "edit_distance": "edit distance",
}
BUILT_IN: tuple[Metric, ...] = (box_precision, found_rate, text_match)


def figures_of(answered: Sequence[Answered], metrics: Sequence[Metric] = ()) -> dict[str, float]:
    """Take all figures that these answers allow, the built-in ones and then the others."""
    return {name: value for metric in (*BUILT_IN, *metrics) for name, value in metric(answered).items()}


def lower_is_better(metrics: Sequence[Metric], answered: Sequence[Answered]) -> set[str]:
    """The figures of these metrics, on these answers, of which the lowest is the best."""
    return {name for one in metrics if getattr(one, "lower_is_better", False) for name in one(answered)}


def in_words(name: str, lower_is_better: Collection[str] = LOWER_IS_BETTER) -> str:
    """Name a figure as people read it, and say which way is better.

    >>> in_words("edit_distance")
    'edit distance (lower is better)'
    """
    return f"{_WORDS.get(name, name)} ({'lower' if name in lower_is_better else 'higher'} is better)"


def _as_records(answered: Sequence[Answered]) -> tuple[DataSet, list[Prediction]]:
    """Questions about boxes as records to score: predictions by class, truth as asked, none where nothing was asked."""
    images: dict[str, DataSetImage] = {}
    names: dict[str, int] = {}
    objects: list[DataSetObject] = []
    predictions: list[Prediction] = []
    for one in answered:
        example, prompt = one.question.example, one.question.prompt
        if not isinstance(example, BoxExample):
            continue
        key = str(example.image)
        image = images.setdefault(key, DataSetImage(len(images) + 1, key, example.size))
        for box in example.boxes:
            if prompt in ("", box.label):
                shape = xywh_from_xyxy(box.box_xyxy)
                category_id = names.setdefault(box.label, len(names) + 1)
                objects.append(DataSetObject(image.id, category_id, shape, None, shape[2] * shape[3], is_crowd=False))
        for found in one.detections:
            category_id = names.setdefault(prompt or found.label, len(names) + 1)
            predictions.append(Prediction(image.id, category_id, found.score, xywh_from_xyxy(found.box_xyxy), None))
    classes = {number: name for name, number in names.items()}
    return DataSet(Path(), tuple(images.values()), classes, tuple(objects)), predictions
