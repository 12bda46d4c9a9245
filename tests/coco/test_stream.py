"""A COCO file image by image: what is given, and what is refused with the way to repair it."""

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, truth, written

from grounded_seg.coco.check.validate import hold_captions
from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.sections import FastParserError, records_of
from grounded_seg.coco.stream import CocoReader
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def test_images_come_with_their_annotations_in_the_order_of_the_file(tmp_path: Path) -> None:
    document = truth((2, 1, HERE), (1, 2, FAR), (2, 2, FAR), n_images=2)
    document["annotations"][0] |= {"iscrowd": 1, "score": 0.5}
    document["annotations"][2]["segmentation"] = []
    with CocoReader(written(tmp_path / "a.json", document | {"more": {"x": 1}})) as reader:
        second, first = reader.labelled_image(2), reader.labelled_image(1)
        assert reader.has_masks
        assert reader.sections["more"] == {"x": 1}
    assert [(one.category, one.box_xyxy) for one in second.labels] == [
        ("car", (10.0, 10.0, 50.0, 50.0)),
        ("dog", (60.0, 60.0, 90.0, 90.0)),
    ]
    assert [(one.is_crowd, one.score, one.mask and area_px(one.mask)) for one in second.labels] == [
        (True, 0.5, 1600),
        (False, None, None),
    ]
    assert [one.record["id"] for one in first.labels] == [2]


def changed(section: str, **change: Any) -> dict[str, Any]:
    document = truth((1, 1, HERE), (1, 2, FAR))
    document[section][0] |= change
    return document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("[", "it is no JSON"),
        (truth() | {"images": []}, "it lists no images"),
        (changed("annotations", image_id=7), 'annotations[0]: image_id 7 is not among "images"; '),
        (changed("annotations", category_id=None), "annotations[0]: it has no category_id"),
        (changed("annotations", image_id=[]), "annotations[0]: image_id [] is no id"),
        (changed("categories", id=2), "categories[1]: the id 2 is there twice"),
        (changed("categories", name="a\ud83d"), "categories[0]: name 'a\\ud83d' holds half a character"),
        (changed("images", width=None), "images[0]: it has no width and height"),
        (changed("images", width="wide"), "images[0]: width or height 'wide' is no number"),
        (changed("images", file_name="a/../../b.png"), "images[0]: file_name 'a/../../b.png' leaves the folder"),
        (truth() | {"annotations": [7]}, "annotations[0]: it is no object"),
        (truth() | {"categories": [None, 7]}, "categories[0]: it is no object"),
        (changed("annotations", bbox=None, segmentation=None), "annotations[0]: it has neither bbox nor segmentation"),
        (changed("annotations", bbox=[1, 2, -3, 4]), "annotations[0]: bbox [1, 2, -3, 4] has a negative side"),
        (changed("annotations", bbox=[1, 2, 3]), "isn't x, y, width, height"),
        (changed("annotations", segmentation={"size": [50, 50], "counts": [2500]}), "the mask is 50 x 50 px"),
        (changed("annotations", score="high"), "'high' is no number"),
    ],
)
def test_what_is_not_as_coco_says_is_refused_with_the_way_to_repair_it(
    tmp_path: Path, document: Any, says: str
) -> None:
    path = written(tmp_path / "a.json", document)

    def read() -> None:
        with CocoReader(path) as reader:
            reader.labelled_image(1)

    with pytest.raises(InputError, match=f"validate {path} --fix OUT") as raised:
        read()
    assert says in str(raised.value)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("annotations", {"bbox": "[10, 10, 40, 40]"}),
        ("annotations", {"bbox": ["10", 10.0, 40, 40]}),
        ("annotations", {"bbox": None, "area": "1600"}),
        ("annotations", {"area": None, "iscrowd": False}),
        ("annotations", {"iscrowd": None}),
        ("annotations", {"segmentation": [10, 10, 50, 10, 50, 50, 10, 50]}),
        ("annotations", {"segmentation": [[10, 10, 50, 10, 50, 50, 10, 50], [1, 2, 3, 4]]}),
        ("annotations", {"id": "1", "image_id": 1.0, "category_id": "1"}),
        ("images", {"id": "1", "width": "100", "height": 100.0}),
        ("images", {"file_name": "1.png"}),
        ("categories", {"id": 1.0, "name": " car "}),
    ],
)
def test_unusual_forms_are_given_as_every_reader_takes_them(
    tmp_path: Path, section: str, change: dict[str, Any]
) -> None:
    clean = changed(section)
    with CocoReader(written(tmp_path / "clean.json", clean)) as reader:
        expected = reader.labelled_image(1)
        classes = reader.categories
    assert (expected.record, [label.record for label in expected.labels]) == (clean["images"][0], clean["annotations"])
    path = written(tmp_path / "a.json", changed(section, **change))
    with CocoReader(path) as reader:
        assert reader.labelled_image(1) == expected
        assert reader.categories == classes
        assert reader.has_masks
        assert reader.notes == tuple(dict.fromkeys(reader.notes))
        # Both readers note the same, in an order of their own.
        assert set(reader.notes) == set(read_data_set(path).notes)
        assert bool(reader.notes) == (section != "images" or "file_name" not in change)


