"""YOLO as tools and people write it: each form gives the rows of the clean one, with a note; the rest by its line."""

import codecs
import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unicodedata import normalize

import PIL.Image
import pytest
import yaml
from coco_cases import truth
from hypothesis import given, settings
from hypothesis import strategies as st
from train_cases import read_data

from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.train.data.data_yaml import read_data_yaml
from grounded_seg.train.data.records import BoxExample, TrainingData

WIDTH, HEIGHT = 40, 20
IMAGES = ("a.png", "b.png", "c.png", "d.png")
Rows = Sequence[Sequence[tuple[int, int, int, int, int]]]
"""Class, centre and sides in hundredths, by image."""
ROWS: Rows = ([(0, 50, 50, 20, 20), (1, 25, 40, 10, 50)], [(1, 70, 30, 30, 30)], [(0, 10, 10, 20, 20)], [])


def write_clean(folder: Path, rows: Rows = ROWS) -> None:
    """Four images in `images/train` and `images/val`, and their labels."""
    for name, found in zip(IMAGES, rows, strict=True):
        split = "val" if name == "d.png" else "train"
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (WIDTH, HEIGHT)).save(folder / "images" / split / name)
        lines = (" ".join([str(row[0]), *(f"{n / 100:g}" for n in row[1:])]) for row in found)
        (folder / "labels" / split / name).with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines))
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [car, ball]\n")


def rows_of(data: TrainingData) -> dict[str, set[Any]]:
    return {
        split: {(row.image.name, row.size, row.boxes) for row in part.examples if isinstance(row, BoxExample)}
        for split, part in data.splits.items()
    }


def labels_in(folder: Path) -> list[Path]:
    return sorted((folder / "labels").rglob("*.txt"))


def rewrite(files: Sequence[Path], change: Callable[[str], str]) -> None:
    for file in files:
        file.write_text(change(file.read_text()))


def set_yaml(folder: Path, **changed: str | None) -> None:
    """Change lines of `data.yaml`; None takes one out."""
    path = folder / "data.yaml"
    lines = dict(line.split(": ", 1) for line in path.read_text().splitlines())
    lines |= {key: value for key, value in changed.items() if value is not None}
    left = {key: value for key, value in lines.items() if changed.get(key, "") is not None}
    path.write_text("".join(f"{key}: {value}\n" for key, value in left.items()))


def write_list(folder: Path, write: Callable[[str], str], name: str = "train.txt") -> None:
    images = [f"images/train/{one}" for one in IMAGES if one != "d.png"]
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("".join(f"{write(one)}\n" for one in images))
    set_yaml(folder, train=name)


def encode(files: Sequence[Path], mark: bytes, encoding: str) -> None:
    for file in files:
        file.write_bytes(mark + file.read_text().encode(encoding))


def in_utf8_mark(folder: Path) -> None:
    write_list(folder, "./{}".format)
    encode([folder / "data.yaml", folder / "train.txt", *labels_in(folder)], codecs.BOM_UTF8, "utf-8")


def in_utf16(folder: Path) -> None:
    write_list(folder, "./{}".format)
    encode([folder / "data.yaml", folder / "train.txt", *labels_in(folder)], codecs.BOM_UTF16_LE, "utf-16-le")


def beside(folder: Path) -> None:
    for path in labels_in(folder):
        path.rename(folder / "images" / path.relative_to(folder / "labels"))
    shutil.rmtree(folder / "labels")


def with_keypoints(folder: Path) -> None:
    set_yaml(folder, kpt_shape="[2, 3]")
    rewrite(labels_in(folder), lambda text: text.replace("\n", " 0.1 0.2 2 0 0 0\n"))


def as_corners(folder: Path) -> None:
    def corners(text: str) -> str:
        lines = []
        for number, x, y, w, h in (map(float, line.split()) for line in text.splitlines()):
            x0, y0, x1, y1 = x - w / 2, y - h / 2, x + w / 2, y + h / 2
            lines.append(f"{number:g} {x0:.6f} {y0:.6f} {x1:.6f} {y0:.6f} {x1:.6f} {y1:.6f} {x0:.6f} {y1:.6f}\n")
        return "".join(lines)

    rewrite(labels_in(folder), corners)


