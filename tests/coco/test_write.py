"""COCO files: every key of the contract by hand, ids, bytes, and what pycocotools reads back."""

import contextlib
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools.coco import COCO

import grounded_seg
from grounded_seg.coco.schema import JournalLine, xywh_from_xyxy, xyxy_from_xywh
from grounded_seg.coco.write import annotation_from_instance, document_from_lines, journal_line, write_annotations
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_coco, run_length_from_mask
from grounded_seg.records import BoxXyxy, Detection, ImageResult, ImageSize, ImageSkipped, Instance

SIZE = ImageSize(width=20, height=10)
FOOT = np.zeros((10, 20), dtype=np.bool_)
FOOT[2:8, 3:5] = True
FOOT[6:8, 3:9] = True


def instance(prompt: str = "red car", with_mask: bool = True, score: float = 0.87654321) -> Instance:
    detection = Detection(label="Auto", prompt=prompt, box_xyxy=(2.5, 1.25, 10.12345, 8.0), score=score)
    mask = run_length_from_mask(FOOT) if with_mask else None
    return Instance(detection=detection, mask=mask, mask_score=0.5 if with_mask else None)


def done(file_name: str, *instances: Instance) -> JournalLine:
    return journal_line(file_name, ImageResult(path=Path("/in") / file_name, size=SIZE, instances=instances))


def skipped(file_name: str) -> JournalLine:
    return journal_line(file_name, ImageSkipped(path=Path(file_name), reason="it is empty", error="ImageError"))


def write_and_read(folder: Path, lines: Sequence[JournalLine], categories: Sequence[str], **options: Any) -> Any:
    write_annotations(lines, categories, folder / "annotations.json", **options)
    return json.loads((folder / "annotations.json").read_text())


def test_boxes_change_form_and_back() -> None:
    assert xywh_from_xyxy((1.0, 2.0, 4.0, 8.0)) == (1.0, 2.0, 3.0, 6.0)
    assert xyxy_from_xywh((1.0, 2.0, 3.0, 6.0)) == (1.0, 2.0, 4.0, 8.0)


@given(st.tuples(*[st.integers(-1000, 1000).map(float)] * 4))
def test_box_forms_round_trip(box_xyxy: BoxXyxy) -> None:
    assert xyxy_from_xywh(xywh_from_xyxy(box_xyxy)) == box_xyxy


def test_an_annotation_with_a_mask() -> None:
    annotation = annotation_from_instance(instance())
    assert annotation.pop("segmentation") == {"size": [10, 20], "counts": run_length_from_mask(FOOT).counts.decode()}  # type: ignore[misc]
    assert annotation == {
        "bbox": [3.0, 2.0, 6.0, 6.0],
        "area": 6 * 2 + 2 * 4,
        "iscrowd": 0,
        "score": 0.876543,
        "detector_bbox": [2.5, 1.25, 7.623, 6.75],
        "attributes": {"label": "Auto", "prompt": "red car", "detector_score": 0.876543, "mask_score": 0.5},
    }


def test_a_probability_leaves_the_detectors_own_score_beside_it() -> None:
    detection = Detection("Auto", "red car", (0.0, 0.0, 1.0, 1.0), score=0.25, detector_score=0.87654321)
    annotation = annotation_from_instance(Instance(detection, None, None))
    assert (annotation["score"], annotation["attributes"]["detector_score"]) == (0.25, 0.876543)


def test_a_mask_that_leaves_its_box_is_marked() -> None:
    detection = Detection(label="car", prompt="car", box_xyxy=(0.0, 0.0, 1.0, 1.0), score=0.5)
    mask = run_length_from_mask(np.ones((2, 2), dtype=np.bool_))
    marks = [
        annotation_from_instance(Instance(detection, mask, 0.5, leaves_box))["attributes"].get("leaves_box")
        for leaves_box in (True, False)
    ]
    assert marks == [True, None]


def test_an_annotation_without_a_mask() -> None:
    assert annotation_from_instance(instance(with_mask=False)) == {
        "bbox": [2.5, 1.25, 7.623, 6.75],
        "area": 51.458,
        "segmentation": [],
        "iscrowd": 0,
        "score": 0.876543,
        "detector_bbox": [2.5, 1.25, 7.623, 6.75],
        "attributes": {"label": "Auto", "prompt": "red car", "detector_score": 0.876543, "mask_score": None},
    }


def test_numpy_numbers_and_negative_zero_are_written_as_plain_numbers() -> None:
    box = tuple(np.array([-0.0, -0.00001, 4, 4], dtype=np.float32))
    detection = Detection(label="a", prompt="a", box_xyxy=box, score=np.float32(0.5))  # type: ignore[arg-type]
    annotation = annotation_from_instance(Instance(detection=detection, mask=None, mask_score=None))
    assert json.dumps(annotation["bbox"]) == "[0.0, 0.0, 4.0, 4.0]"
    assert json.dumps(annotation["score"]) == "0.5"


def test_journal_lines_have_every_key() -> None:
    assert done("a/b.png") == {
        "file_name": "a/b.png",
        "status": "done",
        "width": 20,
        "height": 10,
        "instances": [],
        "reason": None,
        "error": None,
    }
    assert skipped("c.png") == {
        "file_name": "c.png",
        "status": "skipped",
        "width": None,
        "height": None,
        "instances": [],
        "reason": "it is empty",
        "error": "ImageError",
    }
    assert done("a.png", instance())["instances"] == [annotation_from_instance(instance())]


