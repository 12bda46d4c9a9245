"""Answers are written as Florence-2 writes them, and each epoch asks about what is there and what isn't."""

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.records import Image, ImageSize
from grounded_seg.train.data.questions import QuestionPlan, all_questions, answer_from_boxes, class_question
from grounded_seg.train.data.records import BoxExample, LabelledBox, TextExample
from grounded_seg.train.data.samples import Augmentation, augmentation_for
from grounded_seg.train.settings import PromptForm

SIZE = ImageSize(200, 100)


def example(name: str, *boxes: LabelledBox, unsure: frozenset[str] = frozenset()) -> BoxExample:
    return BoxExample(Path(name), SIZE, boxes, f"{name}:1", unsure)


CAR, DOG = LabelledBox("car", (50, 20, 200, 100)), LabelledBox("dog", (0, 0, 20, 10))
EXAMPLES = (
    example("a", CAR),
    example("b", DOG),
    example("c", CAR, DOG),
    example("d"),
    example("e", unsure=frozenset({"car"})),
)


def plan(ratio: float = 1.0, form: PromptForm = PromptForm.CLASS, seed: int = 0, group: int = 1) -> QuestionPlan:
    return QuestionPlan(EXAMPLES, ("car", "dog", "cat"), form, ratio, seed, group)


def test_a_box_is_four_floored_bins_and_the_border_is_the_last_one() -> None:
    assert answer_from_boxes([CAR], SIZE) == "car<loc_250><loc_200><loc_999><loc_999>"


def test_boxes_of_one_label_stand_together_from_left_to_right() -> None:
    left, right = LabelledBox("car", (0, 50, 10, 60)), LabelledBox("car", (100, 0, 110, 10))
    between = LabelledBox("dog", (20, 0, 30, 10))
    expected = (
        "car<loc_0><loc_500><loc_50><loc_600><loc_500><loc_0><loc_550><loc_100>dog<loc_100><loc_0><loc_150><loc_100>"
    )
    assert (
        answer_from_boxes([right, between, left], SIZE) == answer_from_boxes([left, right, between], SIZE) == expected
    )


edges = st.tuples(st.floats(0, 199), st.floats(0, 99), st.floats(1, 200), st.floats(1, 100))


@given(st.lists(edges.filter(lambda box: box[2] - box[0] > 0.5 and box[3] - box[1] > 0.5), max_size=6))
def test_the_parser_reads_back_what_was_written(boxes: list[tuple[float, float, float, float]]) -> None:
    written = answer_from_boxes([LabelledBox("car", box) for box in boxes], SIZE)
    found = parse_answer("OD", written, SIZE).boxes
    assert len(found) == len(boxes)
    for one, box in zip(
        found, sorted(tuple(np.floor(np.array(box) * [5, 10, 5, 10]).clip(0, 999)) for box in boxes), strict=True
    ):
        assert one.box_xyxy == pytest.approx(
            [(edge + 0.5) * side for edge, side in zip(box, (0.2, 0.1) * 2, strict=True)]
        )


def test_an_absent_class_is_answered_with_nothing() -> None:
    question = class_question(EXAMPLES[0], "dog")
    assert (question.text, question.answer) == ("Locate the phrases in the caption: dog", "")


def test_an_epoch_asks_for_all_that_is_there_and_as_many_absent_things() -> None:
    asked = Counter((one.example.image.name, one.prompt, bool(one.answer)) for one in plan().epoch(0))
    assert {key for key in asked if key[2]} == {
        ("a", "car", True),
        ("b", "dog", True),
        ("c", "car", True),
        ("c", "dog", True),
    }
    negatives = [key for key in asked if not key[2]]
    assert len(negatives) == 4 == plan().n_negatives
    assert len(plan()) == 8
    assert max(asked.values()) == 1


@pytest.mark.parametrize("epoch", range(5))
def test_background_images_are_asked_every_epoch_and_crowds_never(epoch: int) -> None:
    asked = [(one.example.image.name, one.prompt) for one in plan(ratio=0.25).epoch(epoch)]
    assert {"d", "e"} <= {name for name, _ in asked}
    assert ("e", "car") not in asked


@pytest.mark.parametrize("epoch", range(5))
def test_what_was_rejected_on_an_image_is_asked_there_every_epoch(epoch: int) -> None:
    """Also what is on no image at all, and there alone."""
    looked_at = [
        replace(example("a", CAR), rejected=frozenset({"unicorn", "dog"})),
        replace(example("b"), rejected=frozenset({"cat"})),
        replace(example("c", unsure=frozenset({"dog"})), rejected=frozenset({"dog"})),
        example("d", CAR, DOG),
    ]
    some = QuestionPlan(looked_at, ("car", "dog", "cat"), PromptForm.CLASS, 0.1, 0)
    asked = [(one.example.image.name, one.prompt) for one in some.epoch(epoch) if not one.answer]
    assert {("a", "unicorn"), ("a", "dog"), ("b", "cat")} <= set(asked)
    # The third image is background too, and asked about anything but what nobody is sure of.
    assert len(asked) == some.n_negatives == 4
    assert not {("c", "dog")} & set(asked)
    assert [one for one in asked if one[1] == "unicorn"] == [("a", "unicorn")]
    without = QuestionPlan(looked_at, ("car", "dog", "cat"), PromptForm.CLASS, 0, 0)
    assert all(one.answer for one in without.epoch(epoch))
    measured = [(one.example.image.name, one.prompt) for one in all_questions(looked_at, ("car",), PromptForm.CLASS)]
    assert measured == [
        ("a", "car"),
        ("a", "dog"),
        ("a", "unicorn"),
        ("b", "car"),
        ("b", "cat"),
        ("c", "car"),
        ("d", "car"),
    ]