def keypoints_by_task(folder: Path) -> None:
    with_keypoints(folder)
    set_yaml(folder, kpt_shape=None, task="pose")


def rotated_boxes(folder: Path) -> None:
    as_corners(folder)
    set_yaml(folder, task="obb")


def as_json(folder: Path) -> None:
    document = {"train": "images/train", "val": "images/val", "names": {"0": "car", "1": "ball"}}
    (folder / "data.yaml").write_text(json.dumps(document))


def with_blanks(folder: Path) -> None:
    rewrite(labels_in(folder), lambda text: f"\n{text}".replace("\n", " \n\n").replace(" 0.", "\t."))


def renamed(folder: Path) -> None:
    (folder / "data.yaml").rename(folder / "coco8.yml")


def beside_notes(folder: Path) -> None:
    (folder / "notes.json").write_text('{"categories": []}')


def as_roboflow(folder: Path) -> None:
    for split, theirs in (("train", "train"), ("val", "valid")):
        (folder / theirs).mkdir()
        for kind in ("images", "labels"):
            (folder / kind / split).rename(folder / theirs / kind)
    text = "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n\nnc: 2\nnames: ['car', 'ball']\n\n"
    (folder / "data.yaml").write_text(f"{text}roboflow:\n  workspace: x\n  version: 1\n")


def several_folders(folder: Path) -> None:
    for kind, name in (("images", "a.png"), ("labels", "a.txt")):
        (folder / kind / "more").mkdir()
        (folder / kind / "train" / name).rename(folder / kind / "more" / name)
    set_yaml(folder, train="[images/train, images/more]")


def linked(folder: Path) -> None:
    (folder / "elsewhere").mkdir()
    for kind in ("images", "labels"):
        (folder / kind / "train").rename(folder / "elsewhere" / kind)
    (folder / "images" / "train").symlink_to(folder / "elsewhere" / "images")


