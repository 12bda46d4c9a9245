"""Figures of a validation on made-up answers."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from grounded_seg.records import Detection, ImageSize
from grounded_seg.train.data.questions import all_questions, class_question
from grounded_seg.train.data.records import BoxExample, LabelledBox, Question, TextExample
from grounded_seg.train.measure.metrics import Answered, figures_of, lower_is_better
from grounded_seg.train.settings import PromptForm

SIZE = ImageSize(100, 100)
CAR, DOG = LabelledBox("car", (10, 10, 50, 50)), LabelledBox("dog", (60, 60, 90, 90))
IMAGE = BoxExample(Path("a"), SIZE, (CAR, DOG), "a:1")
EMPTY = BoxExample(Path("b"), SIZE, (), "b:1")


def found(label: str, box: tuple[float, float, float, float], score: float = 0.9) -> Detection:
    return Detection(label, label, box, score)


def test_right_answers_are_one_and_silence_about_absent_things_is_zero() -> None:
    answers = [
        Answered(class_question(IMAGE, "car"), "", (found("auto", CAR.box_xyxy),)),
        Answered(class_question(IMAGE, "dog"), "", (found("dog", DOG.box_xyxy),)),
        Answered(class_question(EMPTY, "dog"), ""),
    ]
    assert figures_of(answers) == pytest.approx({"AP": 1.0, "AP50": 1.0, "present_rate": 1.0, "absent_rate": 0.0})


def test_half_of_the_classes_found_is_half_the_precision() -> None:
    answers = [
        Answered(class_question(IMAGE, "car"), "", (found("car", CAR.box_xyxy),)),
        Answered(class_question(IMAGE, "dog"), ""),
    ]
    assert figures_of(answers) == pytest.approx({"AP": 0.5, "AP50": 0.5, "present_rate": 0.5})


def test_a_box_for_an_absent_thing_counts_from_the_threshold_on() -> None:
    question = class_question(EMPTY, "car")
    sure, unsure = (Answered(question, "", (found("car", CAR.box_xyxy, score),)) for score in (0.6, 0.4))
    assert figures_of([sure, unsure, Answered(question, ""), Answered(question, "")])["absent_rate"] == 0.25


def test_precision_only_ranks_but_a_present_thing_has_to_reach_the_threshold() -> None:
    answer = Answered(class_question(IMAGE, "car"), "", (found("car", CAR.box_xyxy, 0.003),))
    assert figures_of([answer]) == pytest.approx({"AP": 1.0, "AP50": 1.0, "present_rate": 0.0})


def test_all_classes_in_one_answer_go_by_their_labels() -> None:
    [question] = all_questions([IMAGE], (), PromptForm.OD)
    answer = Answered(question, "", (found("car", CAR.box_xyxy), found("dog", DOG.box_xyxy)))
    assert figures_of([answer]) == pytest.approx({"AP": 1.0, "AP50": 1.0, "present_rate": 1.0})
    swapped = Answered(question, "", (found("dog", CAR.box_xyxy), found("car", DOG.box_xyxy)))
    assert figures_of([swapped])["AP"] == 0.0


@pytest.mark.parametrize(
    ("one", "other", "distance"),
    [("", "", 0.0), ("abc", "abc", 0.0), ("abc", "", 1.0), ("kitten", "sitting", 3 / 7), ("ab", "ba", 1.0)],
)
def test_edit_distance(one: str, other: str, distance: float) -> None:
    for said, truth in ((one, other), (other, one)):
        question = Question(TextExample(Path("t"), SIZE, "?", truth, "t:1"), "?", truth)
        assert figures_of([Answered(question, said)])["edit_distance"] == pytest.approx(distance)


def test_texts_are_measured_as_texts() -> None:
    question = Question(TextExample(Path("t"), SIZE, "?", "a red car", "t:1"), "?", "a red car")
    answers = [Answered(question, "a red car "), Answered(question, "a red cat")]
    assert figures_of(answers) == {"exact_match": 0.5, "edit_distance": pytest.approx(1 / 18)}


def test_further_metrics_take_part() -> None:
    answer = Answered(class_question(EMPTY, "car"), "")
    figures = figures_of([answer], [lambda answered: {"n": float(len(answered))}])
    assert figures == {"absent_rate": 0.0, "n": 1.0}


class Misses:
    """A metric of which less is better, as its attribute says."""

    lower_is_better = True

    def __call__(self, answered: Sequence[Answered], /) -> dict[str, float]:
        return {"misses": float(sum(not one.detections for one in answered))}


def test_a_metric_says_that_less_of_it_is_better() -> None:
    def hits(answered: Sequence[Answered], /) -> dict[str, float]:
        return {"hits": float(sum(bool(one.detections) for one in answered))}

    silence = [Answered(class_question(IMAGE, "car"), "")]
    assert lower_is_better([Misses(), hits], silence) == {"misses"}