def test_ids_below_1_and_names_for_ids_are_numbered_in_the_order_of_the_file(tmp_path: Path) -> None:
    document = truth((2, 1, HERE), (1, 2, FAR), n_images=2)
    for section in ("images", "categories"):
        for one in document[section]:
            one["id"] = f"{section}-{one['id']}"
    for one in document["annotations"]:
        one |= {"id": 5, "image_id": f"images-{one['image_id']}", "category_id": f"categories-{one['category_id']}"}
    with CocoReader(written(tmp_path / "a.json", document)) as reader:
        assert reader.numbered == {"images": 2, "categories": 2, "annotations": 2}
        assert (list(reader.images), list(reader.categories)) == ([1, 2], [1, 2])
        [label] = reader.labelled_image(2).labels
        assert [label.record[key] for key in ("id", "image_id", "category_id")] == [1, 2, 1]
        assert any("more than once" in note for note in reader.notes)


def test_masks_are_looked_for_behind_those_that_cannot_be_read(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", changed("annotations", segmentation=[[1, 2, 3, 4]]))
    with CocoReader(path) as reader:
        assert reader.has_masks
        assert reader.notes == (), "looking notes nothing"
    document = changed("annotations", segmentation=[[1, 2, 3, 4]])
    document["annotations"][1]["segmentation"] = []
    with CocoReader(written(path, document)) as reader:
        assert not reader.has_masks


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_text_is_decoded_by_its_mark(tmp_path: Path, mark: bytes) -> None:
    encoding = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}[mark]
    text = json.dumps(changed("categories", name="vögel 😀"), ensure_ascii=False)
    (tmp_path / "a.json").write_bytes(mark + text.encode(encoding))
    with CocoReader(tmp_path / "a.json") as reader:
        assert reader.categories[1]["name"] == "vögel 😀"
    (tmp_path / "b.json").write_bytes(text.encode("utf-16-le"))
    with pytest.raises(InputError, match="looks like UTF-16 without a byte order mark; save the file as UTF-8"):
        CocoReader(tmp_path / "b.json")


@pytest.mark.parametrize(
    ("text", "is_half"),
    [(r"\ud83d\ude00", False), (r"\uD83D", True), (r"\ude00", True), (r"\ud83d\ud83d\ude00", True), (r"\u0041", False)],
)
@pytest.mark.parametrize("shift", [0, *range(65524, 65550)])
def test_halves_of_pairs_are_found_wherever_the_file_is_cut(
    tmp_path: Path, text: str, is_half: bool, shift: int
) -> None:
    # The first bytes are read apart from the rest, which comes in parts of 64 kB.
    document = json.dumps(changed("categories", name="x" * (4096 + shift) + "TEXT")).replace("TEXT", text + text)
    path = written(tmp_path / "a.json", document)
    if is_half:
        with pytest.raises(FastParserError):
            list(records_of(path))
        assert dict(records_of(path, exact=True)).keys() == {"info", "images", "categories", "annotations"}
    else:
        assert dict(records_of(path)).keys() == {"info", "images", "categories", "annotations"}


def test_a_file_name_of_bytes_that_are_no_text_is_kept(tmp_path: Path) -> None:
    with CocoReader(written(tmp_path / "a.json", changed("images", file_name="a\udcff.png"))) as reader:
        assert reader.labelled_image(1).file_name == "a\udcff.png"


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
def test_a_section_that_is_missing_or_no_list_is_named(tmp_path: Path, section: str) -> None:
    document = changed("images")
    for value in (None, {}, "text"):
        document[section] = value
        with pytest.raises(InputError, match=f'has no list "{section}"; a COCO file needs it'):
            CocoReader(written(tmp_path / "a.json", document))
    del document[section]
    with pytest.raises(InputError, match=f'has no list "{section}"; a COCO file needs it'):
        CocoReader(written(tmp_path / "a.json", document))


def test_captions_are_named(tmp_path: Path) -> None:
    document = truth() | {"annotations": [{"id": 1, "image_id": 1, "caption": "a car"}]}
    with pytest.raises(InputError, match=r"a\.json holds captions, no boxes; name a file of objects"):
        CocoReader(written(tmp_path / "a.json", document))


