"""Each of the files that people's tools write and other tools stumble over, in every command that reads COCO.

`../shared/cases/README.md` says what each has to give; the pictures that they name are made here.
"""

import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from coco_cases import written
from eval_cases import grounded_seg
from fakes import ColourDetector
from labels_read import found_in
from paths import CASES
from tiny_florence import save_tiny_florence

from grounded_seg.export.settings import MASK_FORMS, LabelFormat, MaskForm

pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are beside the checkout, not in it")

COCO = CASES / "coco"
SQUARE = (10.0, 10.0, 30.0, 30.0)
SECOND = (50.0, 50.0, 70.0, 70.0)
LOST = "masks that can't be read were left out, and their boxes kept (once, first in annotations[0].segmentation: "
COUNTS = "run lengths written as lists of counts were read"
NO_INFO = "there is no info, which some readers need"


@dataclass(frozen=True)
class Case:
    """What a file that can be read gives."""

    boxes: tuple[tuple[str, tuple[float, ...]], ...] = (("car", SQUARE),)
    """Class and edges of each object."""
    n_masks: int = 1
    notes: tuple[str, ...] = ()
    """Told by `eval`, `train` and `export`."""
    pictures: Mapping[str, tuple[int, int]] = field(default_factory=lambda: {"a.jpg": (100, 100)})


TWO = (("car", SQUARE), ("car", SECOND))
READ = {
    "01_ids_from_0": Case(
        (("car", (5, 5, 25, 25)), ("car", (40, 40, 60, 60)), ("car", (70, 70, 90, 90))),
        3,
        ("ids of annotations are below 1 (once, first in annotations[0])",),
    ),
    "02_no_info": Case(notes=(NO_INFO,)),
    "03_no_iscrowd": Case(notes=("objects without iscrowd were taken as single ones (once, first in annotations[0])",)),
    "05_two_point_polygon": Case(TWO, 1, (f"{LOST}polygon [10, 10, 30, 30] has fewer than three corners)",)),
    "06_flat_odd": Case(n_masks=0, notes=(f"{LOST}polygon [10, 10, 30, 10, 30] isn't x, y, x, y, ...)",)),
    "07_rle_too_long": Case(n_masks=0, notes=(f"{LOST}a run-length mask of 100 x 100 px holds 20000 px in its runs)",)),
    "08_rle_empty": Case(
        n_masks=0, notes=("masks without a pixel were left out, and their boxes kept (once, first in annotations[0]",)
    ),
    "09_text_ids": Case(
        notes=("ids of images are text", "ids of categories are text", "ids of annotations are text (once, first in an")
    ),
    "10_cat_id_0": Case((("car", SQUARE), ("ball", SECOND)), 2, ("ids of categories are below 1",)),
    "12_roboflow_root": Case(
        notes=(
            "ids of images are below 1",
            "ids of annotations are below 1",
            "'vehicles' is only the parent of the other classes, without objects, and was left out",
        )
    ),
    "14_seg_empty": Case(TWO, 0),
    "16_zeros": Case(
        notes=(
            "objects with a box of no width and no height were left out (once, first in annotations[0])",
            "iscrowd written as true or false was read as 1 or 0 (2 times, first in annotations[0])",
        )
    ),
    "17_ids_restart": Case(
        (("car", SQUARE), ("car", SQUARE)),
        2,
        ("ids of annotations are there more than once, which are only names (once, first in annotations[1])",),
        {"a.jpg": (100, 100), "b.jpg": (100, 100)},
    ),
    "18_uncompressed": Case(notes=(COUNTS,)),
    "21_two_far": Case((("car", (10, 10, 140, 110)),), pictures={"a.jpg": (200, 150)}),
    "22_donut": Case((("car", (20, 20, 80, 80)),), notes=(COUNTS,)),
    "23_mask_and_box": Case(TWO, 1),
    "24_tiny": Case((("car", (10, 10, 11, 11)), ("car", (50, 50, 52, 51))), 2, (f"{COUNTS} (2 times",)),
    "25_two_parts": Case((("car", (10, 10, 80, 80)),), notes=(COUNTS,)),
    "43_nfc_names": Case((("pêche", SQUARE),), pictures={"café.jpg": (100, 100)}, notes=(NO_INFO,)),
    "44_bom": Case((("peche", SQUARE),), pictures={"cafe.jpg": (100, 100)}, notes=(NO_INFO,)),
    "45_normalized_boxes": Case(
        (("ball", (0.1, 0.1, 0.3, 0.3)),),
        0,
        (NO_INFO, "all boxes end within the first pixel: they look like normalized"),
    ),
}
REFUSED = {
    "15_captions": ("holds captions, no boxes; name a file of objects with their boxes", {"a.jpg": (100, 100)}),
    "20_traversal": ("file_name '../../x.jpg' leaves the folder of the images", {"a.jpg": (100, 100)}),
    "42_surrogate_classes": (
        "categories[0]: name 'a\\ud83d' holds half a character",
        {"a.jpg": (100, 100)},
    ),
}
WITH_PICTURES = {
    "19_size_wrong": (
        "images[0]: the image 'a.jpg' is 200 x 100 px there, but upright it is 100 x 100 px;",
        {"a.jpg": (100, 100)},
    ),
    "41_swapped_size": (
        "images[0]: the image 'turned.jpg' is 80 x 160 px there, but upright it is 160 x 80 px: width and height are "
        "swapped;",
        {"turned.jpg": (160, 80)},
    ),
}


