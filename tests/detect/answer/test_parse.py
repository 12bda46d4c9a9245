import json
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import ROOT, unpacked
from tiny_florence import make_tokenizer
from tokenizers import Tokenizer
from transformers.models.florence2.processing_florence2 import Florence2PostProcessor

from grounded_seg.detect import parse_answer
from grounded_seg.detect.answer.grammar import GROUNDING_FILLERS
from grounded_seg.detect.answer.parse import parse_tokens
from grounded_seg.detect.tasks import TASKS
from grounded_seg.errors import UsageError
from grounded_seg.records import Answer, ImageSize

GROUNDING = "<CAPTION_TO_PHRASE_GROUNDING>"
SQUARE = ImageSize(1000, 1000)
TOKENIZER = make_tokenizer()


def boxes(answer: Answer) -> list[tuple[str, tuple[float, ...]]]:
    return [(box.label, box.box_xyxy) for box in answer.boxes]


def locations(*bins: int) -> str:
    return "".join(f"<loc_{value}>" for value in bins)


def reference_cases() -> list[Any]:
    cases = json.loads(unpacked("florence2-parses.json").read_text(encoding="utf-8"))["parses"]
    return [pytest.param(case, id=f"{case['task']}-{index}") for index, case in enumerate(cases)]


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("case", reference_cases())
def test_the_first_code_gives_the_same(case: dict[str, Any], by_token: bool) -> None:
    text = case["text"]
    given_answer = TOKENIZER.encode(text, add_special_tokens=False).ids if by_token else text
    found = parse_answer(case["task"], given_answer, ImageSize(*case["image_size"]), tokenizer=TOKENIZER)
    expected = case["result"][case["task"]]
    if isinstance(expected, str):
        assert found == Answer(text=expected)
        return
    labels = [one.label for one in found.boxes]
    # Two of the differences on purpose: letters outside ASCII stay, special tokens don't.
    first_label = "café table" if "café" in text else "STOP"
    want = [first_label if label in ("caf table", "</s>STOP") else label for label in labels_of(expected)]
    assert [*labels, *(one.label for one in found.polygons), *(one.label for one in found.quads)] == want
    for got, wanted in zip(coordinates_of(found), expected_coordinates(expected), strict=True):
        assert got == pytest.approx(wanted, abs=0.01)


def labels_of(expected: dict[str, Any]) -> list[str]:
    return [label for key, value in expected.items() if key.endswith("labels") for label in value]


def expected_coordinates(expected: dict[str, Any]) -> list[list[float]]:
    rings = [ring for outline in expected.get("polygons", []) for ring in outline]
    return [*expected.get("bboxes", []), *rings, *expected.get("quad_boxes", [])]


def coordinates_of(answer: Answer) -> list[list[float]]:
    rings = [ring for outline in answer.polygons for ring in outline.polygons]
    rings += [one.quad for one in answer.quads]
    return [list(one.box_xyxy) for one in answer.boxes] + [
        [value for point in ring for value in point] for ring in rings
    ]


def test_corners_are_put_in_order() -> None:
    assert boxes(parse_answer("<OD>", "car" + locations(300, 400, 10, 20), SQUARE)) == [
        ("car", (10.5, 20.5, 300.5, 400.5))
    ]


@pytest.mark.parametrize("bins", [(10, 20, 10, 400), (10, 20, 300, 20), (5, 5, 5, 5)])
def test_a_box_without_area_is_dropped_and_its_neighbour_kept(bins: tuple[int, ...]) -> None:
    answer = parse_answer("<OD>", "car" + locations(*bins, 1, 2, 3, 4), SQUARE)
    assert boxes(answer) == [("car", (1.5, 2.5, 3.5, 4.5))]


@pytest.mark.parametrize("token", ["<od>", "<s>", "</s>", "<pad>", "<unk>", "<poly>", "<sep>", "<image>", "<loc_5>"])
def test_special_tokens_never_stay_in_labels(token: str) -> None:
    box = locations(1, 2, 3, 4)
    assert boxes(parse_answer("<OD>", f"{token}car{box}", SQUARE)) == [("car", (1.5, 2.5, 3.5, 4.5))]
    assert parse_answer("<CAPTION>", f"{token}A car.{token}</s>", SQUARE).text == "A car."
    assert parse_answer("<OCR_WITH_REGION>", f"{token}STOP{box}{box}", SQUARE).quads[0].label == "STOP"


