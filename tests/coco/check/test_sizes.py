"""Sizes and names that the pictures prove: `validate --images` names them, and `--fix` costs no label for them."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from eval_cases import grounded_seg
from paths import CASES

from grounded_seg.coco.check.repair import repair_document
from grounded_seg.coco.check.repair_shapes import Repairs
from grounded_seg.coco.check.rules import Severity
from grounded_seg.coco.check.validate import validate_document, validate_file

needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"the inputs are not at {CASES}")
FAR = {"bbox": [120, 30, 30, 40], "segmentation": [[120, 30, 150, 30, 150, 70, 120, 70]], "area": 1200}
NEAR = {"bbox": [5, 5, 20, 20], "segmentation": [[5, 5, 25, 5, 25, 25, 5, 25]], "area": 400}
TALL = {"bbox": [30, 120, 40, 30], "segmentation": [], "area": 1200}


def swapped(*labels: dict[str, Any], names: tuple[str, ...] = ("turned.jpg",)) -> dict[str, Any]:
    """A file that gives images of 160 x 80 px as 80 x 160; each label is on the image of its index, or the first."""
    images = [{"id": n, "file_name": name, "width": 80, "height": 160} for n, name in enumerate(names, start=1)]
    annotations = [
        {"id": n, "image_id": min(n, len(names)), "category_id": 1, "iscrowd": 0, **label}
        for n, label in enumerate(labels, start=1)
    ]
    return {"images": images, "categories": [{"id": 1, "name": "ball"}], "annotations": annotations}


def picture(folder: Path, name: str = "turned.jpg", size: tuple[int, int] = (160, 80)) -> None:
    """Write an image that lies on its side in the file, as cameras do."""
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", size[::-1]).save(folder / name, exif=exif)


def errors(faults: Any) -> list[str]:
    return [f"{fault.rule} {fault.place}" for fault in faults if fault.severity is Severity.ERROR]


def labels_of(document: Any) -> list[Any]:
    return [(one["bbox"], one["segmentation"], one["area"]) for one in document["annotations"]]


@needs_cases
def test_a_swapped_size_is_called_so_and_mended(tmp_path: Path) -> None:
    picture(tmp_path)
    source, fixed = CASES / "coco" / "41_swapped_size.json", tmp_path / "fixed.json"
    outcome = grounded_seg("validate", source, "--images", tmp_path, "--fix", fixed)
    assert outcome.stdout.splitlines()[0] == (
        "error image-size-swapped: images[0]: the image is 160 x 80 px upright, not 80 x 160: width and height are "
        "swapped, as before an EXIF turn; Ultralytics 8.4.190's convert_coco places the boxes elsewhere"
    )
    assert "repaired images[0]: its size 80 x 160 became 160 x 80, as the image is upright" in outcome.stdout
    assert outcome.exit_code == 0
    before, after = json.loads(source.read_text()), json.loads(fixed.read_text())
    assert labels_of(after) == labels_of(before)
    assert (after["images"][0]["width"], after["images"][0]["height"]) == (160, 80)


@needs_cases
def test_without_the_picture_no_label_of_a_swapped_size_is_cut(tmp_path: Path) -> None:
    source, fixed = CASES / "coco" / "41_swapped_size.json", tmp_path / "fixed.json"
    outcome = grounded_seg("validate", source, "--fix", fixed)
    assert "warning size-looks-swapped: images[0]: its labels leave 80 x 160 px and fit 160 x 80" in outcome.stdout
    assert "repaired images[0]: its labels stay as they are: its size 80 x 160 looks swapped" in outcome.stdout
    assert labels_of(json.loads(fixed.read_text())) == labels_of(json.loads(source.read_text()))


@needs_cases
def test_another_size_is_named_and_costs_no_label(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (100, 100)).save(tmp_path / "a.jpg")
    source, fixed = CASES / "coco" / "19_size_wrong.json", tmp_path / "fixed.json"
    outcome = grounded_seg("validate", source, "--images", tmp_path, "--fix", fixed)
    assert outcome.stdout.startswith(
        "error image-size-wrong: images[0]: the image is 100 x 100 px upright, not 200 x 100; "
    )
    assert outcome.exit_code == 3
    assert labels_of(json.loads(fixed.read_text())) == labels_of(json.loads(source.read_text()))


def test_a_label_that_fits_both_ways_proves_nothing(tmp_path: Path) -> None:
    picture(tmp_path)
    repairs = Repairs()
    fixed = repair_document(swapped(NEAR), repairs, tmp_path)
    assert fixed["images"][0]["width"] == 80
    told = "its size 80 x 160 and its labels stay as they are, though the image is 160 x 80 px upright"
    assert repairs.lines == [f"images[0]: {told}"]


def test_what_one_image_proves_holds_for_the_file(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg", "c.jpg")
    for name in names:
        picture(tmp_path, name)
    fixed = repair_document(swapped(FAR, NEAR, names=names), Repairs(), tmp_path)
    assert [(one["width"], one["height"]) for one in fixed["images"]] == [(160, 80)] * 3
    assert errors(validate_document(fixed, tmp_path)) == []


def test_labels_of_the_unturned_image_deny_it(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")
    for name in names:
        picture(tmp_path, name)
    document = swapped(FAR, TALL, names=names)
    fixed = repair_document(document, Repairs(), tmp_path)
    assert [(one["width"], one["height"]) for one in fixed["images"]] == [(80, 160)] * 2
    assert labels_of(fixed) == labels_of(document)


def test_labels_are_held_against_the_picture_and_not_against_a_wrong_size(tmp_path: Path) -> None:
    picture(tmp_path)
    assert errors(validate_document(swapped(FAR), tmp_path)) == ["image-size-swapped images[0]"]
    assert errors(validate_document(swapped(TALL), tmp_path)) == [
        "image-size-swapped images[0]",
        "bbox-beyond-image annotations[0].bbox",
    ]


def test_a_missing_size_comes_from_the_picture(tmp_path: Path) -> None:
    picture(tmp_path)
    document = swapped(FAR)
    del document["images"][0]["width"]
    assert errors(validate_document(document, tmp_path)) == ["size-missing images[0]"]
    assert errors(validate_document(repair_document(document, Repairs(), tmp_path), tmp_path)) == []


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_form_are_found_and_told(tmp_path: Path, form: Any) -> None:
    other = "NFD" if form == "NFC" else "NFC"
    (tmp_path / unicodedata.normalize(form, "ordnér")).mkdir()
    on_disk = unicodedata.normalize(form, "ordnér/café.jpg")
    picture(tmp_path, on_disk)
    document = swapped(FAR, names=(unicodedata.normalize(other, "ordnér/café.jpg"),))
    document["images"][0].update(width=160, height=80)
    faults = [(fault.rule, fault.place) for fault in validate_document(document, tmp_path) if fault.rule != "reader"]
    assert faults == [("image-name-form", "images[0].file_name")]


@needs_cases
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_the_case_of_forms_has_no_errors_beside_its_picture(tmp_path: Path, form: Any) -> None:
    PIL.Image.new("RGB", (100, 100)).save(tmp_path / unicodedata.normalize(form, "café.jpg"))
    assert errors(validate_file(CASES / "coco" / "43_nfc_names.json", tmp_path)) == []
