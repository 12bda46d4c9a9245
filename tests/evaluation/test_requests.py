"""What an image is asked."""

from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, truth, written

from grounded_seg.coco.data_set import DataSet, read_data_set
from grounded_seg.detect.prompt_set import PromptRule
from grounded_seg.detect.prompts import PromptSet, prompt_set_from
from grounded_seg.errors import UsageError
from grounded_seg.evaluation.requests import questions_for

HERE: Box = (10, 10, 40, 40)


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    """Image 1 has a, image 2 has a and b, image 3 nothing; c and d are nowhere."""
    document = truth((1, 1, HERE), (2, 1, HERE), (2, 2, HERE), n_images=3, classes=("a", "b", "c", "d"))
    return read_data_set(written(tmp_path / "truth.json", document))


def test_every_class_is_asked_by_its_name(data_set: DataSet) -> None:
    questions = questions_for(data_set)
    assert questions.prompts.prompts == ("a", "b", "c", "d")
    assert len(questions.pairs()) == 12
    assert questions.notes == ()


@pytest.mark.parametrize(("n_absent", "sizes"), [(0, [1, 2, 0]), (1, [2, 3, 1]), (2, [3, 4, 2]), (9, [4, 4, 4])])
def test_absent_classes_are_drawn(data_set: DataSet, n_absent: int, sizes: list[int]) -> None:
    questions = questions_for(data_set, n_absent=n_absent)
    assert [len(questions.by_image[image].prompts) for image in (1, 2, 3)] == sizes
    assert "a" in questions.by_image[1].prompts
    assert set("ab") <= set(questions.by_image[2].prompts)
    assert questions_for(data_set, n_absent=n_absent).by_image == questions.by_image
    assert f"at most {n_absent} others" in questions.notes[0]


def test_classes_without_a_prompt_are_left_out(data_set: DataSet) -> None:
    questions = questions_for(data_set, PromptSet(("an a", "one a"), ("a", "a")))
    assert questions.data_set.classes == {1: "a"}
    assert len(questions.data_set.objects) == 2
    assert questions.pairs().tolist() == [[1, 1], [2, 1], [3, 1]]
    assert "3 of 4 classes have no prompt and are left out" in questions.notes[0]


def test_what_makes_no_sense(data_set: DataSet) -> None:
    with pytest.raises(UsageError, match="has no class 'e'; it has a, b, c, d"):
        questions_for(data_set, PromptSet(("e",), ("e",)))
    with pytest.raises(UsageError, match="at least 0"):
        questions_for(data_set, n_absent=-1)


def test_rules_are_asked_about_and_thresholds_are_not(data_set: DataSet) -> None:
    given: Any = {"an a": {"class": "a", "not": "b", "threshold": 0.9}, "b": "b", "c": "c"}
    prompts = prompt_set_from(given)
    plain = questions_for(data_set, prompt_set_from({"an a": "a", "b": "b", "c": "c"}))
    ruled = questions_for(data_set, prompts, n_absent=0)
    assert ruled.prompts.rules[0] == PromptRule(unwanted=("b",))
    assert [note for note in ruled.notes if "thresholds of classes are left out, as every box is measured" in note]
    # Image 1 has no b, which is asked about there only to drop what isn't an a.
    assert ruled.by_image[1].prompts == ("an a",)
    assert list(ruled.by_image[1].questions) == ["an a", "b"]
    assert ruled.by_image[2].questions == {"an a": "a", "b": "b"}
    assert ruled.sha256() != questions_for(data_set, plain.prompts, n_absent=0).sha256()
    assert plain.prompts.rules == ()