def test_letters_of_every_script_stay_although_their_bytes_are_several_tokens() -> None:
    text = "größe 犬 🐕" + locations(1, 2, 3, 4)
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    assert len(ids) > len(text.partition("<")[0]) + 4
    expected = [("größe 犬 🐕", (1.5, 2.5, 3.5, 4.5))]
    assert (
        boxes(parse_answer("<OD>", text, SQUARE))
        == boxes(parse_answer("<OD>", ids, SQUARE, tokenizer=TOKENIZER))
        == expected
    )


@pytest.mark.parametrize(
    "tail",
    ["wheel", "wheel<loc_1>", "wheel" + locations(1, 2, 3), locations(9), "wheel" + locations(1, 2, 3) + "x", "<poly>"],
)
def test_a_truncated_answer_keeps_what_is_whole(tail: str) -> None:
    assert len(parse_answer("<OD>", f"car{locations(1, 2, 3, 4, 5, 6, 7, 8)}{tail}", SQUARE).boxes) == 2


def test_locations_without_a_label_are_no_labelled_box_but_a_proposal() -> None:
    text = locations(1, 2, 3, 4)
    assert parse_answer("<OD>", text, SQUARE) == Answer()
    assert boxes(parse_answer("<REGION_PROPOSAL>", text, SQUARE)) == [("", (1.5, 2.5, 3.5, 4.5))]


def test_a_location_that_does_not_exist_spoils_its_box_only() -> None:
    text = f"car<loc_1><loc_2><loc_3><loc_1000>dog{locations(1, 2, 3, 4)}"
    assert boxes(parse_answer("<OD>", text, SQUARE)) == [("dog", (1.5, 2.5, 3.5, 4.5))]
    assert parse_answer("<OD>", f"car<loc_{'9' * 5000}>", SQUARE) == Answer()


def test_parts_of_an_outline_and_outlines_of_a_label() -> None:
    first, second, third = locations(1, 1, 2, 1, 2, 2), locations(5, 5, 6, 5, 6, 6, 9), locations(7, 7, 8, 7, 8, 8)
    answer = parse_answer(
        "OPEN_VOCABULARY_DETECTION", f"leaf<poly>{first}<sep>{second}</poly><poly>{third}</poly>", SQUARE
    )
    rings = [[len(ring) for ring in outline.polygons] for outline in answer.polygons]
    # The seventh number of the second ring has no partner.
    assert rings == [[3, 3], [3]]
    assert answer.polygons[1].polygons[0] == ((7.5, 7.5), (8.5, 7.5), (8.5, 8.5))
    cut = parse_answer("OPEN_VOCABULARY_DETECTION", f"leaf<poly>{first}</poly><poly>{third}", SQUARE)
    assert len(cut.polygons) == 1


def test_fillers_are_dropped_but_never_what_was_asked_for() -> None:
    text = "".join(f"{label}{locations(1, 2, 3, 4)}" for label in ("it", "red car", "the image"))
    assert [label for label, _ in boxes(parse_answer(GROUNDING, text, SQUARE))] == ["red car"]
    asked = parse_answer(GROUNDING, text, SQUARE, prompt="The image")
    assert [box.label for box in asked.boxes] == ["red car", "the image"]
    assert {box.prompt for box in asked.boxes} == {"The image"}
    assert len(parse_answer("<OD>", text, SQUARE).boxes) == 3


def test_the_fillers_are_the_original_ones() -> None:
    path = unpacked("grounding-fillers.json")
    assert frozenset(json.loads(path.read_text(encoding="utf-8"))) == GROUNDING_FILLERS


def test_tokens_of_a_box_are_told_by_position() -> None:
    text = f"</s><s>caé{locations(1, 2, 3, 4, 5, 6, 7, 8, 9)}dog{locations(4, 3, 2, 1)}</s><pad>"
    ids = TOKENIZER.encode(text, add_special_tokens=False).ids
    first, second, third = parse_tokens(TASKS["OD"], ids, TOKENIZER)
    # </s> <s> ca [two bytes of é], then nine locations, three letters, four locations.
    assert first.label_positions == second.label_positions == (2, 3, 4)
    assert first.location_positions == (5, 6, 7, 8)
    assert second.location_positions == (9, 10, 11, 12)
    assert (third.label, third.label_positions, third.location_positions) == ("dog", (14, 15, 16), (17, 18, 19, 20))
    assert third.rings == ((4, 3, 2, 1),)