QUIRKS: dict[str, tuple[Callable[[Path], None], str | None]] = {
    "names as lines": (lambda folder: set_yaml(folder, names="{0: car, 1: ball}"), None),
    "names in another order": (lambda folder: set_yaml(folder, names="{'1': ball, '0': 'car'}"), None),
    "JSON": (as_json, None),
    "nothing for test": (lambda folder: set_yaml(folder, test="# optional"), None),
    "another nc": (lambda folder: set_yaml(folder, nc="80"), "nc is '80', and there are 2 names"),
    "a further class": (lambda folder: set_yaml(folder, names="{0: car, 1: ball, 7: none}"), "not numbered 0 to 2"),
    "UTF-8 marks": (in_utf8_mark, None),
    "UTF-16": (in_utf16, None),
    "Windows' line ends": (
        lambda folder: rewrite([folder / "data.yaml", *labels_in(folder)], lambda text: text.replace("\n", "\r\n")),
        None,
    ),
    "blanks": (with_blanks, None),
    "a row twice": (lambda folder: rewrite(labels_in(folder), lambda text: text * 2), "stand twice in a file"),
    "keypoints": (with_keypoints, "keypoints were left out"),
    "keypoints by task": (keypoints_by_task, "keypoints were left out"),
    "corners": (as_corners, None),
    "rotated boxes": (rotated_boxes, None),
    "corners under detect": (
        lambda folder: (as_corners(folder), set_yaml(folder, task="detect"))[0],
        "outlines under `task: detect` were read by the box around them",
    ),
    "boxes under obb": (
        lambda folder: set_yaml(folder, task="obb"),
        "rows under `task: obb` that aren't four corners were read as boxes",
    ),
    "boxes under segment": (
        lambda folder: set_yaml(folder, task="segment"),
        "boxes under `task: segment`, where Ultralytics takes them for two corners, were read as boxes (",
    ),
    "boxes under detect": (lambda folder: set_yaml(folder, task="detect"), None),
    "corners under segment": (lambda folder: (as_corners(folder), set_yaml(folder, task="segment"))[0], None),
    "a task without rows": (lambda folder: set_yaml(folder, task="classify"), "task is 'classify', which has no rows"),
    "a pattern": (lambda folder: set_yaml(folder, train="images/train/*.png"), None),
    "a pattern in a list of places": (lambda folder: set_yaml(folder, train='["images/tr*/*"]', path="."), None),
    "a list": (lambda folder: write_list(folder, "./{}".format), None),
    "a list in a folder": (
        lambda folder: write_list(folder, "./{}".format, "lists/train.txt"),
        "images of a list were not found from its folder",
    ),
    "a list of another machine": (
        lambda folder: write_list(folder, "/content/somewhere/{}".format),
        "images of a list were not found from its folder",
    ),
    "a list of Windows": (
        lambda folder: write_list(folder, lambda one: "C:\\data\\" + one.replace("/", "\\")),
        "images of a list were not found from its folder",
    ),
    "a list with an image twice": (lambda folder: write_list(folder, lambda one: f"{one}\n\n./{one}"), None),
    "several folders": (several_folders, None),
    "links": (linked, None),
    "path is the folder": (lambda folder: set_yaml(folder, path="."), None),
    "path is absolute": (lambda folder: set_yaml(folder, path=str(folder)), None),
    "path of another machine": (
        lambda folder: set_yaml(folder, path="/content/somewhere"),
        "paths that lead nowhere were found beside it (2 times",
    ),
    "folders of another machine": (
        lambda folder: set_yaml(folder, train="/content/x/images/train", val="/content/x/images/val"),
        "found by their last parts",
    ),
    "folders of Windows": (
        lambda folder: set_yaml(folder, train="D:\\x\\images\\train", val="images\\val"),
        "found by their last parts",
    ),
    "up and down": (
        lambda folder: set_yaml(folder, path=".", train="../images/train"),
        "../ at the start of a path was left out",
    ),
    "Roboflow": (as_roboflow, "test names what isn't there"),
    "labels beside the images": (beside, "labels were found beside their images"),
    "another name": (renamed, None),
    "a lone JSON file": (beside_notes, None),
}


@pytest.mark.parametrize("quirk", QUIRKS)
def test_each_form_gives_the_rows_of_the_clean_one(quirk: str) -> None:
    plant, note = QUIRKS[quirk]
    sides = st.integers(1, 40)
    row = st.tuples(st.integers(0, 1), st.integers(20, 80), st.integers(20, 80), sides, sides)

    @settings(max_examples=6, deadline=None, database=None)
    @given(rows=st.lists(st.lists(row, max_size=3, unique=True), min_size=2, max_size=2))
    def holds(rows: Rows) -> None:
        with TemporaryDirectory() as name:
            clean, other = Path(name, "clean"), Path(name, "other")
            for folder in (clean, other):
                write_clean(folder, [ROWS[0], *rows, ROWS[3]])
            plant(other)
            found = read_data(other)
            assert rows_of(found) == rows_of(read_data(clean))
            assert found.faults == ()
            if note is None:
                assert found.notes == ()
            else:
                assert note in "\n".join(found.notes)

    holds()


def test_a_data_yaml_may_be_named_itself(tmp_path: Path) -> None:
    write_clean(tmp_path)
    (tmp_path / "second.yaml").write_text("train: images/val\nnames: [car]\n")
    assert read_data(tmp_path / "data.yaml") == read_data(tmp_path)


