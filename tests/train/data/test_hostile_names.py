"""Names of images that no file can have, or that lead elsewhere: each is one fault of one row, never the end."""

import json
from pathlib import Path

import pytest
from train_cases import IMAGES, coco_document, od_row, paint_images, read_data, write_coco, write_jsonl

from grounded_seg.errors import InputError
from grounded_seg.images.read import read_or_skip
from grounded_seg.records import ImageSkipped

NAMES = {
    "long": "x" * 300 + ".png",
    "longer than any path": "x" * 5000,
    "many folders": "a/" * 3000 + "x.png",
    "zero byte": "a\0b.png",
    "home": "~/a.png",
    "another's home": "~root/a.png",
    "variable": "$HOME/a.png",
    "drive": "C:\\a.png",
    "drive without a root": "C:a.png",
    "share": "\\\\server\\share\\a.png",
    "device": "/dev/zero",
    "terminal": "/dev/stdin",
    "process": "/proc/self/environ",
    "a device of Windows": "NUL",
    "above": "../../nowhere.png",
    "the folder": ".",
    "folder above": "..",
    "root": "/",
    "empty": "",
    "half a character": "\ud83d.png",
    "control": "\x1b[31m.png",
    "wildcard": "*.png",
    "address": "http://127.0.0.1:9/a.png",
}
ANSWER = "red<loc_10><loc_20><loc_300><loc_400>"


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_in_a_row_it_is_one_fault(name: str, tmp_path: Path) -> None:
    rows = [od_row(good, ANSWER) for good in IMAGES]
    write_jsonl(tmp_path / "data", [*rows[:3], od_row(name, ANSWER), *rows[3:]])
    found = read_data(tmp_path / "data")
    [fault] = found.faults
    assert fault.source.endswith("annotations.jsonl:4")
    assert sum(len(split.examples) for split in found.splits.values()) == len(rows)


@pytest.mark.parametrize("name", [one for one in NAMES.values() if one not in ("", ".")])
def test_in_a_list_of_yolo_it_is_one_fault(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    paint_images(folder / "images")
    (folder / "labels").mkdir()
    for good in IMAGES:
        (folder / "labels" / good).with_suffix(".txt").write_text("0 .5 .5 .2 .2\n")
    (folder / "data.yaml").write_text("train: train.txt\nnames: [red]\n")
    listed = [*(f"images/{good}" for good in IMAGES), name]
    (folder / "train.txt").write_bytes(
        "\n".join(listed).encode("utf-8", "surrogatepass").replace(b"\xed\xa0\xbd", b"?")
    )
    found = read_data(folder)
    assert len(found.faults) == 1
    assert sum(len(split.examples) for split in found.splits.values()) == len(IMAGES)


# A file of COCO is refused where a name leaves its folder, or is none: the tests of its reader.
@pytest.mark.parametrize(
    "kind", ["long", "longer than any path", "many folders", "home", "variable", "control", "wildcard"]
)
def test_in_a_coco_file_it_is_one_fault(kind: str, tmp_path: Path) -> None:
    document = coco_document()
    document["images"][2]["file_name"] = NAMES[kind]
    write_coco(tmp_path / "data", document)
    found = read_data(tmp_path / "data")
    [fault] = found.faults
    assert "isn't there" in str(fault)
    assert sum(len(split.examples) for split in found.splits.values()) == len(IMAGES) - 1


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_an_image_of_a_run_is_skipped(name: str, tmp_path: Path) -> None:
    skipped = read_or_skip(tmp_path / name) if name not in ("/dev/stdin",) else read_or_skip(Path(name))
    assert isinstance(skipped, ImageSkipped)


@pytest.mark.parametrize("name", ["x" * 5000, "/dev/zero", "a\\0b", "~", "C:\\\\a", "\\e[31m"])
def test_a_folder_that_a_data_yaml_names_is_refused_by_line(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    paint_images(folder / "images")
    (folder / "data.yaml").write_text(f"names: [red]\ntrain: {json.dumps(name)}\n".replace("\\\\", "\\"))
    with pytest.raises(InputError, match=r"data\.yaml:2: "):
        read_data(folder)
