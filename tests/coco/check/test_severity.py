"""What `validate` says of files as the world has them: errors only where a named reader fails, and few lines."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from eval_cases import grounded_seg
from paths import CASES, DATA
from planted_faults import good, setting

from grounded_seg.coco.check.repair import repair_file
from grounded_seg.coco.check.rules import RULES, Severity
from grounded_seg.coco.check.validate import validate_document, validate_file
from grounded_seg.errors import InputError

needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"the inputs are not at {CASES}")

FOUND: dict[str, set[str]] = {
    "01_ids_from_0": {"annotation-zero"},
    "02_no_info": set(),
    "03_no_iscrowd": {"iscrowd-missing"},
    "05_two_point_polygon": {"polygon-malformed"},
    "06_flat_odd": {"polygon-malformed"},
    "07_rle_too_long": {"rle-damaged"},
    "08_rle_empty": {"mask-empty"},
    "09_text_ids": {"id-not-an-integer"},
    "10_cat_id_0": {"category-zero"},
    "12_roboflow_root": {"id-below-one", "annotation-zero"},
    "14_seg_empty": set(),
    "15_captions": {"captions"},
    "16_zeros": {"bbox-empty", "iscrowd-odd"},
    "17_ids_restart": {"duplicate-id"},
    "18_uncompressed": set(),
    "19_size_wrong": set(),
    "20_traversal": {"file-name-not-relative"},
    "21_two_far": set(),
    "22_donut": set(),
    "23_mask_and_box": set(),
    "24_tiny": set(),
    "25_two_parts": set(),
    "41_swapped_size": {
        *("size-looks-swapped", "bbox-beyond-image", "bbox-outside", "polygon-outside", "mask-empty", "area-off"),
        "bbox-off",
    },
    "42_surrogate_classes": {"half-surrogate"},
    "43_nfc_names": set(),
    "44_bom": {"byte-order-mark"},
    "45_normalized_boxes": {"bbox-normalized"},
}
"""The rules that each case breaks, but for what single tools lose of a right file."""
NO_ERRORS = {
    *("01_ids_from_0", "02_no_info", "08_rle_empty", "12_roboflow_root", "14_seg_empty", "16_zeros", "18_uncompressed"),
    *("19_size_wrong", "21_two_far", "22_donut", "23_mask_and_box", "24_tiny", "25_two_parts", "43_nfc_names"),
    "45_normalized_boxes",
}
BEYOND_REPAIR = {"15_captions": "captions", "42_surrogate_classes": "half a character"}
IN_DOUBT = {"41_swapped_size"}
"""Without its picture, the size of this one stays in doubt."""


def case(name: str) -> Path:
    return CASES / "coco" / f"{name}.json"


def rules(faults: Any) -> set[str]:
    return {fault.rule for fault in faults if fault.rule != "reader"}


@needs_cases
def test_every_case_is_in_the_table() -> None:
    assert {path.stem for path in (CASES / "coco").glob("*.json")} == FOUND.keys()


@needs_cases
@pytest.mark.parametrize("name", FOUND)
def test_a_case_breaks_these_rules_and_no_others(name: str) -> None:
    faults = validate_file(case(name))
    assert rules(faults) == FOUND[name]
    assert any(fault.severity is Severity.ERROR for fault in faults) != (name in NO_ERRORS)
    assert grounded_seg("validate", case(name)).exit_code == (0 if name in NO_ERRORS else 3)


@needs_cases
@pytest.mark.parametrize("name", FOUND)
def test_a_case_that_can_be_repaired_passes_then(tmp_path: Path, name: str) -> None:
    fixed = tmp_path / "fixed.json"
    if name in BEYOND_REPAIR:
        with pytest.raises(InputError, match=BEYOND_REPAIR[name]):
            repair_file(case(name), fixed)
        assert not fixed.exists()
        return
    repair_file(case(name), fixed)
    left = [fault for fault in validate_file(fixed) if fault.severity is Severity.ERROR]
    assert bool(left) == (name in IN_DOUBT)
    wanted = json.loads(case(name).read_text(encoding="utf-8-sig"))["annotations"]
    n_empty = sum(one["bbox"] == [0, 0, 0, 0] for one in wanted)
    assert len(json.loads(fixed.read_text())["annotations"]) == len(wanted) - n_empty


@needs_cases
def test_ids_from_0_stay_in_place_and_are_told_with_the_reader() -> None:
    outcome = grounded_seg("validate", case("01_ids_from_0"))
    [line] = [line for line in outcome.stdout.splitlines() if "annotation-zero" in line]
    assert line == (
        "warning annotation-zero: annotations[0].id: it is 0, ids are counted from 1; pycocotools 2.0.11 counts it as "
        "not found, whatever matches it"
    )


@needs_cases
def test_a_missing_iscrowd_names_the_reader_that_stops() -> None:
    lines = grounded_seg("validate", case("03_no_iscrowd")).stdout.splitlines()
    [line] = [line for line in lines if line.startswith("error")]
    assert line == "error iscrowd-missing: annotations[0]: it has no iscrowd; pycocotools 2.0.11 stops in COCOeval"


@needs_cases
def test_captions_are_one_line() -> None:
    outcome = grounded_seg("validate", case("15_captions"))
    first, total = outcome.stdout.splitlines()
    assert first.startswith("error captions: annotations: the file holds captions, no boxes and no masks")
    assert total.endswith("1 error, 0 warnings")


@needs_cases
def test_half_characters_are_named_by_place_in_ascii() -> None:
    outcome = grounded_seg("validate", case("42_surrogate_classes"))
    named = [line for line in outcome.stdout.splitlines() if line.startswith("error half-surrogate")]
    assert [line.split(": ")[1] for line in named] == ["categories[0].name", "categories[1].name"]
    assert outcome.stdout.isascii()
    fix = grounded_seg("validate", case("42_surrogate_classes"), "--fix", "unused.json")
    assert fix.exit_code == 3
    assert "categories[0].name" in fix.stderr


def test_strict_lets_warnings_count(tmp_path: Path) -> None:
    document = good()
    setting("annotations", 0, id=0)(document)
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    assert grounded_seg("validate", path).exit_code == 0
    assert grounded_seg("validate", path, "--strict").exit_code == 3


def test_strict_passes_a_file_without_a_warning(tmp_path: Path) -> None:
    document = good()
    document["annotations"] = document["annotations"][:1]
    document["annotations"][0].update(bbox=[2, 3, 4, 5], segmentation=[[2, 3, 6, 3, 6, 8, 2, 8]])
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    # What supervision makes of polygons is a warning too.
    lines = grounded_seg("validate", path, "--strict").stdout.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == ["warning reader"]
    document["annotations"] = []
    path.write_text(json.dumps(document))
    assert grounded_seg("validate", path, "--strict").exit_code == 0


def test_a_thousand_equal_findings_are_five_lines(tmp_path: Path) -> None:
    document = good()
    one = {**document["annotations"][2]}
    del one["iscrowd"]
    document["annotations"] = [{**one, "id": number, "bbox": [number / 100, 3, 4, 5]} for number in range(1, 1001)]
    path = tmp_path / "file.json"
    path.write_text(json.dumps(document))
    outcome = grounded_seg("validate", path, "--fix", tmp_path / "fixed.json")
    for kind in ("error iscrowd-missing", "repaired annotations"):
        lines = [line for line in outcome.stdout.splitlines() if line.startswith(kind)]
        assert len(lines) == 5, outcome.stdout
        assert lines[-1].endswith("(and 995 more like it)")
    assert outcome.stdout.splitlines()[-1].endswith("1000 repairs, 0 errors left")


@pytest.mark.parametrize(
    ("bbox", "told"),
    [
        ([2, 3, "4", "5"], "the third and fourth are text"),
        (["2", "3", "4", "5"], "all 4 are text"),
        ([2, None, 4, 5], "the second is null"),
        ([True, 3, [4], 5], "the first is true, the third is a list"),
        ([2, 3, 4], "it has 3 numbers"),
        ([2, 3, 4, 10**400], "the fourth is too large a number"),
        (None, "it is null, no list"),
        ({"x": 2}, "it is an object, no list"),
    ],
)
def test_a_malformed_box_says_what_is_malformed(bbox: Any, told: str) -> None:
    document = good()
    document["annotations"][2]["bbox"] = bbox
    [fault] = [fault for fault in validate_document(document) if fault.rule == "bbox-malformed"]
    assert fault.message == f"{told}; it must be x, y, width, height in pixels"


@pytest.mark.parametrize(
    ("segmentation", "told"),
    [
        ([[2, 3, 6, 3, 6]], "it has 5 numbers; a polygon has three or more pairs of x and y"),
        ([[2, 3, 6, 3, "6", 8]], "the 5th is text; a polygon has three or more pairs of x and y"),
        ([2, 3, 6, 3, 6, 8], "it is a list of numbers; it must be a list of polygons: [[x, y, x, y, ...]]"),
    ],
)
def test_a_malformed_polygon_says_what_is_malformed(segmentation: Any, told: str) -> None:
    document = good()
    document["annotations"][0]["segmentation"] = segmentation
    assert [fault.message for fault in validate_document(document) if fault.rule == "polygon-malformed"] == [told]


@pytest.mark.parametrize("key", ["image_id", "category_id"])
def test_a_missing_key_is_named(key: str) -> None:
    document = good()
    del document["annotations"][1][key]
    found = [(fault.rule, fault.place, fault.message) for fault in validate_document(document)]
    assert ("key-missing", "annotations[1]", f"it has no {key}") in found


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_text_with_a_mark_is_read_told_and_repaired(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(json.dumps(good(), ensure_ascii=False), encoding=encoding)
    rule = "not-utf8" if encoding == "utf-16" else "byte-order-mark"
    assert [fault.rule for fault in validate_file(path) if fault.severity is Severity.ERROR] == [rule]
    repair_file(path, tmp_path / "fixed.json")
    fixed = json.loads((tmp_path / "fixed.json").read_text())
    assert [one["name"] for one in fixed["categories"]] == ["car", "Vögel"]


def test_utf16_without_its_mark_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(json.dumps(good()).encode("utf-16-le"))
    [fault] = validate_file(path)
    assert fault.rule == "not-utf8"
    assert fault.message == "looks like UTF-16 without a byte order mark; save the file as UTF-8"


def test_every_error_names_a_reader_with_its_version() -> None:
    for name, rule in RULES.items():
        if rule.severity is Severity.ERROR:
            assert re.search(r"\d+\.\d+", rule.reader), name


def test_the_docs_have_the_table_of_the_rules() -> None:
    page = (DATA.parents[1] / "docs" / "validate.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.*) \|$", page, re.MULTILINE))
    assert rows.keys() == RULES.keys()
    for name, rule in RULES.items():
        severity, _, because = rows[name].split(" | ")
        assert (severity, because) == (rule.severity.value, rule.because or "-"), name


def test_a_file_without_its_pictures_is_not_looked_for_outside(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    PIL.Image.new("RGB", (20, 10)).save(tmp_path / "x.jpg")
    document = good()
    document["images"][0]["file_name"] = "../x.jpg"
    found = [(fault.rule, fault.place) for fault in validate_document(document, tmp_path / "images")]
    assert ("file-name-not-relative", "images[0].file_name") in found
    assert not any(place.startswith("images[0]") and rule.startswith("image-") for rule, place in found)


@needs_cases
def test_the_case_files_are_never_written(tmp_path: Path) -> None:
    copied = shutil.copy(case("44_bom"), tmp_path / "copy.json")
    before = Path(copied).read_bytes()
    grounded_seg("validate", copied, "--fix", tmp_path / "fixed.json")
    assert Path(copied).read_bytes() == before
