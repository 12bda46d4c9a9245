"""Every form of data set is read alike, and what can't be learnt from is named by file and line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from train_cases import IMAGES, coco_document, od_row, paint_images, read_data, write_coco, write_jsonl

from grounded_seg.errors import InputError
from grounded_seg.train.data.coco import lines_of
from grounded_seg.train.data.questions import positive_questions
from grounded_seg.train.data.records import BoxExample, TextExample, TrainingData
from grounded_seg.train.settings import PromptForm

SPLIT = (60, 20, 20)

# By hand: floor(1000 x / 40) and floor(1000 y / 30), 40 and 30 themselves clamped to 999.
ROWS = [
    od_row("a.png", "red<loc_50><loc_100><loc_300><loc_300><loc_500><loc_500><loc_750><loc_833>"),
    od_row("b.png", "green<loc_100><loc_133><loc_350><loc_666>"),
    od_row("c.png", "red<loc_0><loc_0><loc_999><loc_500>green<loc_250><loc_600><loc_750><loc_933>"),
    od_row("d.png", ""),
    od_row("e.png", "red<loc_125><loc_166><loc_375><loc_500>"),
    od_row("f.png", "green<loc_200><loc_66><loc_950><loc_400>"),
]


def read(path: Path, **more: Any) -> TrainingData:
    return read_data(path, SPLIT, **more)


def targets(data: TrainingData, form: PromptForm) -> set[tuple[str, str, str]]:
    return {
        (question.example.image.name, question.text, question.answer)
        for split in data.splits.values()
        for example in split.examples
        for question in positive_questions(example, form)
    }


def write_yolo(folder: Path) -> Path:
    paint_images(folder / "images" / "train")
    labels = folder / "labels" / "train"
    labels.mkdir(parents=True)
    for name, boxes in IMAGES.items():
        lines = [
            f"{number} {(x0 + x1) / 80} {(y0 + y1) / 60} {(x1 - x0) / 40} {(y1 - y0) / 30}"
            for number, label in enumerate(("red", "green"))
            for x0, y0, x1, y1 in boxes.get(label, ())
        ]
        (labels / name).with_suffix(".txt").write_text("\n".join(lines))
    (folder / "data.yaml").write_text("train: images/train\nnames: [red, green]\n")
    return labels


@pytest.mark.parametrize("form", PromptForm)
def test_the_same_boxes_give_the_same_targets_from_jsonl_and_coco(tmp_path: Path, form: PromptForm) -> None:
    write_jsonl(tmp_path / "jsonl", ROWS)
    write_coco(tmp_path / "coco")
    found = targets(read(tmp_path / "jsonl"), form)
    assert found == targets(read(tmp_path / "coco"), form)
    assert len(found) == 6  # by class red, green, red, green, red, green; all at once one an image
    if form is PromptForm.OD:
        assert {answer for _, _, answer in found} == {row["suffix"] for row in ROWS}


def test_yolo_gives_the_same_boxes(tmp_path: Path) -> None:
    write_yolo(tmp_path / "yolo")
    write_coco(tmp_path / "coco")
    data = read(tmp_path / "yolo")
    assert targets(data, PromptForm.CLASS) == targets(read(tmp_path / "coco"), PromptForm.CLASS)
    assert data.classes == ("red", "green")


def test_supervision_reads_the_same_yolo_boxes(tmp_path: Path) -> None:
    supervision = pytest.importorskip("supervision", reason="supervision isn't installed")
    labels = write_yolo(tmp_path)
    theirs = supervision.DetectionDataset.from_yolo(
        images_directory_path=str(tmp_path / "images" / "train"),
        annotations_directory_path=str(labels),
        data_yaml_path=str(tmp_path / "data.yaml"),
    )
    ours = {
        str(example.image): [box.box_xyxy for box in example.boxes]
        for split in read(tmp_path).splits.values()
        for example in split.examples
        if isinstance(example, BoxExample)
    }
    for path, _, detections in theirs:
        assert np.allclose(detections.xyxy, np.array(ours[path]).reshape(-1, 4), atol=1e-4)
    assert len(ours) == len(IMAGES)


def test_one_folder_is_split_by_seed_and_image(tmp_path: Path) -> None:
    write_coco(tmp_path)
    data = read(tmp_path)
    names = {split: {row.image.name for row in part.examples} for split, part in data.splits.items()}
    assert sorted(map(len, names.values())) == [1, 1, 4]
    assert set().union(*names.values()) == set(IMAGES)
    assert read(tmp_path) == data
    others = {tuple(row.image.name for row in read_data(tmp_path, SPLIT, seed).test.examples) for seed in range(8)}
    assert len(others) > 1


def test_each_split_gets_an_image_however_small_its_share(tmp_path: Path) -> None:
    write_jsonl(tmp_path, ROWS[:3])
    data = read_data(tmp_path, (1, 98, 1))
    assert [len(split.examples) for split in data.splits.values()] == [1, 1, 1]


def test_two_images_are_too_few(tmp_path: Path) -> None:
    write_jsonl(tmp_path, ROWS[:2])
    with pytest.raises(InputError, match="2 usable images, too few for 3 splits"):
        read(tmp_path)


def test_splits_of_its_own_are_kept(tmp_path: Path) -> None:
    for name, rows in (("train", ROWS[:3]), ("valid", ROWS[3:5]), ("test", ROWS[5:])):
        write_jsonl(tmp_path / name, rows)
    assert [len(split.examples) for split in read(tmp_path).splits.values()] == [3, 2, 1]


def test_rows_of_one_image_stay_in_one_split(tmp_path: Path) -> None:
    write_jsonl(tmp_path, [*ROWS, *(od_row(row["image"], "a caption", "<CAPTION>") for row in ROWS)])
    parts = [{row.image for row in split.examples} for split in read(tmp_path).splits.values()]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 6


def test_texts_are_asked_as_given(tmp_path: Path) -> None:
    rows = [
        od_row("a.png", "two red things", "<CAPTION>"),
        od_row("b.png", "green<loc_1><loc_2><loc_3><loc_4>", "<CAPTION_TO_PHRASE_GROUNDING>green"),
        od_row("c.png", "three", "<VQA>how many?"),
    ]
    write_jsonl(tmp_path, rows)
    found = {row.image.name: row for split in read(tmp_path).splits.values() for row in split.examples}
    asked = {name: row.question for name, row in found.items() if isinstance(row, TextExample)}
    assert asked == {
        "a.png": "What does the image describe?",
        "b.png": "Locate the phrases in the caption: green",
        "c.png": "<VQA>how many?",
    }


def test_rows_about_the_boxes_of_one_image_are_one_example(tmp_path: Path) -> None:
    """Else the first row would deny the green box, and the second the red ones."""
    rows = [*ROWS, od_row("a.png", "green<loc_0><loc_0><loc_99><loc_99>"), ROWS[0], od_row("a.png", "x", "<CAPTION>")]
    write_jsonl(tmp_path, rows)
    found = [row for split in read(tmp_path).splits.values() for row in split.examples if row.image.name == "a.png"]
    boxed, text = found
    assert isinstance(boxed, BoxExample)
    assert isinstance(text, TextExample)
    assert [box.label for box in boxed.boxes] == ["red", "red", "green"]


def test_an_image_that_coco_lists_twice_is_one_example(tmp_path: Path) -> None:
    document = coco_document()
    document["images"].append({**document["images"][0], "id": 77})
    document["annotations"][2]["image_id"] = 77
    document["annotations"][3] |= {"image_id": 77, "iscrowd": 1}
    write_coco(tmp_path, document)
    [row] = [row for split in read(tmp_path).splits.values() for row in split.examples if row.image.name == "a.png"]
    assert isinstance(row, BoxExample)
    assert [box.label for box in row.boxes] == ["green"]
    assert row.unsure == {"red"}


def test_lines_end_where_json_says(tmp_path: Path) -> None:
    caption = json.dumps(od_row("a.png", "one\u2028two\u0085three", "<CAPTION>"), ensure_ascii=False)
    path = write_jsonl(tmp_path, [caption, *ROWS, "{"])
    data = read(tmp_path)
    assert [fault.source for fault in data.faults] == [f"{path}:8"]
    [text] = [row for split in data.splits.values() for row in split.examples if isinstance(row, TextExample)]
    assert text.answer == "one\u2028two\u0085three"


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ("{not json", "this is not JSON"),
        ({"image": "g.png", "prefix": "<OD>"}, "a text suffix"),
        ([], "a text image"),
        (od_row("g.png", "", " "), "prefix is empty"),
        (od_row("nowhere.png", ""), "'nowhere.png' isn't there"),
        (od_row("broken.png", ""), "broken.png"),
        (od_row("g.png", "red<loc_1><loc_2><loc_3>"), "3 location tokens"),
        (od_row("g.png", "red<loc_1><loc_2><loc_3><loc_1000>"), "no token <loc_1000>"),
        (od_row("g.png", f"red<loc_1><loc_2><loc_3><loc_{'9' * 5000}>"), f"no token <loc_{'9' * 20}>"),
        (od_row("g.png", "red<loc_1><loc_2><loc_3><loc_\u0664>"), "no token <loc_\u0664>"),
        (od_row("../elsewhere/a.png", ""), "'../elsewhere/a.png' is outside of the folder"),
        (od_row("..\\elsewhere\\a.png", ""), "is outside of the folder"),
        (od_row("/elsewhere/a.png", ""), "'/elsewhere/a.png' is outside of the folder"),
        (od_row("g.png", "red<loc_9><loc_2><loc_3><loc_4>"), "wrong order"),
        (od_row("g.png", "red<loc_3><loc_2><loc_3><loc_4>"), "no area"),
        (od_row("g.png", "red<loc_1><loc_4><loc_3><loc_4>", "<CAPTION_TO_PHRASE_GROUNDING>red"), "no area"),
        (od_row("g.png", "<loc_1><loc_2><loc_3><loc_4>"), "no label"),
        (od_row("g.png", "red"), "location tokens behind it"),
        (od_row("g.png", "text", "<CAPTION>more"), "takes no text"),
        (od_row("g.png", "<loc_2000>", "<OCR>"), "no token <loc_2000>"),
        (od_row("g.png", "red<loc_1><loc_2>", "<CAPTION_TO_PHRASE_GROUNDING>red"), "2 location tokens"),
        (od_row("g.png", "<loc_9><loc_2><loc_3><loc_4>", "<REGION_PROPOSAL>"), "wrong order"),
        (od_row("g.png", "STOP" + "<loc_1>" * 7, "<OCR_WITH_REGION>"), "aren't eight a text"),
    ],
)
def test_a_broken_row_is_left_out_and_named(tmp_path: Path, row: Any, what: str) -> None:
    path = write_jsonl(tmp_path, [*ROWS[:2], row, *ROWS[2:]])
    (tmp_path / "broken.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    (tmp_path / "g.png").write_bytes((tmp_path / "a.png").read_bytes())
    data = read(tmp_path)
    [fault] = data.faults
    assert fault.source == f"{path}:3"
    assert what in fault.what
    assert sum(len(split.examples) for split in data.splits.values()) == 6
    with pytest.raises(InputError, match=r"annotations\.jsonl:3: "):
        read(tmp_path, strict=True)


def _without_image(document: dict[str, Any]) -> None:
    document["images"][2]["file_name"] = "nowhere.png"


def _other_size(document: dict[str, Any]) -> None:
    document["images"][2]["width"] = 400


def _outside(document: dict[str, Any]) -> None:
    document["annotations"][3]["bbox"] = [30, 0, 20, 10]


def _flat(document: dict[str, Any]) -> None:
    document["annotations"][3]["bbox"] = [3, 3, 0, 10]


def _negative(document: dict[str, Any]) -> None:
    document["annotations"][3]["bbox"] = [3, 3, -2, 10]


def _three_numbers(document: dict[str, Any]) -> None:
    document["annotations"][3]["bbox"] = [3, 3, 10]


def _mask_of_another_size(document: dict[str, Any]) -> None:
    document["annotations"][3]["segmentation"] = {"size": [2, 2], "counts": [4]}


def _nothing(document: dict[str, Any]) -> None:
    del document["annotations"][3]["bbox"]


def _no_such_class(document: dict[str, Any]) -> None:
    document["annotations"][3]["category_id"] = 9


@pytest.mark.parametrize(
    ("spoil", "section", "index", "what"),
    [
        (_without_image, "images", 2, "isn't there"),
        (_other_size, "images", 2, "400 x 30 px there, but upright it is 40 x 30 px"),
        (_outside, "annotations", 3, r"annotations\[3\]: the box 30, 0, 50, 10 .* lies partly outside"),
        (_flat, "annotations", 3, r"annotations\[3\]: the box .* no area"),
        (_negative, "annotations", 3, r"annotations\[3\]: bbox .* has a negative side"),
        (_three_numbers, "annotations", 3, r"annotations\[3\]: bbox .* isn't x, y, width, height"),
        (_mask_of_another_size, "annotations", 3, r"annotations\[3\]: the mask is 2 x 2 px, its image 40 x 30 px"),
        (_nothing, "annotations", 3, r"annotations\[3\]: it has neither bbox nor segmentation"),
        (_no_such_class, "annotations", 3, r"annotations\[3\]: category_id 9 is not among"),
    ],
)
def test_an_image_with_a_wrong_box_is_left_out_whole(
    tmp_path: Path, spoil: Any, section: str, index: int, what: str
) -> None:
    document = coco_document()
    spoil(document)
    path = write_coco(tmp_path, document)
    [fault] = read(tmp_path).faults
    line = lines_of(path, section)[index]
    assert path.read_text().splitlines()[line - 1] == "{"
    assert fault.source == f"{path}:{line}"
    with pytest.raises(InputError, match=what):
        read(tmp_path, strict=True)
    left = {row.image.name for split in read(tmp_path).splits.values() for row in split.examples}
    assert left == set(IMAGES) - {"c.png"}


@pytest.mark.parametrize(
    "row",
    [
        od_row("a.png", "green<loc_9><loc_2><loc_3><loc_4>"),
        {"image": "a.png", "prefix": "<OD>"},
        {"image": "a.png", "suffix": "green<loc_1><loc_2><loc_3><loc_4>"},
        '{"image": "a.png", "prefix": "<OD>", "suffix": "green<loc_1>',
    ],
)
def test_a_broken_row_takes_all_boxes_of_its_image_with_it(tmp_path: Path, row: Any) -> None:
    """Without it, the good row of the image would teach that nothing green is there."""
    path = write_jsonl(tmp_path, [*ROWS, row, od_row("a.png", "two red things", "<CAPTION>")])
    data = read(tmp_path)
    assert sorted(fault.source for fault in data.faults) == [f"{path}:1", f"{path}:7"]
    assert f"{path}:7 is about boxes of the same image" in str(data.faults)
    [left] = [row for split in data.splits.values() for row in split.examples if row.image.name == "a.png"]
    assert isinstance(left, TextExample)


def test_a_broken_caption_leaves_the_boxes_of_its_image(tmp_path: Path) -> None:
    write_jsonl(tmp_path, [*ROWS, od_row("a.png", "<loc_2000>", "<CAPTION>")])
    data = read(tmp_path)
    assert len(data.faults) == 1
    assert sum(len(split.examples) for split in data.splits.values()) == 6


def test_an_image_that_coco_lists_twice_goes_with_either_record(tmp_path: Path) -> None:
    document = coco_document()
    document["images"].append({**document["images"][0], "id": 77})
    document["annotations"][2] |= {"image_id": 77, "bbox": [3, 3, 0, 10]}
    path = write_coco(tmp_path, document)
    data = read(tmp_path)
    sources = [f"{path}:{lines_of(path, 'annotations')[2]}", f"{path}:{lines_of(path, 'images')[0]}"]
    assert [fault.source for fault in data.faults] == sources
    assert "a.png" not in {row.image.name for split in data.splits.values() for row in split.examples}


def test_what_cannot_be_understood_in_coco_is_refused_with_its_line(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][2]["image_id"] = 77
    path = write_coco(tmp_path, document)
    line = lines_of(path, "annotations")[2]
    with pytest.raises(InputError, match=rf"coco\.json:{line}: annotations\[2\]: image_id 77"):
        read(tmp_path)


@pytest.mark.parametrize("constant", ["NaN", "-Infinity"])
def test_what_is_no_number_is_named_with_its_line(tmp_path: Path, constant: str) -> None:
    document = coco_document()
    document["info"] = {"description": 'a "NaN" that is text'}
    document["annotations"][3]["bbox"][2] = float(constant)
    path = write_coco(tmp_path, dict(sorted(document.items(), key=lambda item: item[0] != "info")))
    [line] = [number for number, text in enumerate(path.read_text().splitlines(), 1) if text.startswith(constant)]
    with pytest.raises(InputError, match=rf"coco\.json:{line}: {constant} stands where a number belongs"):
        read(tmp_path)


def test_a_box_over_the_border_by_a_hair_is_cut(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][3]["bbox"] = [-0.2, 0, 40.4, 15]
    write_coco(tmp_path, document)
    boxes = [
        box.box_xyxy
        for split in read(tmp_path).splits.values()
        for row in split.examples
        if isinstance(row, BoxExample) and row.image.name == "c.png"
        for box in row.boxes
    ]
    assert (0.0, 0.0, 40.0, 15.0) in boxes


def test_crowds_are_neither_learnt_nor_denied(tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][0]["iscrowd"] = 1
    write_coco(tmp_path, document)
    [row] = [row for split in read(tmp_path).splits.values() for row in split.examples if row.image.name == "a.png"]
    assert isinstance(row, BoxExample)
    assert row.boxes == ()
    assert row.unsure == {"red"}


def test_a_category_without_objects_is_no_class(tmp_path: Path) -> None:
    document = coco_document()
    document["categories"].insert(0, {"id": 9, "name": "things"})
    write_coco(tmp_path, document)
    assert read(tmp_path).classes == ("red", "green")


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("0 0.5 0.5 0.2", "isn't a class with a box"),
        ("7 0.5 0.5 0.2 0.2", "no class 7"),
        ("0 0.5 0.5 nan 0.2", "isn't a class with a box"),
        ("red 0.5 0.5 0.2 0.2", "could not convert"),
        ("0 0.9 0.5 0.5 0.2", "lies partly outside"),
    ],
)
def test_a_broken_yolo_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    labels = write_yolo(tmp_path)
    (labels / "a.txt").write_text(f"0 0.5 0.5 0.2 0.2\n{line}\n")
    [fault] = read(tmp_path).faults
    assert fault.source == f"{labels / 'a.txt'}:2"
    assert what in fault.what


def test_yolo_labels_without_an_image_are_named(tmp_path: Path) -> None:
    labels = write_yolo(tmp_path)
    (labels / "gone.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (labels / "classes.txt").write_text("red\ngreen\n")
    [fault] = read(tmp_path).faults
    assert str(fault) == f"{labels / 'gone.txt'}:1: there is no image of this name; add it or take the file out"


def test_yolo_may_name_several_folders(tmp_path: Path) -> None:
    write_yolo(tmp_path)
    more = tmp_path / "images" / "more"
    more.mkdir()
    (tmp_path / "images" / "train" / "a.png").rename(more / "a.png")
    (tmp_path / "labels" / "train" / "a.txt").unlink()
    (tmp_path / "data.yaml").write_text("train: [images/train, images/more]\nnames: [red, green]\n")
    rows = [row for split in read(tmp_path).splits.values() for row in split.examples]
    assert {row.image.name for row in rows} == set(IMAGES)
    assert read(tmp_path).faults == ()


def test_grey_transparent_and_sideways_images_are_read_upright(tmp_path: Path) -> None:
    paint_images(tmp_path)
    image = PIL.Image.open(tmp_path / "a.png")
    image.convert("LA").save(tmp_path / "b.png")
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    rows = [od_row("a.png", ""), od_row("b.png", ""), od_row("turned.jpg", "red<loc_0><loc_0><loc_999><loc_999>")]
    (tmp_path / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sizes = {
        row.image.name: (row.size.width, row.size.height) for s in read(tmp_path).splits.values() for row in s.examples
    }
    assert sizes == {"a.png": (40, 30), "b.png": (40, 30), "turned.jpg": (30, 40)}


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", '{"images": 3}'])
def test_a_file_that_is_no_data_set_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "_annotations.coco.json").write_text(text)
    with pytest.raises(InputError, match=r"_annotations\.coco\.json"):
        read(tmp_path)


def test_an_empty_folder_says_what_belongs_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"annotations\.jsonl, _annotations\.coco\.json or data\.yaml"):
        read(tmp_path)
    with pytest.raises(InputError, match="no data set is at"):
        read(tmp_path / "nowhere")


def test_lines_are_found_in_one_line_and_in_many(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"other": {"images": [1]},\n "images": [{"a": "]"},\n\n {"b": 2}, 3]}')
    assert lines_of(path, "images") == [2, 4, 4]
    assert lines_of(path, "nothing") == []


@pytest.mark.parametrize("folder", ["", "train"])
def test_a_lone_json_file_beside_a_data_yaml_is_not_the_data_set(tmp_path: Path, folder: str) -> None:
    write_yolo(tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "notes.json").write_text('{"seen": true}')
    assert read(tmp_path).classes == ("red", "green")
    # A file of the usual name is.
    (tmp_path / folder / "annotations.jsonl").write_text("")
    with pytest.raises(InputError, match=r"annotations\.jsonl is empty"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["x" * 5000, "\x1b[31m"])
def test_a_folder_of_an_impossible_name_is_one_clean_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "data.yaml").write_text(json.dumps({"train": name, "names": ["red"]}))
    with pytest.raises(InputError, match="which isn't there") as caught:
        read(tmp_path)
    assert str(caught.value).isprintable()


def test_a_name_too_long_for_any_file_is_a_row_without_image(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path, [*ROWS, od_row("x" * 5000, "")])
    [fault] = read(tmp_path).faults
    assert str(fault).startswith(f"{path}:7: the image 'xxx")