def test_a_whole_document(tmp_path: Path) -> None:
    lines = [
        done("a.png", instance("dog"), instance("red car")),
        skipped("b.png"),
        done("c.png"),
        done("sub/d.png", instance("red car", with_mask=False)),
    ]
    document = write_and_read(tmp_path, lines, ["red car", "dog"])
    assert list(document) == ["info", "licenses", "categories", "images", "annotations"]
    assert document["info"] == {"description": "Made by grounded-seg", "version": grounded_seg.__version__}
    assert document["licenses"] == []
    assert document["categories"] == [{"id": 1, "name": "red car"}, {"id": 2, "name": "dog"}]
    assert document["images"] == [
        {"id": 1, "file_name": "a.png", "width": 20, "height": 10},
        {"id": 2, "file_name": "c.png", "width": 20, "height": 10},
        {"id": 3, "file_name": "sub/d.png", "width": 20, "height": 10},
    ]
    ids = [(one["id"], one["image_id"], one["category_id"]) for one in document["annotations"]]
    assert ids == [(1, 1, 2), (2, 1, 1), (3, 3, 1)]
    assert document["annotations"][0] == {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        **annotation_from_instance(instance("dog")),
    }


def test_the_file_is_the_document_in_memory(tmp_path: Path) -> None:
    lines = [done(f"{number}.png", *[instance()] * number) for number in range(4)]
    assert write_and_read(tmp_path, lines, ["red car"]) == document_from_lines(lines, ["red car"])


@pytest.mark.parametrize("lines", [[], [skipped("a.png")], [done("a.png")]])
def test_nothing_found_is_a_valid_file(tmp_path: Path, lines: list[JournalLine]) -> None:
    document = write_and_read(tmp_path, lines, ["red car"])
    assert document["annotations"] == []
    assert document == document_from_lines(lines, ["red car"])


def test_several_prompts_may_share_a_category(tmp_path: Path) -> None:
    lines = [done("a.png", instance("sedan"), instance("dog"), instance("truck"))]
    classes = {"sedan": "vehicle", "truck": "vehicle", "dog": "animal"}
    document = write_and_read(tmp_path, lines, ["animal", "vehicle"], category_of_prompt=classes)
    assert [one["category_id"] for one in document["annotations"]] == [2, 1, 2]
    assert [one["attributes"]["prompt"] for one in document["annotations"]] == ["sedan", "dog", "truck"]


def test_lines_survive_the_journal(tmp_path: Path) -> None:
    lines = [done("ü \udcff.png", instance("rotes Auto 红"), instance("rotes Auto 红", with_mask=False))]
    read_back = [json.loads(json.dumps(line)) for line in lines]
    assert read_back == lines
    assert write_and_read(tmp_path, read_back, ["rotes Auto 红"]) == document_from_lines(lines, ["rotes Auto 红"])


def test_the_same_lines_give_the_same_bytes_in_ascii(tmp_path: Path) -> None:
    lines = [done("ü.png", instance("红"), instance("红"))]
    for name in ("one.json", "two.json"):
        write_annotations(iter(lines), ["红"], tmp_path / name)
    content = (tmp_path / "one.json").read_bytes()
    assert content == (tmp_path / "two.json").read_bytes()
    assert content.isascii()
    # One record a line, so that a change shows as one line.
    assert [line[:8] for line in content.splitlines()[-5:]] == [b'"annotat', b'{"id": 1', b'{"id": 2', b"]", b"}"]


def test_the_lines_are_not_changed(tmp_path: Path) -> None:
    lines = [done("a.png", instance())]
    write_annotations(lines, ["red car"], tmp_path / "a.json")
    assert lines == [done("a.png", instance())]


def test_a_prompt_without_a_category_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    destination = tmp_path / "annotations.json"
    destination.write_text("old")
    with pytest.raises(InputError, match=r"b.png: prompt 'cat' belongs to none of the categories red car"):
        write_annotations([done("a.png", instance()), done("b.png", instance("cat"))], ["red car"], destination)
    with pytest.raises(InputError, match="prompt 'red car'"):
        write_annotations([done("a.png", instance())], ["vehicle"], destination, {"red car": "boat"})
    assert destination.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.json"]


def test_a_source_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    destination = tmp_path / "annotations.json"
    destination.write_text("old")

    def lines() -> Iterator[JournalLine]:
        yield done("a.png")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_annotations(lines(), ["red car"], destination)
    assert destination.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.json"]


def test_a_category_named_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="named twice"):
        document_from_lines([], ["car", "car"])


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_annotations([done("a.png", instance(score=float("nan")))], ["red car"], tmp_path / "a.json")


def test_pycocotools_reads_it(tmp_path: Path) -> None:
    write_annotations([done("a.png", instance()), done("b.png")], ["red car"], tmp_path / "a.json")
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO(str(tmp_path / "a.json"))
    [annotation] = index.loadAnns(index.getAnnIds(catIds=index.getCatIds(catNms=["red car"])))
    decoded = mask_from_run_length(run_length_from_coco(index.annToRLE(annotation)))
    assert np.array_equal(decoded, FOOT)
    assert annotation["area"] == FOOT.sum()
    assert len(index.getImgIds()) == 2