def test_paths_from_the_current_folder_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ultralytics takes them: a settings file away from its data."""
    write_clean(tmp_path / "data" / "x")
    (tmp_path / "settings").mkdir()
    (tmp_path / "data" / "x" / "data.yaml").rename(tmp_path / "settings" / "x.yaml")
    for text in ("path: data/x\ntrain: train.txt\nval: images/val\n", "train: [data/x/images/train]\n"):
        (tmp_path / "settings" / "x.yaml").write_text(f"{text}names: [car, ball]\n")
        (tmp_path / "data" / "x" / "train.txt").write_text("data/x/images/train/a.png\nimages/train/b.png\n")
        monkeypatch.chdir(tmp_path)
        if "path" in text:
            data = read_data(Path("settings/x.yaml"))
            assert {row.image.name for row in data.train.examples} == {"a.png", "b.png"} - {
                row.image.name for row in data.test.examples
            }
            assert any("from the current folder" in note for note in data.notes)


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ("[no, on, 1_000, ~, 0x10, 2024-01-01]", ["no", "on", "1_000", "~", "0x10", "2024-01-01"]),
        ("{0: no, 1: 'yes', 2: 1e3, 3: null}", ["no", "yes", "1e3", "null"]),
        ("\n- Off\n- 012\n- 1:30\n- .inf\n- =\n", ["Off", "012", "1:30", ".inf", "="]),
        ('["\\ud83d\\ude97 car", "caf\\xe9"]', ["🚗 car", "café"]),
        ("[' red car ', \"a: b\", '#1']", ["red car", "a: b", "#1"]),
    ],
)
def test_names_are_the_text_as_written(tmp_path: Path, written: str, names: list[str]) -> None:
    path = tmp_path / "data.yaml"
    path.write_text(f"train: images\nnames: {written}\n")
    assert list(read_data_yaml(path, Notes()).names.values()) == names


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("names: [car, ball]\n", r"data\.yaml names no train, val or test images"),
        ("train: images/train\n", r"it has no names; add the classes"),
        ("train: images/train\nnames:\n", r"data\.yaml:2: names is neither"),
        ("train: images/train\nnames: car\n", r"data\.yaml:2: names is neither"),
        ("train: images/train\nnames: []\n", r"data\.yaml:2: names is neither"),
        ("train: images/train\nnames:\n  0: car\n  1:\n", r"data\.yaml:4: the name of class 1 has no name"),
        ("train: images/train\nnames:\n- car\n- [ball]\n", r"data\.yaml:4: the name of class 1 is no plain text"),
        ("train: images/train\nnames:\n  0: car\n  0: ball\n", r"data\.yaml:4: '0' is there twice"),
        ("train: images/train\nnames:\n  0: car\n  0x1: ball\n", r"data\.yaml:4: '0x1' is no number of a class"),
        ('train: images/train\nnames: ["half \\uD83D"]\n', r"data\.yaml:2: 'half \\ud83d' holds half a character"),
        ("train: images/train\nnames: [car]\ntrain: images/val\n", r"data\.yaml:3: 'train' is there twice"),
        ("train: images/train\nval: x\nvalid: y\nnames: [car]\n", r"data\.yaml:3: val and valid are the same split"),
        ("train: [[a]]\nnames: [car]\n", r"data\.yaml:1: train names something that is no plain text"),
        ("train: images/train\nkpt_shape: 17\nnames: [car]\n", r"data\.yaml:2: kpt_shape isn't a list of two"),
        ("train: images/train\nnames: [car\n", r"data\.yaml:3: this is not YAML"),
        ("train: images/train\nnames: [c\x07r]\n", r"data\.yaml:2: this is not YAML .*#x0007"),
        ('train: images/train\nnames: ["\\UFFFFFFFF"]\n', r"this is not YAML"),
        ("- car\n", r"is no data\.yaml of YOLO: it has no entries"),
        ("", r"is no data\.yaml of YOLO: it has no entries"),
        ("[" * 20_000, r"nested too deeply"),
        ("train: images/nowhere\nnames: [car]\n", r"data\.yaml:1: it names 'images/nowhere', which isn't there"),
        ("train: images/*.tif\nnames: [car]\n", r"data\.yaml:1: it names 'images/\*\.tif', which isn't there"),
        ("train: images/train\nval: /x/images\nnames: [car]\n", r"data\.yaml:2: it names '/x/images', which"),
        ("train: empty.txt\nnames: [car]\n", r"empty\.txt is a list without an image"),
        ("train: ../twice/train\nnames: [car]\n", r"data\.yaml:1: '../twice/train' could be .* or .*; write the whole"),
    ],
)
def test_what_cannot_be_read_in_one_way_is_refused_by_line(tmp_path: Path, text: str, told: str) -> None:
    folder = tmp_path / "data"
    write_clean(folder)
    (folder / "empty.txt").write_text("\n")
    for place in (tmp_path, folder):
        shutil.copytree(folder / "images" / "train", place / "twice" / "train")
    (folder / "data.yaml").write_text(text)
    with pytest.raises(InputError, match=told) as refused:
        read_data(folder)
    assert str(refused.value).isprintable()


def test_classes_of_one_name_are_one_with_a_note(tmp_path: Path) -> None:
    write_clean(tmp_path)
    set_yaml(tmp_path, names="[car, car]")
    data = read_data(tmp_path)
    assert data.classes == ("car",)
    assert data.notes == ("data.yaml: classes of the same name were taken as one (once, first in names 0 and 1)",)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0 1.02 .5 .1 .1", "1.02 is no normalized coordinate"),
        ("0 320 240 50 50", "320 is no normalized coordinate"),
        ("0 .5 .5 .1", "3 numbers follow the class"),
        ("0,.5,.5,.1,.1", "write spaces instead of commas"),
        ("0 .5 .5 .1 .1 .9", "5 numbers follow the class"),
        ("0 .5 .5 -.1 .1", "no area"),
        ("0 .5 .5 0 .1", "no area"),
        ("0 .5 .5 .1_0 .1", "could not convert '.1_0' to a number"),
        ("0 .5 .5 .1 1e999", "inf is no normalized coordinate"),
        ("0.5 .5 .5 .1 .1", "no class 0.5"),
        ("-1 .5 .5 .1 .1", "no class -1"),
        ("0", "0 numbers follow the class"),
    ],
)
def test_every_wrong_row_is_named(tmp_path: Path, line: str, told: str) -> None:
    """And no row of that image is learnt: the others alone would teach that the lost object isn't there."""
    write_clean(tmp_path)
    path = tmp_path / "labels" / "train" / "a.txt"
    path.write_text(f"0 .5 .5 .1 .1\n{line}\n1 .5 .5 .1 .1\n{line}\n")
    data = read_data(tmp_path)
    assert [fault.source for fault in data.faults] == [f"{path}:2", f"{path}:4"]
    assert all(told in fault.what for fault in data.faults)
    left = {row.image.name for part in data.splits.values() for row in part.examples}
    assert left == set(IMAGES) - {"a.png"}