def test_every_case_is_here() -> None:
    assert {path.stem for path in COCO.iterdir()} == READ.keys() | REFUSED.keys() | WITH_PICTURES.keys()


def laid(folder: Path, name: str, pictures: Mapping[str, tuple[int, int]]) -> Path:
    """A case with its pictures beside it."""
    folder.mkdir(parents=True)
    for picture, size in pictures.items():
        PIL.Image.new("RGB", size, "gray").save(folder / picture)
    path = folder / "_annotations.coco.json"
    path.write_bytes((COCO / f"{name}.json").read_bytes())
    return path


def document_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8-sig"))


def report_of(folder: Path, truth: Path, predictions: Path) -> dict[str, Any]:
    outcome = grounded_seg("eval", truth, "--predictions", predictions, "--json", folder / "report.json")
    assert outcome.exit_code == 0, outcome.output
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return report


@pytest.mark.parametrize("name", READ)
def test_truth_as_predictions_is_perfect(tmp_path: Path, name: str) -> None:
    case = READ[name]
    truth = laid(tmp_path / "data", name, case.pictures)
    document = document_of(truth)
    for one in document["annotations"]:
        one["score"] = 1.0
    as_list = [one | {"image_id": one["image_id"]} for one in document["annotations"]]
    for predictions in (document, as_list):
        report = report_of(tmp_path, truth, written(tmp_path / "found.json", predictions))
        assert report["boxes"]["AP"] == pytest.approx(1.0, abs=1e-12)
        assert report.get("masks", {}).get("AP") == (pytest.approx(1.0, abs=1e-12) if case.n_masks else None)
        assert [note for note in case.notes if not any(line.startswith(note) for line in report["notes"])] == []


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


@pytest.mark.parametrize("name", READ)
def test_a_dry_run_of_train_reads_the_boxes(base: Path, tmp_path: Path, name: str) -> None:
    case = READ[name]
    for split in ("train", "valid", "test"):
        laid(tmp_path / "data" / split, name, case.pictures)
    outcome = grounded_seg(
        *("train", tmp_path / "data", "-o", tmp_path / "out", "--detector", base, "--device", "cpu", "--dry-run"),
        *("--batch-size", 1),
    )
    assert outcome.exit_code == 0, outcome.output
    counts = {name: 0 for name, _ in case.boxes}
    for label, _ in case.boxes:
        counts[label] += 1
    listed = ", ".join(f"{label} {n}" for label, n in counts.items())
    n = len(case.pictures)
    shown = f"{n} {'image' if n == 1 else 'images'} (0 without objects), 0 texts, boxes: {listed}\n"
    assert f"\ntrain: {shown}" in f"\n{outcome.stdout}"
    assert [note for note in case.notes if note not in outcome.output] == []


@pytest.mark.parametrize("kind", LabelFormat)
@pytest.mark.parametrize("name", READ)
def test_every_format_has_the_labels(tmp_path: Path, name: str, kind: LabelFormat) -> None:
    case = READ[name]
    truth = laid(tmp_path / "data", name, case.pictures)
    for form in MASK_FORMS[kind]:
        output = tmp_path / f"{kind}-{form}"
        outcome = grounded_seg(
            *("export", truth, "--to", kind, "--seg", form, "-o", output),
            *("--images", truth.parent, "--copy-images"),
        )
        assert outcome.exit_code == 0, outcome.output
        assert [note for note in case.notes if f"note: {note}" not in outcome.stderr] == []
        found = found_in(output, kind, form)
        n_masks = 0 if form is MaskForm.NONE else case.n_masks
        if kind is LabelFormat.MASKS:
            assert found.n_masks == n_masks
            assert f"masks: {len(case.boxes) - n_masks} boxes without" in outcome.stdout or len(case.boxes) == n_masks
            continue
        if "1 masks in several regions, one for each part" in outcome.stdout:
            assert found.n_masks == 2
            continue
        assert found.classes == list(dict.fromkeys(label for label, _ in case.boxes))
        assert [label for label, _ in found.boxes] == [label for label, _ in case.boxes]
        for (_, box), (_, expected) in zip(found.boxes, case.boxes, strict=True):
            assert box == pytest.approx(expected, abs=1.0)
        if kind is not LabelFormat.YOLO:
            assert found.n_masks == n_masks


def test_one_object_of_several_parts_stays_one_object(tmp_path: Path) -> None:
    for name in ("21_two_far", "25_two_parts"):
        truth = laid(tmp_path / name, name, READ[name].pictures)
        outcome = grounded_seg("export", truth, "--to", "yolo", "-o", tmp_path / f"{name}-yolo")
        assert "yolo: 1 masks whose parts are joined by lines a pixel wide" in outcome.stdout
        assert len((tmp_path / f"{name}-yolo" / "labels/train/a.txt").read_text().splitlines()) == 1