def test_ids_need_a_tokenizer() -> None:
    with pytest.raises(UsageError, match="tokenizer"):
        parse_answer("<OD>", [1, 2, 3], SQUARE)


@settings(max_examples=300)
@given(st.sampled_from(sorted(TASKS)), st.lists(st.integers(-3, TOKENIZER.get_vocab_size() + 50), max_size=60))
def test_no_tokens_are_too_odd(task: str, ids: list[int]) -> None:
    answer = parse_answer(task, ids, ImageSize(640, 480), tokenizer=TOKENIZER)
    for box in answer.boxes:
        x0, y0, x1, y1 = box.box_xyxy
        assert 0 <= x0 < x1 <= 640
        assert 0 <= y0 < y1 <= 480


@settings(max_examples=300)
@given(st.sampled_from(sorted(TASKS)), st.text(max_size=40))
def test_no_text_is_too_odd(task: str, text: str) -> None:
    parse_answer(task, text, ImageSize(640, 480))


WORDS = st.text("xy <", min_size=1, max_size=4)
LOCATIONS = st.lists(st.integers(0, 999), min_size=1, max_size=9).map(lambda bins: locations(*bins))
MARKS = st.sampled_from(["<poly>", "</poly>", "<sep>", "<s>", "</s>", "<pad>"])
TEXTS = st.lists(st.one_of(WORDS, LOCATIONS, LOCATIONS, MARKS), max_size=8).map("".join)
FORMS = {
    "OD": "description_with_bboxes",
    "CAPTION_TO_PHRASE_GROUNDING": "phrase_grounding",
    "REGION_PROPOSAL": "bboxes",
    "REFERRING_EXPRESSION_SEGMENTATION": "polygons",
    "OPEN_VOCABULARY_DETECTION": "description_with_bboxes_or_polygons",
}
THEIRS = Florence2PostProcessor(
    config={
        form: {"banned_grounding_tokens": sorted(GROUNDING_FILLERS)} if form == "phrase_grounding" else {}
        for form in FORMS.values()
    },
    tokenizer=SimpleNamespace(all_special_tokens=[]),
)


@pytest.mark.parametrize("task", FORMS)
@given(text=TEXTS)
def test_transformers_reads_the_same_from_any_text(task: str, text: str) -> None:
    # An image of 1000 pixels, so that their cutting to whole pixels gives back the bins.
    theirs = THEIRS(text=text, image_size=(1000, 1000), parse_tasks=FORMS[task])[FORMS[task]]
    has_labels = task not in ("REGION_PROPOSAL", "REFERRING_EXPRESSION_SEGMENTATION")
    ours = [one for one in ours_in_bins(parse_answer(task, text, SQUARE)) if one[0] or not has_labels]
    assert ours == [one for one in theirs_in_bins(theirs) if one[0] or not has_labels]


def ours_in_bins(answer: Answer) -> list[tuple[str, list[list[int]]]]:
    found = [(box.label, [[int(value) for value in box.box_xyxy]]) for box in answer.boxes]
    for outline in answer.polygons:
        found.append((outline.label, [[int(value) for point in ring for value in point] for ring in outline.polygons]))
    return found


def theirs_in_bins(instances: list[dict[str, Any]]) -> Any:
    """Their boxes and outlines, less the differences on purpose, and outlines of no point at all."""
    for instance in instances:
        # Special tokens, and what is left of one: they read "<loc_5>car" as "loc_5>car".
        label = re.sub("<sep>|</?poly>|^(loc_[0-9]+|sep|/?poly)>", "", instance["cat_name"]).strip()
        if "polygons" in instance:
            rings = [ring for ring in instance["polygons"] if ring]
            if rings:
                yield label, rings
            continue
        rows = instance["bbox"] if isinstance(instance["bbox"][0], list) else [instance["bbox"]]
        for x0, y0, x1, y1 in rows:
            if x0 != x1 and y0 != y1:
                yield label, [[min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)]]


def test_parsing_needs_no_torch() -> None:
    code = "import sys; from grounded_seg.detect import parse_answer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_real_tokenizer_decodes_as_ours_does() -> None:
    real = Tokenizer.from_file(str(unpacked("florence2-tokenizer/tokenizer.json")))
    text = "</s><s>größe 犬" + locations(1, 2, 3, 4) + "</s>"
    ids = real.encode(text, add_special_tokens=False).ids
    assert boxes(parse_answer("<OD>", ids, SQUARE, tokenizer=real)) == [("größe 犬", (1.5, 2.5, 3.5, 4.5))]