@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_halves_of_pairs_in_utf16_are_refused(tmp_path: Path, mark: bytes) -> None:
    encoding = "utf-16-le" if mark == codecs.BOM_UTF16_LE else "utf-16-be"
    text = json.dumps(changed("categories", name="a\ud83d"))
    (tmp_path / "a.json").write_bytes(mark + text.encode(encoding))
    for read in (CocoReader, read_data_set):
        with pytest.raises(InputError, match=r"categories\[0\]: name 'a.ud83d' holds half a character"):
            read(tmp_path / "a.json")


@pytest.mark.parametrize("depth", [5_000, 100_000])
@pytest.mark.parametrize("place", ["info", "annotations"])
def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path, place: str, depth: int) -> None:
    document = json.dumps(changed("annotations", x="DEEP") if place == "annotations" else truth() | {"info": "DEEP"})
    path = written(tmp_path / "a.json", document.replace('"DEEP"', "[" * depth + "]" * depth))
    for read in (CocoReader, read_data_set):
        with pytest.raises(InputError, match=r"a\.json is nested too deeply to be a COCO file; export it again"):
            read(path)


def test_what_is_nested_deeply_but_can_be_written_again_is_kept(tmp_path: Path) -> None:
    depth = 400
    document = json.dumps(changed("annotations", x="DEEP")).replace('"DEEP"', "[" * depth + "]" * depth)
    with CocoReader(written(tmp_path / "a.json", document)) as reader:
        assert json.dumps(reader.labelled_image(1).labels[0].record["x"]) == "[" * depth + "]" * depth


@pytest.mark.parametrize("key", ["id", "area", "x"])
def test_numbers_beyond_64_bits_are_read(tmp_path: Path, key: str) -> None:
    path = written(tmp_path / "a.json", changed("annotations", **{key: 2**64}))
    with CocoReader(path) as reader:
        record = reader.labelled_image(1).labels[0].record
        assert record[key] == (1 if key == "id" else 2**64)
        assert reader.sections["info"] == {"description": "made by hand"}
        assert set(reader.notes) == set(read_data_set(path).notes)


@pytest.mark.parametrize("section", ["images", "categories", "annotations"])
def test_a_section_that_is_there_twice_is_refused(tmp_path: Path, section: str) -> None:
    path = written(tmp_path / "a.json", json.dumps(changed("images"))[:-1] + f', "{section}": []}}')
    for read in (CocoReader, read_data_set):
        with pytest.raises(InputError, match=f'a.json has "{section}" twice; delete one of them'):
            read(path)
    clean = changed("images") | {"info": {section: 1, "more": {section: 2}}}
    with CocoReader(written(path, clean)) as reader:
        assert len(reader.labelled_image(1).labels) == len(read_data_set(path).objects) == 2


@pytest.mark.parametrize("key", ["caption", "segments_info"])
def test_one_box_makes_a_file_one_of_objects(tmp_path: Path, key: str) -> None:
    kind = {"caption": "captions", "segments_info": "panoptic segments"}[key]
    other = {"id": 7, "image_id": 1, "category_id": 1, key: []}
    plain = {"id": 8, "image_id": 1, "category_id": 1}
    with_boxes = changed("images")
    with_boxes["annotations"].insert(0, other)

    def read(path: Path) -> None:
        with CocoReader(path) as reader:
            reader.labelled_image(1)

    for annotations in ([other], [plain, other], [{"id": 8}, other]):
        path = written(tmp_path / "a.json", truth() | {"annotations": annotations})
        for one in (read, read_data_set):
            with pytest.raises(InputError, match=rf"a\.json holds {kind}, no boxes; name a file of objects"):
                one(path)
        assert hold_captions(annotations) == (key == "caption")
    path = written(tmp_path / "a.json", with_boxes)
    for one in (read, read_data_set):
        with pytest.raises(InputError, match=r"annotations\[0\]: it has neither bbox nor segmentation"):
            one(path)
    assert not hold_captions(with_boxes["annotations"])


@pytest.mark.parametrize(("size", "counts"), [(5, [9]), (None, [9]), ([3], [9]), ([3, 3], None), ([3, 3], {"a": 1})])
def test_damaged_run_lengths_are_told_without_python(tmp_path: Path, size: Any, counts: Any) -> None:
    path = written(tmp_path / "a.json", changed("annotations", segmentation={"size": size, "counts": counts}))
    [note] = [note for note in read_data_set(path).notes if "masks that can't be read" in note]
    assert "of the mask is" in note
    assert "Error" not in note