def test_rows_of_keypoints_have_one_length(tmp_path: Path) -> None:
    write_clean(tmp_path)
    with_keypoints(tmp_path)
    path = tmp_path / "labels" / "train" / "a.txt"
    path.write_text("0 .5 .5 .1 .1\n0 .2 .2 .1 .1 .1 .2\n")
    [fault] = read_data(tmp_path).faults
    assert fault.source == f"{path}:2"
    assert "write 4, or as many as kpt_shape says" in fault.what


def test_a_box_among_outlines_is_told(tmp_path: Path) -> None:
    write_clean(tmp_path)
    path = tmp_path / "labels" / "train" / "a.txt"
    path.write_text("0 .5 .5 .2 .2\n1 .1 .1 .2 .1 .2 .2\n")
    data = read_data(tmp_path)
    [row] = [row for part in data.splits.values() for row in part.examples if row.image.name == "a.png"]
    assert isinstance(row, BoxExample)
    assert [box.box_xyxy for box in row.boxes] == [(16, 8, 24, 12), (4, 2, 8, 4)]
    [note] = data.notes
    assert "boxes and outlines stand in one file" in note


def test_images_that_a_list_names_and_are_not_there_are_named(tmp_path: Path) -> None:
    write_clean(tmp_path)
    (tmp_path / "train.txt").write_text("./images/train/a.png\nimages/train/b.png\nc.png\nimages/train/none.png\n")
    set_yaml(tmp_path, train="train.txt")
    data = read_data(tmp_path, strict=False)
    assert [fault.source for fault in data.faults] == [f"{tmp_path / 'train.txt'}:{line}" for line in (3, 4)]


