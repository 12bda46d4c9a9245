"""One question to one image: every task from question to JSON and picture."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PillowImage
from tiny_florence import make_image, save_tiny_florence

from grounded_seg.cli import main
from grounded_seg.detect.answer.parse import parse_answer
from grounded_seg.detect.ask import answer_as_json, ask, draw_answer, question_about, region_text
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.tasks import TASKS, TaskInput
from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import area_px, mask_from_run_length, run_length_from_coco
from grounded_seg.geometry.polygons import run_length_from_outline
from grounded_seg.records import Answer, Detection, ImageSize, LabelledPolygons, LabelledQuad
from grounded_seg.text.printable import safe_lines

SIZE = ImageSize(640, 480)
TEXTS = {TaskInput.NOTHING: "", TaskInput.PHRASE: "red car", TaskInput.REGION: "10,10,60,40"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("florence"))


@pytest.fixture(scope="module")
def model(folder: Path) -> FlorenceModel:
    return load_florence(folder)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_asks_and_answers(model: FlorenceModel, name: str) -> None:
    task, image = TASKS[name], make_image(1)
    answer = ask(model, task, image, TEXTS[task.takes], max_new_tokens=24)
    content = json.loads(json.dumps(answer_as_json(task, TEXTS[task.takes], image, answer)))
    assert content["task"] == name
    scores = [one["score"] for kind in ("boxes", "polygons", "quads") for one in content[kind]]
    assert all(0 <= score <= 1 for score in scores)
    assert draw_answer(image, answer).shape == image.pixels.shape


def test_scores_are_the_detectors(model: FlorenceModel) -> None:
    task, image = TASKS["REFERRING_EXPRESSION_SEGMENTATION"], make_image(1)
    [said] = model.answer(model.encode_images([image]), [task.question("dog")], max_new_tokens=24)
    bare = parse_answer(task, said.token_ids, image.size, tokenizer=model.vocabulary)
    scored = parse_answer(task, said.token_ids, image.size, tokenizer=model.vocabulary, evidence=said.evidence)
    assert [one.polygons for one in bare.polygons] == [one.polygons for one in scored.polygons]
    assert all(one.score == 1 for one in bare.polygons)
    assert all(0 < one.score < 1 for one in scored.polygons)
    assert scored.polygons
    with pytest.raises(UsageError, match="no token ids"):
        parse_answer("OD", "car", image.size, evidence=said.evidence)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0,20,30,480", "<loc_0><loc_41><loc_46><loc_999>"),
        (" 30 , 480.0,0, 20.0 ", "<loc_0><loc_41><loc_46><loc_999>"),
        ("-5,0,9999,1", "<loc_0><loc_0><loc_999><loc_2>"),
        ("<loc_1><loc_2><loc_3><loc_4>", "<loc_1><loc_2><loc_3><loc_4>"),
    ],
)
def test_regions_are_written_as_the_model_reads_them(text: str, expected: str) -> None:
    assert region_text(text, SIZE) == expected
    assert question_about(TASKS["REGION_TO_CATEGORY"], text, SIZE) == f"What is the region {expected}?"


@pytest.mark.parametrize("text", ["red car", "1,2,3", "1,2,3,4,5", "<loc_1><loc_2>", "a,b,c,d", "nan,1,2,3"])
def test_what_is_no_region_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no region"):
        region_text(text, SIZE)


def outline(*rings: list[tuple[float, float]]) -> LabelledPolygons:
    return LabelledPolygons("thing", tuple(tuple(ring) for ring in rings))


SQUARE = [(1.0, 1.0), (5.0, 1.0), (5.0, 5.0), (1.0, 5.0)]


def area(*rings: list[tuple[float, float]]) -> int:
    mask = run_length_from_outline(outline(*rings).polygons, ImageSize(12, 8))
    return 0 if mask is None else area_px(mask)


def test_outlines_are_filled() -> None:
    assert area(SQUARE) == 16
    mask = run_length_from_outline(outline(SQUARE).polygons, ImageSize(12, 8))
    assert mask is not None
    rows, columns = np.nonzero(mask_from_run_length(mask))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (1, 4, 1, 4)
    away = [(x + 5, y) for x, y in SQUARE]
    assert area(SQUARE, away) == 32
    # The same part twice is one part.
    assert area(SQUARE, SQUARE) == 16


def test_outlines_that_cross_themselves_or_enclose_nothing() -> None:
    bow_tie = [(0.0, 0.0), (8.0, 8.0), (8.0, 0.0), (0.0, 8.0)]
    assert 24 <= area(bow_tie) <= 40
    inner = [(x / 2 + 1, y / 2 + 1) for x, y in SQUARE]
    round_and_back = [*SQUARE, SQUARE[0], *reversed(inner), inner[-1]]
    assert area(round_and_back) == pytest.approx(12, abs=2)
    # A frame and a part within it, as three rings of one line: 64 - 36 + 4 pixels.
    frame, hole, island = (
        [(low, low), (high, low), (high, high), (low, high), (low, low)]
        for low, high in ((0.0, 8.0), (1.0, 7.0), (3.0, 5.0))
    )
    nested = [*frame, *hole, *island, hole[0], frame[0]]
    assert area(nested) == 64 - 36 + 4
    assert area([(1.0, 1.0), (5.0, 5.0)]) == 0
    assert area([(1.0, 1.0), (5.0, 5.0), (3.0, 3.0)]) == 0
    assert area([(1.2, 1.2), (1.3, 1.2), (1.3, 1.3)]) == 0
    assert area() == 0


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), max_size=12))
def test_any_generated_ring_makes_a_mask_or_none(bins: list[tuple[int, int]]) -> None:
    ring = [((x + 0.5) * 0.03, (y + 0.5) * 0.02) for x, y in bins]
    mask = run_length_from_outline(outline(ring).polygons, ImageSize(30, 20))
    if mask is not None:
        assert mask.size == ImageSize(30, 20)
        assert 0 < area_px(mask) <= 600


def test_json_and_picture_of_an_answer() -> None:
    image = make_image(1, 40, 30)
    quad = ((2.0, 2.0), (9.0, 2.0), (9.0, 6.0), (2.0, 6.0))
    answer = Answer(
        boxes=(Detection("café", "", (1.0, 1.0, 9.0, 9.0), 0.5),),
        polygons=(LabelledPolygons("", ((*SQUARE,),), 0.25), LabelledPolygons("", (((1.0, 1.0), (2.0, 2.0)),), 0.75)),
        quads=(LabelledQuad("EXIT", quad, 0.125),),
    )
    content = answer_as_json(TASKS["OD"], "", image, answer)
    assert content["boxes"] == [{"label": "café", "box_xyxy": [1.0, 1.0, 9.0, 9.0], "score": 0.5}]
    first, second = content["polygons"]
    assert (first["area"], first["score"]) == (16, 0.25)
    assert mask_from_run_length(run_length_from_coco(first["mask"])).sum() == 16
    assert (second["mask"], second["area"]) == (None, 0)
    assert content["quads"] == [{"label": "EXIT", "quad": quad, "score": 0.125}]
    assert (content["width"], content["height"], content["file_name"]) == (40, 30, "1.png")
    drawn = draw_answer(image, answer)
    assert (drawn != image.pixels).any()
    assert np.array_equal(draw_answer(image, Answer(text="a car")), image.pixels)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    PillowImage.fromarray(make_image(1).pixels).save(tmp_path / "street.png")
    return tmp_path / "street.png"


def grounded_ask(folder: Path, *words: Any) -> Result:
    options = ("--detector", folder, "--adapter", "none", "--device", "cpu", "--max-new-tokens", 24)
    return CliRunner().invoke(main, ["ask", *map(str, words), *map(str, options)])


def test_the_command_line_asks(folder: Path, photo: Path, tmp_path: Path) -> None:
    result = grounded_ask(folder, "REFERRING_EXPRESSION_SEGMENTATION", "dog", photo, "--json", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.stderr
    content = json.loads(result.stdout)
    written = tmp_path / "out" / "street-REFERRING_EXPRESSION_SEGMENTATION.json"
    assert content == json.loads(written.read_text(encoding="utf-8"))
    assert content["prompt"] == "dog"
    assert content["polygons"]
    with PillowImage.open(written.with_suffix(".png")) as picture:
        assert picture.size == (120, 80)
    table = grounded_ask(folder, "referring_expression_segmentation", "dog", photo)
    assert "corners" in table.stdout
    # A picture of an earlier answer would contradict the new one.
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "street-CAPTION.png").touch()
    text = grounded_ask(folder, "<CAPTION>", photo, "-o", tmp_path / "text")
    assert text.exit_code == 0
    assert [one.name for one in (tmp_path / "text").iterdir()] == ["street-CAPTION.json"]
    said = json.loads((tmp_path / "text" / "street-CAPTION.json").read_text(encoding="utf-8"))["text"]
    # Random weights say control characters too.
    assert text.stdout.strip() == safe_lines(said or "nothing found").strip()


def test_an_answer_that_can_not_be_written_is_told_all_the_same(folder: Path, photo: Path) -> None:
    result = grounded_ask(folder, "REFERRING_EXPRESSION_SEGMENTATION", "dog", photo, "--json", "-o", photo)
    assert result.exit_code != 0
    assert json.loads(result.stdout)["polygons"]
    assert result.stderr.splitlines()[-1].endswith("name another folder with --output")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("SEGMENT", "PHOTO"), "there is no task"),
        (("OD", "red car", "PHOTO"), "takes no text"),
        (("OD", "PHOTO", "PHOTO"), "are files; ask takes one image"),
        (
            ("REGION_TO_OCR", "120,0,140,20", "PHOTO"),
            "the region '120,0,140,20' is outside the image of 120 x 80 pixels",
        ),
        (("REGION_TO_OCR", "-9,-9,0,50", "PHOTO"), "is outside the image"),
        (("REGION_TO_OCR", "PHOTO"), "needs a region"),
        (("REGION_TO_OCR", "red car", "PHOTO"), "is no region"),
        (("OPEN_VOCABULARY_DETECTION", "caf\udce9", "PHOTO"), r"'caf\udce9' is not UTF-8"),
        (("OPEN_VOCABULARY_DETECTION", "red", "car", "PHOTO"), "put them in quotes"),
    ],
)
def test_questions_that_make_no_sense_are_told_before_a_model_is_loaded(
    photo: Path, tmp_path: Path, words: tuple[str, ...], message: str
) -> None:
    result = grounded_ask(tmp_path / "no model", *(photo if word == "PHOTO" else word for word in words))
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_a_region_may_begin_left_of_the_image(folder: Path, photo: Path) -> None:
    result = grounded_ask(folder, "REGION_TO_OCR", "-5,-2.5,10, 10", photo, "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["prompt"] == "-5,-2.5,10, 10"
    # What is no region stays an unknown option.
    assert "No such option" in grounded_ask(folder, "REGION_TO_OCR", "-5", photo).stderr


def test_a_score_is_a_finite_number(model: FlorenceModel) -> None:
    answer = ask(model, TASKS["REGION_PROPOSAL"], make_image(2), max_new_tokens=40)
    assert all(math.isfinite(one.score) for one in answer.boxes)


def test_the_demo_says_which_tasks_it_learnt_and_what_was_written(photo: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["ask", "OCR", str(photo), "--preset", "demo", "-o", str(tmp_path / "out")])
    assert result.exit_code == 0, result.stderr
    about_demo, about_files = result.stderr.splitlines()
    assert "CAPTION_TO_PHRASE_GROUNDING, OPEN_VOCABULARY_DETECTION, OD and CAPTION; OCR isn't among them" in about_demo
    assert about_files == f"note: the answer is in {tmp_path / 'out' / 'street-OCR.json'}"
    for learnt in (["CAPTION_TO_PHRASE_GROUNDING", "red car"], ["OD"]):
        asked = CliRunner().invoke(main, ["ask", *learnt, str(photo), "--preset", "demo"])
        assert "know rendered scenes only" in asked.stderr
