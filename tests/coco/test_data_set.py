"""COCO as the world writes it: read rightly and said so, or refused by file, place and remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, results, scored, truth, written
from paths import unpacked

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.dataset_reader import read_data_set
from grounded_seg.coco.predictions import PredictionFile
from grounded_seg.coco.predictions_reader import read_predictions
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px
from grounded_seg.scoring.metrics import evaluate

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
        (changed(bbox=["10", "10.0", "40", "40"]), ""),
        (
            changed(segmentation=json.dumps(truth((1, 1, HERE))["annotations"][0]["segmentation"])),
            "segmentations written",
        ),
        (changed(segmentation=[10, 10, 50, 10, 50, 50, 10, 50]), "not in a list of parts"),
        (changed(segmentation=[[10, 10, 50, 10, 50, 50, 10, 50], [1, 2, 3, 4]]), "fewer than three corners"),
        (changed(segmentation={"size": [100, 100], "counts": [1010, *[40, 60] * 39, 40, 5050]}), ""),
        (changed(area=None), "objects without an area were measured (once, first in annotations[0])"),
        (changed(image_id="1", category_id=1.0), ""),
        (changed(bbox=None), "objects without a bbox got their mask's"),
        (changed(iscrowd=False), "iscrowd written as true or false was read as 1 or 0 (once, first in annotations[0])"),
    ],
)
def test_odd_forms_of_an_object_are_read_and_said(tmp_path: Path, document: Any, note: str) -> None:
    data_set = read(tmp_path, document)
    assert data_set.objects == read(tmp_path, truth((1, 1, HERE), (1, 2, FAR))).objects
    assert (note in "; ".join(data_set.notes)) if note else (data_set.notes == ())


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
    assert bool(data_set.notes) == (key != "id")


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
        (with_images({"file_name": "a"}), "images[0]: None is no id"),
        (with_images({"id": 1}), "images[0]: it has no file_name; add it"),
        (with_images({"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}), "images[1]: the id 1 is there twice"),
        (with_images({"id": 1, "file_name": "a", "width": "wide", "height": 3}), "'wide' is no number"),
        (
            with_images({"id": 1, "file_name": "a"}),
            "annotations[0]: its image has no width and height, which polygons need",
        ),
        (truth(classes=("",)), "categories[0]: it has no name"),
        (changed(image_id=7), 'annotations[0]: image_id 7 is not among "images"; add it there or take'),
        (changed(category_id=[]), "annotations[0]: category_id [] is no id"),
        (changed(bbox=[1, 2, 3]), "annotations[0]: bbox [1, 2, 3] isn't x, y, width, height"),
        (changed(bbox=[50, 50, 10, -10]), "has a negative side"),
        (changed(bbox="ten"), "isn't x, y, width, height"),
        (changed(bbox=[1, 2, "x", 4]), "'x' is no number"),
        (changed(bbox="[1, 2"), "text that is no list of numbers"),
        (changed(bbox=None, segmentation=None), "annotations[0]: it has neither bbox nor segmentation"),
        (changed(segmentation={"size": [50, 50], "counts": [2500]}), "the mask is 50 x 50 px, its image 100 x 100 px"),
        (changed(segmentation={"size": [100, 100], "counts": "zz"}), "annotations[0]: a "),
        (changed(segmentation=[["a", "b"]]), "'a' is no number"),
        (changed(segmentation=7), "neither polygons nor run lengths"),
        (changed(segmentation=[[0, 0, 1e9, 0, 1e9, 1e9]]), "a polygon reaches far beyond its image of 100 x 100 px"),
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
    with pytest.raises(InputError, match="is no UTF-8; save the file as UTF-8"):
        read_data_set(tmp_path / "latin.json")
    marked = written(tmp_path / "marked.json", "\ufeff" + json.dumps(truth((1, 1, HERE))))
    assert len(read_data_set(marked).objects) == 1


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_the_clean_form_scores_as_the_file_does(kind: Any, tmp_path: Path) -> None:
    photos = unpacked("photos/instances.json")
    document = json.loads(photos.read_text())
    data_set = read_data_set(photos)
    found = [
        {"image_id": one["image_id"], "category_id": one["category_id"], "score": 0.5, kind_key: one[kind_key]}
        for number, one in enumerate(document["annotations"])
        for kind_key in [{"bbox": "bbox", "segm": "segmentation"}[kind]]
        if number % 3
    ]
    assert evaluate(data_set.document(kind), found, kind) == evaluate(document, found, kind)
    assert any(one.is_crowd for one in data_set.objects)


def read_found(folder: Path, document: Any, name: str = "found.json", **options: Any) -> PredictionFile:
    return read_predictions(written(folder / name, document), read(folder, truth((1, 1, HERE), n_images=2)), **options)


def run_file(**change: Any) -> dict[str, Any]:
    """What a run writes: its own ids, names that lead to ours."""
    annotation = {
        "id": 1,
        "image_id": 5,
        "category_id": 9,
        "bbox": [11, 11, 38, 38],
        "detector_bbox": list(HERE),
        "segmentation": [],
        "score": 0.5,
        "attributes": {"prompt": "car"},
    }
    images = [{"id": 5, "file_name": "1.png"}, {"id": 6, "file_name": "2.png"}]
    return {"images": images, "categories": [{"id": 9, "name": "car"}], "annotations": [annotation | change]}


def test_a_run_is_matched_by_names(tmp_path: Path) -> None:
    file = read_found(tmp_path, run_file())
    [one] = file.predictions
    assert (one.image_id, one.category_id, one.box_xywh, one.prompt) == (1, 1, HERE, "car")
    assert file.asked == {"car"}
    assert file.notes == ()


def test_a_journal_is_matched_by_names(tmp_path: Path) -> None:
    instance = run_file()["annotations"][0] | {"attributes": {"prompt": "red one"}}
    lines = [
        {"file_name": "sub/1.png", "status": "done", "instances": [instance]},
        {"file_name": "2.png", "status": "skipped", "instances": []},
    ]
    text = "\n".join(map(json.dumps, lines))
    file = read_found(tmp_path, text, "results.jsonl", class_by_prompt={"red one": "car"})
    [one] = file.predictions
    assert (one.image_id, one.category_id, one.prompt) == (1, 1, "red one")
    assert "1 of 2 images have no results, such as '2.png'" in file.notes[0]
    with pytest.raises(InputError, match=r"results.jsonl:1: this is no line of a run's journal"):
        read_found(tmp_path, "{}", "results.jsonl")
    with pytest.raises(InputError, match=r"results.jsonl:1: .*its instances are no list of objects"):
        read_found(tmp_path, '{"file_name": "1.png", "status": "done", "instances": [7]}', "results.jsonl")
    with pytest.raises(InputError, match="isn't among the --prompts"):
        read_found(tmp_path, text, "results.jsonl", class_by_prompt={"other": "car"})


def test_a_journal_whose_run_was_killed_is_read_up_to_there(tmp_path: Path) -> None:
    lines = [{"file_name": f"{number}.png", "status": "done", "instances": []} for number in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file = read_found(tmp_path, text[:-9], "results.jsonl")
    assert "the last line is cut off and was left out" in file.notes[0]
    assert "1 of 2 images have no results, such as '2.png'" in file.notes[1]
    assert read_found(tmp_path, text[:-1], "results.jsonl").notes == ()


def test_a_box_without_mask_is_filled_within_its_image(tmp_path: Path) -> None:
    document = changed(segmentation=[], bbox=[60, 50, 1e12, 1e12], area=1)
    masks = [one["segmentation"] for one in read(tmp_path, document).document("segm")["annotations"]]
    assert area_px(masks[0]) == 40 * 50


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "holds no predictions; name a run's annotations.json"),
        ([{"image_id": 9, "category_id": 1, "bbox": list(HERE), "score": 1}], "[0]: it names no image of truth.json"),
        ([{"image_id": 1, "category_id": 1, "bbox": list(HERE)}], "[0]: None is no number for score"),
        ([{"image_id": 1, "category_id": 1, "score": 1}], "[0]: it has neither bbox nor segmentation"),
        ([7], "[0]: it names no image"),
        (run_file(image_id=99), "annotations[0]: its image_id or category_id isn't listed"),
        (run_file() | {"images": [{"id": 5, "file_name": "other.png"}]}, "is about none of the images of"),
        (
            run_file() | {"images": [{"id": 5, "file_name": "a/1.png"}, {"id": 6, "file_name": "b/1.png"}]},
            "'a/1.png' and 'b/1.png' could both be the data set's '1.png'",
        ),
        (run_file() | {"images": [{"id": 5}]}, "an image lacks its id or file_name"),
    ],
)
def test_predictions_that_mean_nothing_are_refused(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read_found(tmp_path, document)
    assert says in str(raised.value)
    assert str(tmp_path / "found.json") in str(raised.value)


def test_predictions_of_unknown_classes_are_left_out_and_said(tmp_path: Path) -> None:
    file = read_found(tmp_path, results((1, 7, HERE, 0.9), (1, 1, HERE, 0.9)))
    assert len(file.predictions) == 1
    assert "classes that truth.json lacks were left out (once, first in [0])" in file.notes[0]