def test_yolo_of_masks_and_boxes_has_rows_of_one_kind(tmp_path: Path) -> None:
    truth = laid(tmp_path / "data", "23_mask_and_box", {"a.jpg": (100, 100)})
    outcome = grounded_seg("export", truth, "--to", "yolo", "-o", tmp_path / "out")
    assert "yolo: 1 boxes written as outlines" in outcome.stdout
    rows = (tmp_path / "out" / "labels/train/a.txt").read_text().splitlines()
    assert [len(row.split()) for row in rows] == [9, 9]


@pytest.mark.parametrize(
    ("name", "section"),
    [("01_ids_from_0", "annotations"), ("10_cat_id_0", "categories"), ("12_roboflow_root", "images")],
)
def test_ids_count_from_1_where_the_format_has_ids(tmp_path: Path, name: str, section: str) -> None:
    truth = laid(tmp_path / "data", name, READ[name].pictures)
    for kind in LabelFormat:
        outcome = grounded_seg("export", truth, "--to", kind, "-o", tmp_path / kind)
        has_ids = kind in (LabelFormat.COCO, LabelFormat.CVAT, LabelFormat.FIFTYONE)
        assert (f"{section} numbered from 1\n" in outcome.stdout) == has_ids
        if has_ids:
            document = document_of(tmp_path / kind / "annotations.json")
            assert [one["id"] for one in document[section]] == list(range(1, len(document[section]) + 1))


@pytest.mark.parametrize("name", [*REFUSED, *WITH_PICTURES])
def test_what_cannot_be_read_is_refused_by_every_command(
    detector: ColourDetector, base: Path, tmp_path: Path, name: str
) -> None:
    says, pictures = (REFUSED | WITH_PICTURES)[name]
    PIL.Image.new("RGB", (100, 100)).save(tmp_path / "x.jpg")
    truth = laid(tmp_path / "data" / "train", name, pictures)
    images = truth.parent
    out = tmp_path / "out"
    commands = [
        ("eval", truth, "--images", images, "-o", out),
        ("train", truth, "-o", out, "--detector", base, "--device", "cpu", "--dry-run"),
        ("export", truth, "--to", "yolo", "-o", out, "--images", images),
        ("export", truth, "--to", "coco", "-o", out, "--images", images, "--copy-images"),
    ]
    if name in REFUSED:
        commands += [("export", truth, "--to", kind, "-o", out) for kind in LabelFormat]
        commands.append(("eval", truth, "--predictions", written(tmp_path / "found.json", [])))
    for words in commands:
        outcome = grounded_seg(*words)
        assert outcome.exit_code == 3, (words, outcome.output)
        [line] = outcome.stderr.splitlines()
        told = says.replace("images[0]: ", "") if words[0] == "train" and name in WITH_PICTURES else says
        assert told in line
        assert str(truth) in line
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "found.json") == ["data", "x.jpg"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_another_form_of_their_letters_are_found_and_told(
    detector: ColourDetector, base: Path, tmp_path: Path, form: Any
) -> None:
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    folders = {split: tmp_path / "data" / split for split in ("train", "valid", "test")}
    for folder in folders.values():
        truth = laid(folder, "43_nfc_names", {unicodedata.normalize(other, "café.jpg"): (100, 100)})
        text = unicodedata.normalize(form, (COCO / "43_nfc_names.json").read_text(encoding="utf-8"))
        truth.write_text(text, encoding="utf-8")
    note = "images were found by names whose letters are encoded in another form (NFC, NFD) (once, first in 'caf"
    of_classes = note.replace("images", "classes").replace("caf", "p")
    asked = grounded_seg("eval", truth, "--images", truth.parent, "-o", tmp_path / "asked")
    out = tmp_path / "out"
    words = ("train", tmp_path / "data", "-o", out, "--detector", base, "--device", "cpu", "--dry-run")
    dry = grounded_seg(*words, "--batch-size", 1)
    wanted = unicodedata.normalize(other, "pêche")
    exported = grounded_seg(
        *(
            "export",
            truth,
            "--to",
            "yolo",
            "--images",
            truth.parent,
            "--copy-images",
            "-o",
            tmp_path / "yolo",
            "--classes",
            wanted,
        )
    )
    for outcome in (asked, dry, exported):
        assert outcome.exit_code == 0, outcome.output
        assert note in outcome.output
    assert of_classes in exported.stderr
    assert len(list((tmp_path / "yolo" / "images" / "train").iterdir())) == 1
    document = json.loads(unicodedata.normalize(other, truth.read_text(encoding="utf-8")))
    for one in document["annotations"]:
        one["score"] = 1.0
    report = report_of(tmp_path, truth, written(tmp_path / "found.json", document))
    assert report["boxes"]["AP"] == pytest.approx(1.0)
    assert [any(line.startswith(told) for line in report["notes"]) for told in (note, of_classes)] == [True, True]
