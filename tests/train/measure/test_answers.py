"""Answers of a validation: which questions are asked together, and how long an answer may be."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tiny_florence import make_image, save_tiny_florence

from grounded_seg.detect.decoding.greedy import N_AT_ONCE
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.images.draw import save_picture
from grounded_seg.records import ImageSize
from grounded_seg.train.data.records import Question, TextExample
from grounded_seg.train.data.samples import ImageStore
from grounded_seg.train.measure.answers import answer_limit, answered, question_batches


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> FlorenceModel:
    return load_florence(save_tiny_florence(tmp_path_factory.mktemp("florence")))


def questions_about(paths: Sequence[Path], texts: Sequence[str], answer: str = "a dog") -> list[Question]:
    size = ImageSize(120, 80)
    return [
        Question(TextExample(path, size, text, answer, "rows.jsonl:1"), text, answer)
        for path in paths
        for text in texts
    ]


def test_batches_are_of_whole_images() -> None:
    questions = questions_about([Path(f"{n}.png") for n in range(10)], [f"question {n}" for n in range(5)])
    batches = question_batches(questions)
    assert [one for some in batches for one in some] == questions
    # Four images are the first that have as many questions as are answered at once.
    assert [len(some) for some in batches] == [20, 20, 10]
    assert N_AT_ONCE == 16
    assert question_batches([]) == []


def test_an_answer_may_be_twice_as_long_as_the_longest_true_one(model: FlorenceModel) -> None:
    short, long = questions_about([Path("a.png")], ["x"], "y"), questions_about([Path("b.png")], ["x"], "y" * 100)
    # <s>, 100 letters, </s>.
    assert answer_limit(model, [*short, *long]) == 204
    # Some wrong boxes must be seen, though nothing is there.
    assert answer_limit(model, short) == 64
    assert answer_limit(model, questions_about([Path("b.png")], ["x"], "y" * 2000)) == 1024


def test_answers_of_a_batch_are_those_of_each_image_alone(
    model: FlorenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(4)]
    for number, path in enumerate(paths):
        save_picture(path, make_image(number).pixels)
    questions, images = questions_about(paths, ["a red car", "dogs"]), ImageStore(None, 10_000)
    limits: list[int] = []
    answer = model.answer

    def seen_answer(*given: Any, **named: Any) -> Any:
        limits.append(named["max_new_tokens"])
        return answer(*given, **named)

    monkeypatch.setattr(model, "answer", seen_answer)
    together = answered(model, questions, images, 30)
    assert limits == [30]
    assert [one.question for one in together] == questions
    assert len({one.text for one in together}) > 4
    alone = [one for at in range(0, 8, 2) for one in answered(model, questions[at : at + 2], images, 30)]
    assert [one.text for one in together] == [one.text for one in alone]
