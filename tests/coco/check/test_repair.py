"""A repaired copy holds what the commands read before: no label is lost, and its values are the same."""

import json
import tempfile
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from eval_cases import grounded_seg
from hypothesis import strategies as st
from planted_faults import good
from quirks import HEIGHT, QUIRKS, WIDTH, clean_document, planted, write_pictures

from grounded_seg.coco.check.repair import repair_document, repair_file
from grounded_seg.coco.check.repair_shapes import Repairs
from grounded_seg.coco.check.rules import Severity
from grounded_seg.coco.check.validate import validate_document
from grounded_seg.coco.data_set import data_set_from, read_data_set

# Polygons of an image without a size need the image; an area that no reader can hold becomes the mask's.
NOT_AS_BEFORE = {"no `width` and `height`", "an `area` beyond 64 bits"}
READ = {quirk.name: quirk for quirk in QUIRKS if quirk.is_read and quirk.name not in NOT_AS_BEFORE}
FORMS = ("polygon", "run lengths", "none")


@st.composite
def objects(draw: st.DrawFn) -> tuple[int, int, tuple[int, int, int, int]]:
    width, height = draw(st.integers(4, 20)), draw(st.integers(4, 15))
    x, y = draw(st.integers(0, WIDTH - width)), draw(st.integers(0, HEIGHT - height))
    return draw(st.integers(1, 3)), draw(st.integers(1, 2)), (x, y, width, height)


def read_from(data_set: Any) -> list[Any]:
    """Each object by the names of its image and class, with its values; ids and places may be others."""
    names = {image.id: image.file_name for image in data_set.images}
    return [
        (names[one.image_id], data_set.classes[one.category_id], one.bbox_xywh, one.mask, one.area, one.is_crowd)
        for one in data_set.objects
    ]


def errors(document: Any) -> list[str]:
    return [f"{one.rule} {one.place}" for one in validate_document(document) if one.severity is Severity.ERROR]


def read_and_repaired(document: Any) -> tuple[list[Any], list[Any], Any]:
    """What is read of a document, the same of its repaired copy, and this copy."""
    before = read_from(data_set_from(document, Path("before")))
    fixed = repair_document(document, Repairs())
    return before, read_from(data_set_from(fixed, Path("after"))), fixed


@pytest.mark.parametrize("with_images", [False, True], ids=["", "with images"])
@pytest.mark.parametrize("name", READ)
@hypothesis.settings(max_examples=6, phases=[hypothesis.Phase.generate])
@hypothesis.given(
    boxes=st.lists(st.tuples(objects(), st.sampled_from(FORMS)), min_size=1, max_size=5, unique_by=lambda one: one[0]),
    choice=st.integers(0, 4),
)
def test_the_copy_of_a_quirk_is_read_as_before(
    name: str, with_images: bool, boxes: list[tuple[Any, str]], choice: int
) -> None:
    document = clean_document([box for box, _ in boxes], [form for _, form in boxes])
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        images = write_pictures(folder / "images")
        files = planted(folder, images, document, choice % len(boxes), READ[name])
        repair_file(files.quirky, folder / "fixed.json", images if with_images else None)
        assert read_from(read_data_set(folder / "fixed.json")) == read_from(read_data_set(files.quirky))
        assert errors(json.loads((folder / "fixed.json").read_text())) == []


@pytest.mark.parametrize(
    "values",
    [
        {"bbox": ["2", "3", "4", "5"], "segmentation": [["2", "3", "6", "3", "6", "8"]]},
        {"bbox": ["2", 3, 4, "5"], "segmentation": []},
        {"bbox": None, "segmentation": [["2", "3", "6", "3", "6", "8"]]},
        {"bbox": None, "segmentation": {"size": ["10", "20"], "counts": ["33", *["5"] * 7, "132"]}},
        {"bbox": "2 3 4 5", "segmentation": ["2,3,6,3,6,8"]},
        {"bbox": [2, 3, 0, 5], "segmentation": []},
        {"area": "20"},
        {"iscrowd": 2},
    ],
    ids=str,
)
def test_a_label_that_is_read_stays_with_its_values(values: dict[str, Any]) -> None:
    document = good()
    document["annotations"][0].update(area=13, **({} if "area" in values else values))
    document["annotations"][2].update(values if "area" in values else {})
    before, after, fixed = read_and_repaired(document)
    assert len(before) == 3
    assert after == before
    assert errors(fixed) == []