def test_without_negatives_only_what_is_there_is_asked() -> None:
    assert all(one.answer for one in plan(ratio=0).epoch(0))
    assert len(plan(ratio=0)) == 4


def test_no_more_negatives_than_there_are() -> None:
    # a and b miss two classes, c one, d three, e two.
    assert plan(ratio=100).n_negatives == 10
    assert len({(one.example.image.name, one.prompt) for one in plan(ratio=100).epoch(3)}) == 14


def test_an_epoch_is_always_the_same_and_others_differ() -> None:
    assert plan().epoch(1) == plan().epoch(1)
    assert plan().epoch(1) != plan().epoch(2)
    assert plan(seed=1).epoch(1) != plan().epoch(1)


def test_questions_about_one_image_stand_together_as_far_as_asked() -> None:
    names = [one.example.image.name for one in plan(ratio=100, group=2).epoch(0)]
    assert sum(one == other for one, other in pairwise(names)) >= 5


def test_all_at_once_asks_each_image_once() -> None:
    asked = {one.example.image.name: one.answer for one in plan(form=PromptForm.OD).epoch(0)}
    assert asked == {
        "a": "car<loc_250><loc_200><loc_999><loc_999>",
        "b": "dog<loc_0><loc_0><loc_100><loc_100>",
        "c": "dog<loc_0><loc_0><loc_100><loc_100>car<loc_250><loc_200><loc_999><loc_999>",
        "d": "",
    }
    assert {one.text for one in plan(form=PromptForm.OD).epoch(0)} == {
        "Locate the objects with category name in the image."
    }
    assert len(plan(form=PromptForm.OD, ratio=0)) == 3


def test_texts_are_asked_as_they_are() -> None:
    text = TextExample(Path("t"), SIZE, "What does the image describe?", "a car", "t:1")
    [question] = all_questions([text], ("car",), PromptForm.CLASS)
    assert (question.text, question.answer) == ("What does the image describe?", "a car")


def test_measuring_asks_every_class() -> None:
    asked = [
        (one.example.image.name, one.prompt) for one in all_questions(EXAMPLES[3:], ("car", "dog"), PromptForm.CLASS)
    ]
    assert asked == [("d", "car"), ("d", "dog"), ("e", "dog")]


def test_a_mirrored_image_has_mirrored_boxes() -> None:
    pixels = np.arange(200 * 100 * 3, dtype=np.uint32).reshape(100, 200, 3).astype(np.uint8)
    image, question = Image(Path("a"), pixels), class_question(EXAMPLES[0], "car")
    flips = Augmentation(flips=True, colours=False)
    seen = {}
    for seed in range(20):
        shown, changed = flips.apply(image, question, np.random.default_rng(seed))
        seen[changed.answer] = shown.pixels
    assert set(seen) == {"car<loc_250><loc_200><loc_999><loc_999>", "car<loc_0><loc_200><loc_750><loc_999>"}
    assert np.array_equal(seen["car<loc_0><loc_200><loc_750><loc_999>"], pixels[:, ::-1])


def test_colours_change_pixels_and_no_boxes() -> None:
    image = Image(Path("a"), np.full((100, 200, 3), (200, 100, 50), dtype=np.uint8))
    question = class_question(EXAMPLES[0], "car")
    shown, same = Augmentation(flips=False, colours=True).apply(image, question, np.random.default_rng(0))
    assert same == question
    difference = np.abs(shown.pixels.astype(int) - image.pixels)
    assert 0 < difference.max() < 80


@pytest.mark.parametrize(
    ("classes", "flips", "colours"),
    [
        (["car", "traffic light"], True, True),
        (["left shoe"], False, True),
        (["car", "Red car"], True, False),
        (["right, ripe tomato"], False, False),
        (["bright-eyed bird", "cleft"], True, False),
        (["left_shoe"], False, True),
        (["shoe_right2"], False, True),
        (["red_car"], True, False),
        (["leftShoe"], False, True),
        (["RedCar", "RGBLeft"], False, False),
        (["bred_dog", "Cleft", "infraRedder"], True, True),
    ],
)
def test_what_labels_speak_of_is_left_alone(classes: list[str], flips: bool, colours: bool) -> None:
    assert augmentation_for(classes) == Augmentation(flips, colours)
