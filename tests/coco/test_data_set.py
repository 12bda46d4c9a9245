"""COCO as the world writes it: read rightly and said so, or refused by file, place and remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, results, scored, truth, written

from grounded_seg.coco.data_set import DataSet, read_data_set
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def read(folder: Path, document: Any) -> DataSet:
    return read_data_set(written(folder / "truth.json", document))


def changed(**change: Any) -> dict[str, Any]:
    """A good data set of two objects, the first with other values."""
    document = truth((1, 1, HERE), (1, 2, FAR))
    document["annotations"][0] |= change
    return document


def test_a_good_file_has_no_notes(tmp_path: Path) -> None:
    data_set = read(tmp_path, truth((1, 1, HERE), (1, 2, FAR)))
    assert data_set.notes == ()
    assert data_set.classes == {1: "car", 2: "dog"}
    assert [one.area for one in data_set.objects] == [1600, 900]
    assert [area_px(one.mask) for one in data_set.objects if one.mask] == [1600, 900]


@pytest.mark.parametrize(
    ("document", "note"),
    [
        (
            changed(bbox="[10, 10, 40, 40]"),
            "boxes written as text were read as numbers (once, first in annotations[0].bbox)",
        ),
        (changed(bbox="10 10 40 40"), "boxes written as text"),
        (
            changed(bbox=["10", "10.0", "40", "40"]),
            "numbers written as text were read (once, first in annotations[0].bbox)",
        ),
        (
            changed(segmentation=json.dumps(truth((1, 1, HERE))["annotations"][0]["segmentation"])),
            "segmentations written",
        ),
        (changed(segmentation=[10, 10, 50, 10, 50, 50, 10, 50]), "not in a list of parts"),
        (changed(segmentation=[[10, 10, 50, 10, 50, 50, 10, 50], [1, 2, 3, 4]]), "fewer than three corners"),
        (
            changed(segmentation={"size": [100, 100], "counts": [1010, *[40, 60] * 39, 40, 5050]}),
            "run lengths written as lists of counts were read (once, first in annotations[0].segmentation)",
        ),
        (
            changed(segmentation={"size": ["100", 100], "counts": [1010.0, *["40", 60] * 39, 40, 5050]}),
            "numbers written as text were read (2 times, first in annotations[0].segmentation)",
        ),
        (changed(area="1600"), "numbers written as text were read (once, first in annotations[0].area)"),
        (changed(iscrowd="0"), "numbers written as text were read (once, first in annotations[0])"),
        (changed(bbox=[0, 0, 0, 0]), "objects without a bbox got their mask's (once, first in annotations[0])"),
        (changed(id="1"), "ids of annotations are text (once, first in annotations[0])"),
        (changed(id=0), "ids of annotations are below 1 (once, first in annotations[0])"),
        (
            changed(id=2),
            "ids of annotations are there more than once, which are only names (once, first in annotations[1])",
        ),
        (changed(area=None), "objects without an area were measured (once, first in annotations[0])"),
        (changed(image_id="1"), "ids of images are text (once, first in annotations[0])"),
        (changed(category_id=1.0), "ids of categories are written with a fraction (once, first in annotations[0])"),
        (changed(bbox=None), "objects without a bbox got their mask's"),
        (changed(iscrowd=False), "iscrowd written as true or false was read as 1 or 0 (once, first in annotations[0])"),
    ],
)
def test_odd_forms_of_an_object_are_read_and_said(tmp_path: Path, document: Any, note: str) -> None:
    data_set = read(tmp_path, document)
    assert data_set.objects == read(tmp_path, truth((1, 1, HERE), (1, 2, FAR))).objects
    assert note in "; ".join(data_set.notes)


def test_a_crowd_may_be_said_with_true(tmp_path: Path) -> None:
    data_set = read(tmp_path, changed(iscrowd=True))
    assert [one.is_crowd for one in data_set.objects] == [True, False]
    assert data_set.notes == ("iscrowd written as true or false was read as 1 or 0 (once, first in annotations[0])",)


def without(key: str) -> dict[str, Any]:
    document = truth((1, 1, HERE))
    del document["annotations"][0][key]
    return document


@pytest.mark.parametrize("key", ["area", "iscrowd", "id"])
def test_what_may_be_missing(tmp_path: Path, key: str) -> None:
    data_set = read(tmp_path, without(key))
    assert data_set.objects == read(tmp_path, truth((1, 1, HERE))).objects
    assert len(data_set.notes) == 1


def test_boxes_without_masks_measure_no_masks(tmp_path: Path) -> None:
    document = truth((1, 1, HERE))
    for empty in ([], None, [[]], ""):
        document["annotations"][0]["segmentation"] = empty
        data_set = read(tmp_path, document)
        assert not data_set.has_masks
        assert "the annotations have boxes only: masks are not measured" in data_set.notes
    scores = scored(tmp_path, document, results((1, 1, HERE, 0.9)))
    assert scores.masks is None
    assert pytest.approx(1) == scores.boxes.summary.AP


def test_where_some_masks_are_missing_nothing_is_held_against_predictions_there(tmp_path: Path) -> None:
    document = changed(segmentation=[])
    assert "1 of 2 objects have no mask" in "; ".join(read(tmp_path, document).notes)
    scores = scored(tmp_path, document, results((1, 1, HERE, 0.9), (1, 2, FAR, 0.9)))
    assert scores.masks is not None
    assert [one.AP for one in scores.masks.summary.per_class] == [None, pytest.approx(1)]
    assert [one.AP for one in scores.boxes.summary.per_class] == [pytest.approx(1)] * 2


def test_ids_from_0_and_ids_that_are_text(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (2, 2, FAR), n_images=2)
    text_ids = json.loads(
        json.dumps(document).replace('"image_id": 1', '"image_id": "b"').replace('"image_id": 2', '"image_id": "a"')
    )
    text_ids["images"][0]["id"], text_ids["images"][1]["id"] = "b", "a"
    from_0 = json.loads(json.dumps(document))
    for image in from_0["images"]:
        image["id"] -= 1
    for category in from_0["categories"]:
        category["id"] -= 1
    for one in from_0["annotations"]:
        one |= {"id": one["id"] - 1, "image_id": one["image_id"] - 1, "category_id": one["category_id"] - 1}
    found = results((1, 1, HERE, 0.9), (2, 2, FAR, 0.9))
    for variant, ids in ((text_ids, {1: "b", 2: "a"}), (from_0, {1: 0, 2: 1})):
        shift = -1 if variant is from_0 else 0
        own = [one | {"image_id": ids[one["image_id"]], "category_id": one["category_id"] + shift} for one in found]
        scores = scored(tmp_path, variant, own)
        assert pytest.approx(1) == scores.boxes.summary.AP
        assert scores.masks is not None
        assert pytest.approx(1) == scores.masks.summary.AP
    assert "ids of images are text" in "; ".join(read(tmp_path, text_ids).notes)


def test_classes_of_one_name_are_one(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (1, 2, FAR), classes=("car", "car"))
    data_set = read(tmp_path, document)
    assert data_set.classes == {1: "car"}
    assert "classes of the same name were taken as one (once, first in categories[1])" in data_set.notes
    scores = scored(tmp_path, document, results((1, 1, HERE, 0.9), (1, 2, FAR, 0.9)))
    assert pytest.approx(1) == scores.boxes.summary.AP


def test_no_annotations_is_a_data_set_of_absent_things(tmp_path: Path) -> None:
    scores = scored(tmp_path, truth(), results((1, 1, HERE, 0.9)))
    assert scores.boxes.summary.AP is None
    assert pytest.approx(0.5) == scores.presence.IL_FPR
    assert "no annotations" in "; ".join(scores.data_set.notes)


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ({"size": [100, 100], "counts": "zz"}, "a segmentation is no run-length mask"),
        ({"size": [100, 100], "counts": [0, 20000]}, "a run-length mask of 100 x 100 px holds 20000 px in its runs"),
        ({"size": [100, 100], "counts": [0.5, 9999.5]}, "counts of the mask are no whole numbers"),
        ({"size": [100, 100]}, 'the mask has no "counts"'),
        ([["a", "b", 1, 2, 3, 4]], "'a' is no number"),
        ([[10, 10, 30, 30]], "polygon [10, 10, 30, 30] has fewer than three corners"),
        ([10, 10, 30, 10, 30], "polygon [10, 10, 30, 10, 30] isn't x, y, x, y, ..."),
        (7, "segmentation 7 is neither polygons nor run lengths"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "a polygon reaches far beyond its image of 100 x 100 px"),
    ],
)
def test_a_mask_that_cannot_be_read_is_lost_and_its_box_kept(tmp_path: Path, segmentation: Any, why: str) -> None:
    data_set = read(tmp_path, changed(segmentation=segmentation))
    assert data_set.objects == read(tmp_path, changed(segmentation=[])).objects
    [line] = [one for one in data_set.notes if "can't be read" in one]
    assert line.startswith(
        "masks that can't be read were left out, and their boxes kept (once, first in annotations[0]"
    )
    assert why in line


def test_a_mask_without_a_pixel_is_none(tmp_path: Path) -> None:
    data_set = read(tmp_path, changed(segmentation={"size": [100, 100], "counts": [10000]}))
    assert data_set.objects[0].mask is None
    note = "masks without a pixel were left out, and their boxes kept (once, first in annotations[0].segmentation)"
    assert note in data_set.notes


def test_a_box_of_no_extent_without_a_mask_is_no_object(tmp_path: Path) -> None:
    data_set = read(tmp_path, changed(bbox=[0, 0, 0, 0], segmentation=[]))
    assert [one.index for one in data_set.objects] == [1]
    note = "objects with a box of no width and no height were left out (once, first in annotations[0])"
    assert data_set.notes == (note,)


def test_the_root_of_the_classes_is_no_class(tmp_path: Path) -> None:
    document = truth((1, 2, HERE), classes=("vehicles", "car"))
    for category, above in zip(document["categories"], ("none", "vehicles"), strict=True):
        category["supercategory"] = above
    data_set = read(tmp_path, document)
    assert data_set.classes == {2: "car"}
    note = "'vehicles' is only the parent of the other classes, without objects, and was left out (once, first in cat"
    assert data_set.notes[0].startswith(note)
    document["annotations"][0]["category_id"] = 1
    assert read(tmp_path, document).classes == {1: "vehicles", 2: "car"}


@pytest.mark.parametrize(("key", "kind"), [("caption", "captions"), ("segments_info", "panoptic segments")])
def test_a_file_of_another_kind_is_one_line(tmp_path: Path, key: str, kind: str) -> None:
    document = truth() | {"annotations": [{"id": 1, "image_id": 1, key: []}]}
    del document["categories"]
    with pytest.raises(InputError, match=f"truth.json holds {kind}, no boxes; name a file of objects"):
        read(tmp_path, document)


def with_images(*images: dict[str, Any]) -> dict[str, Any]:
    return truth((1, 1, HERE)) | {"images": list(images)}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("", "is empty; export it again"),
        ("{", "truth.json:1:2: this is not JSON"),
        ('{"images": [],\n', "truth.json:2:1: this is not JSON"),
        (
            json.dumps(truth((1, 1, HERE))) + "\ngarbage",
            "truth.json:2: more text follows after the end of the JSON; delete it",
        ),
        ('{"images": NaN}', "NaN stands where a number belongs"),
        ([], 'holds a list, as of predictions; ground truth is an object with "images"'),
        ({}, "holds no COCO data set"),
        ({"images": []}, '"images" is empty'),
        (truth() | {"annotations": None}, '"annotations" is no list'),
        (truth() | {"categories": []}, '"categories" is empty'),
        (truth() | {"annotations": [1]}, "annotations[0]: it is no object"),
        (with_images({"file_name": "a"}), "images[0]: it has no id"),
        (with_images({"id": 1}), "images[0]: it has no file_name; add it"),
        (with_images({"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}), "images[1]: the id 1 is there twice"),
        (with_images({"id": 1, "file_name": "a", "width": "wide", "height": 3}), "'wide' is no number"),
        (
            with_images({"id": 1, "file_name": "a"}),
            "annotations[0]: its image has no width and height, which polygons need",
        ),
        (with_images({"id": 1, "file_name": "../a"}), "images[0]: file_name '../a' leaves the folder of the images"),
        (with_images({"id": 1, "file_name": "."}), "images[0]: file_name '.' is the folder of the images"),
        (with_images({"id": 1, "file_name": "/a"}), "images[0]: file_name '/a' leaves the folder of the images"),
        (with_images({"id": 1, "file_name": "C:\\\\a"}), "leaves the folder of the images; make it a path below it"),
        (
            with_images({"id": 1, "file_name": "\ud83d"}),
            "images[0]: file_name '\\ud83d' is no name that a file can have",
        ),
        (truth(classes=("",)), "categories[0]: it has no name"),
        (truth(classes=("a\ud83d", "a\ud83e")), "categories[0]: name 'a\\ud83d' holds half a character"),
        (without("category_id"), "annotations[0]: it has no category_id; correct it or take the annotation out"),
        (without("image_id"), "annotations[0]: it has no image_id; correct it or take the annotation out"),
        ({"images": [{}]}, 'truth.json has no "annotations"; a COCO data set needs it'),
        (changed(image_id=7), 'annotations[0]: image_id 7 is not among "images"; add it there or take'),
        (changed(category_id=[]), "annotations[0]: category_id [] is no id"),
        (changed(bbox=[1, 2, 3]), "annotations[0]: bbox [1, 2, 3] isn't x, y, width, height"),
        (changed(bbox=[50, 50, 10, -10]), "has a negative side"),
        (changed(bbox="ten"), "isn't x, y, width, height"),
        (changed(bbox=[1, 2, "x", 4]), "'x' is no number"),
        (changed(bbox="[1, 2"), "text that is no list of numbers"),
        (changed(bbox=None, segmentation=None), "annotations[0]: it has neither bbox nor segmentation"),
        (changed(segmentation={"size": [50, 50], "counts": [2500]}), "the mask is 50 x 50 px, its image 100 x 100 px"),
        (
            changed(segmentation={"size": [50, 100], "counts": [5000]}),
            "the mask is 100 x 50 px, its image 100 x 100 px",
        ),
        (changed(bbox=None, segmentation=7), "neither polygons nor run lengths"),
        (changed(area="large"), "annotations[0]: area 'large' is no number; correct it"),
        (changed(iscrowd="so"), "annotations[0]: iscrowd 'so' is no number; correct it"),
    ],
)
def test_what_cannot_be_known_is_refused_by_place(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read(tmp_path, document)
    message = str(raised.value)
    assert says in message
    assert str(tmp_path / "truth.json") in message
    assert "\n" not in message


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file is at"):
        read_data_set(tmp_path / "nothing.json")
    with pytest.raises(InputError, match="can't be read"):
        read_data_set(tmp_path)
    (tmp_path / "latin.json").write_bytes('{"images": "ü"}'.encode("latin-1"))
    with pytest.raises(InputError, match="is not UTF-8; save the file as UTF-8"):
        read_data_set(tmp_path / "latin.json")
    marked = written(tmp_path / "marked.json", "\ufeff" + json.dumps(truth((1, 1, HERE))))
    assert len(read_data_set(marked).objects) == 1
