"""Results as tables: what `annotations.json` says, row by row, for pandas and any reader of Parquet."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pyarrow
import pytest
from pyarrow import parquet

from grounded_seg.coco import parquet as tables
from grounded_seg.coco.parquet import check_can_write_tables, write_results
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.write import annotation_from_instance, journal_line
from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_coco, run_length_from_mask
from grounded_seg.records import Detection, ImageResult, ImageSize, ImageSkipped, Instance

CLASSES, OF_PROMPT = ["car", "dog"], {"red car": "car", "dog": "dog"}
SIZE = ImageSize(40, 30)


def instance(number: int, prompt: str = "red car", *, masked: bool = True) -> Instance:
    mask = np.zeros((30, 40), np.bool_)
    mask[3 : 5 + number, 2:9] = True
    found = Detection("a ß thing", prompt, (1.25, 2.0, 9.5, 8 + number), 0.1 + number / 7)
    return Instance(found, run_length_from_mask(mask) if masked else None, 0.5 if masked else None, number == 2)


def lines() -> list[JournalLine]:
    return [
        journal_line("a/1.png", ImageResult(Path("1"), SIZE, (instance(0), instance(1, "dog")))),
        journal_line("a/2.png", ImageSkipped(Path("2"), "it is broken", "ImageError")),
        journal_line("b.png", ImageResult(Path("b"), SIZE, ())),
        journal_line("c.png", ImageResult(Path("c"), SIZE, (instance(2), instance(3, masked=False)))),
    ]


def written(folder: Path, journal: Iterator[JournalLine] | list[JournalLine]) -> tuple[Any, Any, dict[str, Any]]:
    """Both tables and the COCO file."""
    paths = (folder / "results.parquet", folder / "images.parquet")
    write_results(journal, CLASSES, OF_PROMPT, folder / "annotations.json", paths)
    coco = json.loads((folder / "annotations.json").read_text())
    return *(parquet.read_table(path) for path in paths), coco


def test_a_row_is_an_annotation(tmp_path: Path) -> None:
    instances, _, coco = written(tmp_path, lines())
    images = {one["id"]: one for one in coco["images"]}
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert instances.num_rows == len(coco["annotations"]) == 4
    for row, one in zip(instances.to_pylist(), coco["annotations"], strict=True):
        image, mask, attributes = images[one["image_id"]], one["segmentation"] or None, one["attributes"]
        assert row == {
            "image_id": image["id"],
            "file_name": image["file_name"],
            "width": image["width"],
            "height": image["height"],
            "annotation_id": one["id"],
            "category_id": one["category_id"],
            "category": names[one["category_id"]],
            "prompt": attributes["prompt"],
            "label": attributes["label"],
            "score": one["score"],
            "detector_score": attributes["detector_score"],
            "mask_score": attributes["mask_score"],
            **dict(zip((f"bbox_{side}" for side in "xywh"), one["bbox"], strict=True)),
            **dict(zip((f"detector_bbox_{side}" for side in "xywh"), one["detector_bbox"], strict=True)),
            "area": one["area"],
            "rle_height": mask and mask["size"][0],
            "rle_width": mask and mask["size"][1],
            "rle_counts": mask and mask["counts"],
            "leaves_box": attributes.get("leaves_box", False),
            "iscrowd": 0,
        }
    assert [row["leaves_box"] for row in instances.to_pylist()] == [False, False, True, False]


def test_each_image_has_a_row_of_its_own(tmp_path: Path) -> None:
    _, images, _ = written(tmp_path, lines())
    columns = ("image_id", "file_name", "width", "height", "status", "n_instances", "reason", "error")
    assert images.column_names == list(columns)
    assert [tuple(row.values()) for row in images.to_pylist()] == [
        (1, "a/1.png", 40, 30, "done", 2, None, None),
        (None, "a/2.png", None, None, "skipped", 0, "it is broken", "ImageError"),
        (2, "b.png", 40, 30, "done", 0, None, None),
        (3, "c.png", 40, 30, "done", 2, None, None),
    ]


def test_pandas_reads_them(tmp_path: Path) -> None:
    written(tmp_path, lines())
    frame = pandas.read_parquet(tmp_path / "results.parquet")
    assert frame.groupby("category").size().to_dict() == {"car": 3, "dog": 1}
    row = frame.iloc[1]
    coco_mask = {"size": [int(row.rle_height), int(row.rle_width)], "counts": row.rle_counts}
    assert mask_from_run_length(run_length_from_coco(coco_mask)).sum() == row.area == 21
    images = pandas.read_parquet(tmp_path / "images.parquet")
    assert images[images.status == "skipped"].file_name.tolist() == ["a/2.png"]
    assert images.merge(frame, on="image_id").shape[0] == 4


def test_parts_change_nothing_but_the_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, images, _ = written(tmp_path, lines() * 5)
    monkeypatch.setattr(tables, "_MAX_ROWS", 3)
    in_parts, images_in_parts, _ = written(tmp_path, lines() * 5)
    assert in_parts.equals(whole)
    assert images_in_parts.equals(images)
    assert parquet.ParquetFile(tmp_path / "results.parquet").metadata.num_row_groups == 7
    monkeypatch.setattr(tables, "_MAX_ROWS", 100)
    monkeypatch.setattr(tables, "_MAX_BYTES", 30)
    by_bytes, *_ = written(tmp_path, lines() * 5)
    assert by_bytes.equals(whole)
    assert 3 < parquet.ParquetFile(tmp_path / "results.parquet").metadata.num_row_groups < 20


def test_same_lines_give_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for _ in range(2):
        written(tmp_path, lines())
        files.append([(tmp_path / name).read_bytes() for name in ("results.parquet", "images.parquet")])
    assert files[0] == files[1]


def test_no_lines_give_empty_tables_with_their_columns(tmp_path: Path) -> None:
    instances, images, _ = written(tmp_path, [])
    assert (instances.num_rows, images.num_rows) == (0, 0)
    assert instances.schema.field("score").type == pyarrow.float64()
    about = json.loads(instances.schema.metadata[b"grounded_seg"])
    assert about["categories"] == {"1": "car", "2": "dog"}


def test_what_other_programs_put_into_a_journal_is_taken(tmp_path: Path) -> None:
    crowd = annotation_from_instance(instance(0))
    plain: Any = {**crowd, "iscrowd": 1, "segmentation": {"size": [30, 40], "counts": [3, 5, 1192]}}
    polygon: Any = {**crowd, "segmentation": [[0, 0, 4, 0, 4, 4]]}
    del polygon["detector_bbox"], polygon["score"]
    line = lines()[0]
    line["instances"], line["file_name"] = [plain, polygon], os.fsdecode(b"caf\xe9.png")
    first, second = written(tmp_path, [line])[0].to_pylist()
    mask = run_length_from_coco({"size": [30, 40], "counts": first["rle_counts"]})
    assert (int(mask_from_run_length(mask).sum()), first["iscrowd"]) == (5, 1)
    assert first["file_name"] == "caf\\udce9.png"
    assert (second["rle_counts"], second["rle_height"], second["detector_bbox_x"], second["score"]) == (None,) * 4


@pytest.mark.parametrize("there", [False, True])
def test_files_are_there_whole_or_not_at_all(tmp_path: Path, there: bool) -> None:
    if there:
        written(tmp_path, lines())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def broken() -> Iterator[JournalLine]:
        yield from lines()
        raise InputError("a damaged line")

    with pytest.raises(InputError, match="a damaged line"):
        written(tmp_path, broken())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert len(before) == (3 if there else 0)


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MAX_ROWS", 1)
    (tmp_path / ".results.parquet.part").symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"can't be written \(No space left on device\)"):
        written(tmp_path, lines())
    assert list(tmp_path.iterdir()) == []


def test_without_pyarrow_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    check_can_write_tables()
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"--results parquet needs pyarrow; install it with `pip install 'grounded"):
        check_can_write_tables()