def test_a_polygon_that_would_become_another_shape_is_not_moved() -> None:
    document = good()
    document["annotations"][0].update(segmentation=[[-10, 3, 6, 0, 6, 9]], bbox=[0, 0, 6, 9], area=54)
    before, after, _ = read_and_repaired(document)
    assert after[0][3] == before[0][3]


def test_a_score_beyond_one_is_kept() -> None:
    document = good()
    document["annotations"][1]["score"] = 87
    assert repair_document(document, Repairs())["annotations"][1]["score"] == 87


def test_a_class_name_that_is_a_number_is_read_as_before() -> None:
    document = good()
    document["categories"][0]["name"] = 7
    before, after, fixed = read_and_repaired(document)
    assert after == before
    assert errors(fixed) == []


def test_labels_of_a_size_in_doubt_get_numbers_and_stay_whole(tmp_path: Path) -> None:
    images = write_pictures(tmp_path / "images")
    document = clean_document([(1, 1, (20, 10, 12, 15)), (1, 2, (2, 3, 10, 8))], ["polygon", "none"])
    document["images"][0].update(width=WIDTH * 2, height=HEIGHT)
    text = {"bbox": "[20, 10, 12, 15]", "area": "180", "segmentation": json.dumps([[20, 10, 32, 10, 32, 25]])}
    document["annotations"][0].update(text)
    document["annotations"][1].update(bbox=["2", "3", "10", "8"], area=None)
    fixed = repair_document(document, Repairs(), images)
    assert [one["bbox"] for one in fixed["annotations"]] == [[20, 10, 12, 15], [2, 3, 10, 8]]
    assert [one["area"] for one in fixed["annotations"]] == [180, 80]
    assert fixed["annotations"][0]["segmentation"] == [[20, 10, 32, 10, 32, 25]]
    assert errors(fixed) == []


def test_an_image_that_is_left_out_puts_no_other_in_doubt() -> None:
    """The new id of a kept image may be the old one of an image that was left out."""
    document = good()
    label = {"bbox": [2, 12, 4, 5], "area": 20, "iscrowd": 0, "segmentation": [], "category_id": 1}
    # The second looks swapped, and is another a.jpg; with an id that is text all are numbered anew.
    document["images"] = [
        {"id": "7", "file_name": "a.jpg", "width": 20, "height": 10},
        {"id": 2, "file_name": "a.jpg", "width": 21, "height": 10},
        {"id": 9, "file_name": "c.jpg", "width": 20, "height": 10},
    ]
    document["annotations"] = [
        {"id": 1, "image_id": 2, **label},
        {"id": 2, "image_id": 9, **label, "bbox": [15, 3, 9, 5], "area": 45},
    ]
    repairs = Repairs()
    [kept] = repair_document(document, repairs)["annotations"]
    assert (kept["image_id"], kept["bbox"]) == (2, [15, 3, 5, 5])


def test_labels_that_need_no_size_stay_on_an_image_without_one() -> None:
    document = good()
    del document["images"][0]["width"], document["images"][0]["height"]
    document["annotations"][0].update(bbox=["2", "3", "4", "5"], segmentation=[])
    before, after, fixed = read_and_repaired(document)
    assert len(before) == 3
    assert after == before
    assert errors(fixed) == ["size-missing images[0]"]


def test_a_size_is_in_doubt_for_labels_whose_image_id_is_text_too() -> None:
    document = clean_document([(1, 1, (5, 20, 20, 18))], ["none"])
    document["annotations"][0]["image_id"] = "1"
    fixed = repair_document(document, Repairs())
    assert fixed["annotations"][0]["bbox"] == [5, 20, 20, 18]


def test_the_errors_that_are_left_are_named(tmp_path: Path) -> None:
    document = clean_document([(1, 1, (5, 3, 20, 18))], ["none"])
    del document["images"][0]["width"]
    (tmp_path / "broken.json").write_text(json.dumps(document))
    outcome = grounded_seg("validate", tmp_path / "broken.json", "--fix", tmp_path / "fixed.json")
    assert outcome.exit_code == 3
    assert "left error size-missing: images[0]: it has no width" in outcome.stdout
    assert "shares" not in outcome.stdout
