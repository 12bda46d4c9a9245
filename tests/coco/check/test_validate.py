"""Broken COCO files as the world writes them: each fault is found by name and place, and a repaired copy passes."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from eval_cases import fill_the_disk, grounded_seg
from hypothesis import given
from hypothesis import strategies as st
from paths import DATA, PHOTOS, unpacked
from planted_faults import FAULTS, RLE, categories_from_zero, good

from grounded_seg.coco.check.repair import repair_document, repair_file
from grounded_seg.coco.check.repair_shapes import Repairs
from grounded_seg.coco.check.rules import RULES, Severity
from grounded_seg.coco.check.validate import validate_document, validate_file
from grounded_seg.errors import InputError, OutputError, UsageError

BROKEN = DATA / "broken_coco"

TEXT_FAULTS = [
    ("byte_order_mark.json", "byte-order-mark", "line 1, column 1"),
    ("comma_after_last.json", "not-json", "line 4"),
    ("two_documents.json", "trailing-data", "line 44"),
    ("nan.json", "not-a-number", "annotations[0].area"),
    ("latin1.json", "not-utf8", "line 13"),
    ("double_key.json", "duplicate-key", "annotations[0]"),
    ("python_dict.json", "not-json", "line 1, column 2"),
]


def errors(faults: Any) -> list[str]:
    return [f"{fault.rule} {fault.place}" for fault in faults if fault.severity is Severity.ERROR]


def test_a_right_file_has_no_errors() -> None:
    assert errors(validate_document(good())) == []


def test_there_are_at_least_25_rules_in_the_table() -> None:
    assert len({rule for rule, *_ in FAULTS} | {rule for _, rule, _ in TEXT_FAULTS}) >= 25


@pytest.mark.parametrize(("rule", "place", "plant"), FAULTS, ids=[f"{rule} {place}" for rule, place, _ in FAULTS])
def test_a_planted_fault_is_found_and_repaired(
    tmp_path: Path, rule: str, place: str, plant: Callable[[Any], None]
) -> None:
    document = good()
    plant(document)
    planted = copy.deepcopy(document)
    validate_document(document)
    assert document == planted, "validating changed the document"
    broken, fixed = tmp_path / "broken.json", tmp_path / "fixed.json"
    broken.write_text(json.dumps(document))
    assert (rule, place.partition(".size")[0]) in {
        (fault.rule, fault.place.removesuffix(".size")) for fault in validate_file(broken)
    }
    if rule in ("half-surrogate", "captions"):
        with pytest.raises(InputError, match="can't be repaired"):
            repair_file(broken, fixed)
        return
    repairs = repair_file(broken, fixed)
    assert errors(validate_file(fixed)) == []
    assert repairs or RULES[rule].severity is Severity.WARNING


@pytest.mark.parametrize(("name", "rule", "place"), TEXT_FAULTS, ids=[name for name, *_ in TEXT_FAULTS])
def test_a_fault_of_the_text_is_found_and_repaired(tmp_path: Path, name: str, rule: str, place: str) -> None:
    # Releases of Python differ in where they see a comma too many.
    assert any(fault.rule == rule and fault.place.startswith(place) for fault in validate_file(BROKEN / name))
    assert repair_file(BROKEN / name, tmp_path / "fixed.json")
    assert errors(validate_file(tmp_path / "fixed.json")) == []
    assert len(json.loads((tmp_path / "fixed.json").read_text())["annotations"]) == 1


ODD_VALUES: list[Any] = [
    *(None, True, -1, 0, 2, 1.5, 1e300, math.inf, 10**30, "", "2", "x", "..", "[1, 2, 3, 4]", {}, [], [[]], [None]),
    *([1, 2, 3, 4], [1e300, 2, 3, 4], [[2, 3, 6, 3, 6]], [[0, 0, 1e30, 0, 6, 8]], [[[2, 3]]]),
    *({"size": [10, 20]}, {"size": [10, 20], "counts": [-1, 201]}, {"size": [10**9, 10**9], "counts": [10**18]}),
]


@given(st.sampled_from(["images", "categories", "annotations"]), st.integers(0, 1), st.data())
def test_no_odd_value_stops_the_check_or_is_left_in_the_copy(section: str, place: int, data: st.DataObject) -> None:
    document = good()
    key = data.draw(st.sampled_from(sorted(document[section][place])))
    document[section][place][key] = data.draw(st.sampled_from(ODD_VALUES))
    validate_document(document)
    assert errors(validate_document(repair_document(document, Repairs()))) == []


def test_what_is_cut_off_is_found_but_not_repaired(tmp_path: Path) -> None:
    assert [fault.rule for fault in validate_file(BROKEN / "cut_off.json")] == ["not-json"]
    with pytest.raises(InputError, match="cut off or no JSON"):
        repair_file(BROKEN / "cut_off.json", tmp_path / "fixed.json")
    assert not (tmp_path / "fixed.json").exists()


def test_a_copy_that_can_not_be_written_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(good()))
    with pytest.raises(UsageError, match="would replace"):
        repair_file(path, tmp_path / "." / "file.json")
    with pytest.raises(OutputError, match=r"fixed.json can't be written \(No such file or directory\)"):
        repair_file(path, tmp_path / "missing" / "fixed.json")
    assert json.loads(path.read_text()) == good()


def test_a_full_disk_leaves_the_older_copy_and_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, copy_ = tmp_path / "file.json", tmp_path / "fixed.json"
    path.write_text(json.dumps(good()))
    copy_.write_text("old")
    fill_the_disk(monkeypatch)
    outcome = grounded_seg("validate", path, "--fix", copy_)
    assert outcome.exit_code == 1
    [line] = outcome.stderr.splitlines()
    assert line.startswith(f"error: {copy_} can't be written (No space left on device)")
    assert line.endswith("name another file with --fix")
    assert copy_.read_text() == "old"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["file.json", "fixed.json"]


def test_a_list_of_results_is_named(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text("[]")
    assert [fault.rule for fault in validate_file(results)] == ["wrong-top-level"]
    with pytest.raises(InputError, match="a list"):
        repair_file(results, tmp_path / "fixed.json")


def test_duplicates_and_readers_are_warnings() -> None:
    document = good()
    document["annotations"].append({**document["annotations"][0], "id": 4})
    faults = validate_document(document)
    assert errors(faults) == []
    assert ("duplicate-annotation", "annotations[3]") in {(fault.rule, fault.place) for fault in faults}
    readers = [fault.message for fault in faults if fault.rule == "reader"]
    assert any(line.startswith("X-AnyLabeling 4.2.1: 1 run-length masks become outlines") for line in readers)
    assert any(line.startswith("supervision 0.31.2: 2 polygon masks") for line in readers)


def test_class_numbers_with_gaps_are_told_of_ultralytics() -> None:
    document = good()
    document["categories"][1]["id"] = document["annotations"][1]["category_id"] = 3
    told = [fault for fault in validate_document(document) if "beyond the number of classes" in fault.message]
    assert [(fault.place, fault.message.partition(";")[0]) for fault in told] == [
        (
            "annotations[1]",
            "Ultralytics 8.4.190's convert_coco: 1 objects have a category_id beyond the number of classes",
        )
    ]


def test_what_fiftyone_stops_at_or_cuts_off_is_told() -> None:
    document = good()
    document["annotations"][1].update(attributes={"label": "Auto"}, bbox=[2.6, 3, 3.4, 5])
    document["annotations"][2]["label"] = "car"
    document["annotations"][0]["bbox"] = [2, 3, 3.4, 5]
    told = [fault for fault in validate_document(document) if fault.message.startswith("FiftyOne")]
    stops, cut = (fault for fault in told if "--to fiftyone" in fault.message)
    assert (stops.place, stops.message.partition(";")[0]) == (
        "annotations[1]",
        "FiftyOne 1.22.1: 2 annotations stop its import by an attribute such as label",
    )
    assert (cut.place, cut.message.partition(";")[0]) == (
        "annotations[0]",
        "FiftyOne 1.22.1: 2 masks are cut off at their box",
    )
    assert not any("--to fiftyone" in fault.message for fault in validate_document(good()))


def test_images_are_looked_at(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (10, 20)).save(tmp_path / "a.jpg", exif=orientation(6))
    (tmp_path / "sub").mkdir()
    PIL.Image.new("RGB", (21, 10)).save(tmp_path / "sub" / "b.jpg")
    assert errors(validate_document(good(), tmp_path)) == ["image-size-wrong images[1]"]
    (tmp_path / "a.jpg").unlink()
    assert "image-file-missing images[0].file_name" in errors(validate_document(good(), tmp_path))


def orientation(value: int) -> PIL.Image.Exif:
    exif = PIL.Image.Exif()
    exif[0x0112] = value
    return exif


def test_references_follow_their_images_and_classes(tmp_path: Path) -> None:
    document = good()
    categories_from_zero(document)
    document["categories"].append({"id": 7, "name": "car"})
    document["annotations"][2]["category_id"] = 7
    (tmp_path / "broken.json").write_text(json.dumps(document))
    repairs = repair_file(tmp_path / "broken.json", tmp_path / "fixed.json")
    fixed = json.loads((tmp_path / "fixed.json").read_text())
    assert fixed["categories"] == [{"id": 1, "name": "car"}, {"id": 2, "name": "Vögel"}]
    assert [annotation["category_id"] for annotation in fixed["annotations"]] == [1, 2, 1]
    assert "categories[2]: merged with the earlier 'car'" in repairs


def repaired(document: Any) -> tuple[Any, list[str]]:
    repairs = Repairs()
    fixed = repair_document(document, repairs)
    assert errors(validate_document(fixed)) == []
    return fixed, repairs.lines


def test_records_of_one_image_are_made_one() -> None:
    document = good()
    document["images"][1]["file_name"] = "a.jpg"
    fixed, repairs = repaired(document)
    assert [image["id"] for image in fixed["images"]] == [1]
    assert [one["image_id"] for one in fixed["annotations"]] == [1, 1, 1]
    assert "images[1]: merged with the earlier 'a.jpg'" in repairs


@pytest.mark.parametrize("change", [{"file_name": "a.jpg", "width": 40, "height": 30}, {"file_name": "../a.jpg"}])
def test_another_image_of_the_same_name_is_left_out_with_its_annotations(change: dict[str, Any]) -> None:
    document = good()
    document["annotations"][1]["segmentation"] = []
    document["images"][1].update(change)
    document["images"].append({"id": 2, "file_name": "c.jpg", "width": 20, "height": 10})
    fixed, repairs = repaired(document)
    assert [(image["id"], image["file_name"], image["width"]) for image in fixed["images"]] == [
        (1, "a.jpg", 20),
        (3, "c.jpg", 20),
    ]
    assert [(one["id"], one["image_id"]) for one in fixed["annotations"]] == [(1, 1)]
    assert "images[1]: left out with its annotations; images[0] is another 'a.jpg'" in repairs
    assert "images[2]: id 2 became 3, the annotations of 2 stay with images[1]" in repairs
    assert "annotations[1]: left out, its image_id 2 is none of those kept" in repairs
    assert "annotations[2]: left out, its image_id 2 is none of those kept" in repairs


def test_another_image_of_the_same_name_and_id_takes_no_annotation_along() -> None:
    document = good()
    document["images"].append({"id": 1, "file_name": "a.jpg", "width": 40, "height": 30})
    fixed, repairs = repaired(document)
    assert len(fixed["annotations"]) == 3
    assert repairs == ["images[2]: left out and the annotations of 1 stay with images[0]; images[0] is another 'a.jpg'"]


def test_polygons_that_are_dropped_are_counted() -> None:
    document = good()
    square = [2, 3, 6, 3, 6, 8, 2, 8]
    document["annotations"][0]["segmentation"] = [square, [2, 3, 6, 3], [30, 3, 36, 3, 36, 8]]
    fixed, repairs = repaired(document)
    assert fixed["annotations"][0]["segmentation"] == [square]
    dropped = "annotations[0].segmentation: 2 of 3 polygons dropped, damaged or outside the image"
    assert repairs == [dropped]
    document["annotations"][0]["segmentation"] = [[2, -3, 6, -3, *square[4:]], [2, 3, 6, 3], [30, 3, 36, 3, 36, 8]]
    assert f"{dropped}; the others corrected" in repaired(document)[1]


def test_corners_outside_the_image_are_moved() -> None:
    document = good()
    document["annotations"][0]["segmentation"] = [[-3, 3, 6, 3, 6, 8, -3, 8]]
    fixed, repairs = repaired(document)
    assert fixed["annotations"][0]["segmentation"] == [[0, 3, 6, 3, 6, 8, 0, 8]]
    assert "annotations[0].segmentation: corrected" in repairs


def test_swapped_sides_of_a_mask_are_turned_back(tmp_path: Path) -> None:
    document = good()
    document["annotations"][1]["segmentation"] = {**RLE, "size": [20, 10]}
    (tmp_path / "broken.json").write_text(json.dumps(document))
    repair_file(tmp_path / "broken.json", tmp_path / "fixed.json")
    assert json.loads((tmp_path / "fixed.json").read_text())["annotations"][1]["segmentation"] == RLE


def test_annotations_of_photographs_have_no_errors() -> None:
    assert errors(validate_file(unpacked("photos/instances.json"))) == []


@pytest.mark.skipif(not PHOTOS.exists(), reason="the photographs themselves are no part of the repository")
def test_photographs_are_as_their_annotations_say() -> None:
    assert errors(validate_file(PHOTOS / "instances.json", PHOTOS / "images")) == []
