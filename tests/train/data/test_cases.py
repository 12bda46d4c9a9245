"""The inputs of `../shared/cases` for `train`: each gives what its README asks."""

import json
import shutil
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from click.testing import CliRunner, Result
from paths import CASES
from tiny_florence import save_tiny_florence
from train_cases import read_data

from grounded_seg.cli import main
from grounded_seg.errors import InputError
from grounded_seg.train.data.records import BoxExample, TrainingData

pytestmark = pytest.mark.skipif(not CASES.exists(), reason=f"the inputs are not at {CASES}")

SHAPES = ("car", "ball", "box", "tree", "star", "house")
N_BOXES = 25
"""Rows in the label files of a case in which none is wrong."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


def dry_run(base: Path | str, dataset: Path, output: Path) -> Result:
    detector = ["--preset", base] if base == "demo" else ["--detector", base]
    words = ["train", dataset, "-o", output / "run", "--dry-run", "--device", "cpu", *detector]
    return CliRunner().invoke(main, [str(word) for word in words])


def boxes(data: TrainingData) -> dict[str, Any]:
    rows = [row for part in data.splits.values() for row in part.examples if isinstance(row, BoxExample)]
    return {row.image.name: {(box.label, box.box_xyxy) for box in row.boxes} for row in rows}


@pytest.mark.parametrize(
    ("case", "classes", "note"),
    [
        ("29-bool", ("no", "on"), None),
        ("29-num", ("1_000", "2024-01-01"), None),
        ("29-null", ("~", "0x10"), None),
        ("30-pose2", SHAPES, "keypoints were left out, and their rows read by the box (25 times"),
        ("31-list", SHAPES, None),
        ("32-beside", SHAPES, "labels were found beside their images (6 times"),
        ("34-up", SHAPES, "../ at the start of a path was left out, as Roboflow means it (2 times"),
        ("sus-notes", SHAPES, None),
    ],
)
def test_yolo(base: Path, tmp_path: Path, case: str, classes: tuple[str, ...], note: str | None) -> None:
    data = read_data(CASES / "yolo" / case, (80, 10, 10), strict=True)
    assert data.classes == classes
    assert sum(map(len, boxes(data).values())) == N_BOXES
    if classes == SHAPES:
        # By hand: 0.175 x 0.068750 of 120 x 180 px; the pose case has the same boxes before its points.
        assert boxes(data)["09004.png"] == {("house", (17.0, 117.0, 25.25, 127.5))}
        assert boxes(data) == boxes(read_data(CASES / "yolo" / "sus-notes", (80, 10, 10)))
    looked = dry_run(base, CASES / "yolo" / case, tmp_path)
    assert looked.exit_code == 0, looked.output
    assert "left out:" not in looked.stdout
    assert [note for note in data.notes if note not in looked.stdout] == []
    assert (note is None) == (data.notes == ())
    assert note is None or note in data.notes[0]
    shown = dict(
        part.rsplit(" ", 1)
        for line in looked.stdout.splitlines()
        if ", boxes: " in line
        for part in line.partition(", boxes: ")[2].split(", ")
    )
    assert shown.keys() == set(classes)


def test_each_wrong_row_is_named(base: Path, tmp_path: Path) -> None:
    case = CASES / "yolo" / "33-out"
    told = {
        "09000.txt:1": "1.02 is no normalized coordinate",
        "09001.txt:1": "320 is no normalized coordinate",
        "09002.txt:1": "3 numbers follow the class",
        "09003.txt:1": "write spaces instead of commas",
    }
    # Two good images are too few for three splits.
    refused = dry_run(base, case, tmp_path)
    assert refused.exit_code == 3
    *lines, last = refused.stderr.splitlines()
    assert last == f"error: {case} has 2 usable images, too few for 3 splits; add some, or give splits"
    for line, (place, what) in zip(lines, told.items(), strict=True):
        assert line.startswith(f"warning: left out: {case}/labels/train/{place}: ")
        assert what in line
    # With splits of its own they are used.
    shutil.copytree(case, tmp_path / "data")
    (tmp_path / "data" / "data.yaml").write_text(
        "train: images/train\nval: images/train\ntest: images/train\nnames: [car, ball, box, tree, star, house]\n"
    )
    looked = dry_run(base, tmp_path / "data", tmp_path)
    assert looked.exit_code == 0, looked.output
    assert "train: 2 images (0 without objects), 0 texts, " in looked.stdout
    assert {name: len(found) for name, found in boxes(read_data(tmp_path / "data")).items()} == {
        "09004.png": 1,
        "09005.png": 7,
    }
    # Once each, though the splits share them.
    lines = [line for line in looked.stdout.splitlines() if line.startswith("left out: ")]
    assert [line.split(": ")[1] for line in lines] == [f"{tmp_path}/data/labels/train/{place}" for place in told]


def test_boxes_with_their_corners_in_the_wrong_order(base: Path, tmp_path: Path) -> None:
    case = CASES / "jsonl" / "35-xywh"
    looked = dry_run(base, case, tmp_path)
    assert looked.exit_code == 0, looked.output
    assert [line for line in looked.stdout.splitlines() if line.startswith("left out: ")] == [
        f"left out: {case}/annotations.jsonl:1: a box of 'car' has its corners in the wrong order; "
        "they are x0, y0, x1, y1",
        f"left out: {case}/annotations.jsonl:2: a box of 'car' has no area; correct it or take it out",
    ]
    assert len(boxes(read_data(case))) == 4


def test_an_answer_that_is_too_long_is_named_with_its_tokens(tmp_path: Path) -> None:
    case = CASES / "jsonl" / "36-300"
    looked = dry_run("demo", case, tmp_path)
    assert looked.exit_code == 0, looked.output
    [line] = [line for line in looked.stdout.splitlines() if line.startswith("left out: ")]
    # "car", its space, four tokens a box, and the two at the ends.
    told = "its answer has 1202 tokens, and this model takes 384; shorten or split the row"
    assert line == f"left out: {case}/annotations.jsonl:1: {told}"
    assert "the adapter of the preset demo isn't kept: the training begins with the bare detector" in looked.stdout


@pytest.mark.parametrize("case", ["35-xywh", "36-300"])
def test_rows_in_utf16_are_the_same(tmp_path: Path, case: str) -> None:
    shutil.copytree(CASES / "jsonl" / case, tmp_path / "data")
    path = tmp_path / "data" / "annotations.jsonl"
    clean = read_data(tmp_path / "data")
    path.write_text(path.read_text(), encoding="utf-16")
    assert read_data(tmp_path / "data") == clean


@pytest.mark.parametrize("key", ["image", "prefix", "suffix"])
def test_half_a_character_in_a_row_is_named(tmp_path: Path, key: str) -> None:
    shutil.copytree(CASES / "jsonl" / "35-xywh", tmp_path / "data")
    path = tmp_path / "data" / "annotations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2][key] = "\ud83d" + rows[2][key]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[2:]))
    fault = read_data(tmp_path / "data").faults[0]
    assert fault.source == f"{path}:1"
    assert f"its {key} " in fault.what
    assert "holds half a character" in fault.what
    with pytest.raises(InputError, match=r"annotations\.jsonl:1: "):
        read_data(tmp_path / "data", strict=True)


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_row_finds_its_image_in_another_form_of_its_letters(tmp_path: Path, on_disk: str, written: str) -> None:
    shutil.copytree(CASES / "jsonl" / "35-xywh", tmp_path / "data")
    path = tmp_path / "data" / "annotations.jsonl"
    (tmp_path / "data" / "09005.png").rename(tmp_path / "data" / normalize(on_disk, "café.png"))
    path.write_text(path.read_text().replace("09005.png", normalize(written, "café.png")))
    data = read_data(tmp_path / "data")
    assert len(data.faults) == 2
    assert len(boxes(data)) == 4
    [note] = data.notes
    assert note.startswith("annotations.jsonl: images were found by names whose letters are encoded in another form")