def test_a_folder_without_any_label_is_told(tmp_path: Path) -> None:
    write_clean(tmp_path)
    shutil.rmtree(tmp_path / "labels" / "val")
    assert "no image of a folder or list has labels" in "\n".join(read_data(tmp_path).notes)


@pytest.mark.parametrize(("on_disk", "written"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_names_in_another_form_of_their_letters_are_found(tmp_path: Path, on_disk: str, written: str) -> None:
    write_clean(tmp_path)
    expected = read_data(tmp_path).splits["train"].examples
    for kind, ending, form in (("images", "png", on_disk), ("labels", "txt", written)):
        folder = tmp_path / kind / "train"
        (folder / f"a.{ending}").rename(folder / (normalize(form, "café") + f".{ending}"))
    by_folder = read_data(tmp_path)
    (tmp_path / "train.txt").write_text(normalize(written, "./images/train/café.png\nimages/train/b.png\n"))
    set_yaml(tmp_path, train="train.txt")
    by_list = read_data(tmp_path, strict=True)
    for data, kinds in ((by_folder, ["labels"]), (by_list, ["images", "labels"])):
        boxes = [row.boxes for part in data.splits.values() for row in part.examples if isinstance(row, BoxExample)]
        assert {row.boxes for row in expected if isinstance(row, BoxExample)} & set(boxes)
        assert data.faults == ()
        assert len([boxed for boxed in boxes if len(boxed) == 2]) == 1, "of café.png"
        other_form = "were found by names whose letters are encoded in another form (NFC, NFD) (once"
        assert [note.split(": ", 1)[1].split(", first")[0] for note in data.notes] == [
            f"{kind} {other_form}" for kind in kinds
        ]


@pytest.mark.parametrize("content", [b"0 .5 .5 .1 .1 \xff", "0 .5 .5 .1 .1".encode("utf-16-le")])
def test_labels_that_are_no_text_are_named(tmp_path: Path, content: bytes) -> None:
    write_clean(tmp_path)
    path = tmp_path / "labels" / "train" / "a.txt"
    path.write_bytes(content)
    [fault] = read_data(tmp_path).faults
    assert fault.source == str(path)
    assert fault.what.endswith("save the file as UTF-8")


def test_rows_are_named_before_a_refusal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_clean(tmp_path)
    for name in ("a", "b", "c"):
        (tmp_path / "labels" / "train" / f"{name}.txt").write_text("0 .5 .5\n")
    set_yaml(tmp_path, val=None)
    (tmp_path / "images" / "val" / "d.png").rename(tmp_path / "images" / "train" / "d.png")
    with pytest.raises(InputError, match="1 usable images, too few"):
        read_data(tmp_path)
    assert [record.getMessage().split(":1:")[0] for record in caplog.records] == [
        f"left out: {tmp_path / 'labels' / 'train' / name}.txt" for name in ("a", "b", "c")
    ]


ODD_NAMES = [
    "no",
    "on",
    "1_000",
    "~",
    "0x10",
    "2024-01-01",
    "1:30",
    "null",
    "1e3",
    "- a",
    "a: b",
    "#1",
    "é",
    "🚗",
    "=",
    "<<",
]


@settings(max_examples=40, deadline=None, database=None)
@given(names=st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(str.strip).filter(len), max_size=3))
def test_exported_names_are_read_back_as_they_were(names: list[str]) -> None:
    names = list(dict.fromkeys([*ODD_NAMES, *names]))
    with TemporaryDirectory() as folder:
        source = Path(folder, "truth.json")
        document = truth((1, 1, (0, 0, 10, 10)))
        document["categories"] = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
        source.write_text(json.dumps(document))
        export_labels(ExportSettings(source, Path(folder, "out"), LabelFormat.YOLO))
        path = Path(folder, "out", "data.yaml")
        assert list(read_data_yaml(path, Notes()).names.values()) == names
        # What Ultralytics reads it with; it turns numbers, dates and nothing into their text.
        theirs = yaml.safe_load(path.read_text(encoding="utf-8"))["names"]
        assert list(theirs.items()) == list(enumerate(names))
