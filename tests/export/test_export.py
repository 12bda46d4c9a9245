"""Exports: what each format says of a small data set, by hand; splits, selection, and what is lost."""

import base64
import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
import yaml
from click.testing import CliRunner
from labels_read import unpacked

from grounded_seg.cli import main
from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.export.export import export_labels, split_names
from grounded_seg.export.labelstudio import brush_from_run_length
from grounded_seg.export.settings import MASK_FORMS, ExportSettings, LabelFormat, MaskForm, Pictures
from grounded_seg.export.writer import Losses, unique_names
from grounded_seg.geometry.masks import (
    coco_from_run_length,
    mask_from_run_length,
    run_length_from_coco,
    run_length_from_mask,
)
from grounded_seg.records import RunLength

RING = np.zeros((10, 20), np.bool_)
RING[2:7, 4:12] = True
RING[4, 6:8] = False
PARTS = np.zeros((10, 20), np.bool_)
PARTS[1:4, 1:4] = PARTS[6:9, 1:3] = True
CROWD = np.ones((10, 20), np.bool_)


def annotation(number: int, image_id: int, mask: npt.NDArray[np.bool_] | None, **values: Any) -> dict[str, Any]:
    rows, columns = np.nonzero(RING if mask is None else mask)
    x, y = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) + 1 - x, int(rows.max()) + 1 - y
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 2,
        "bbox": [x, y, width, height],
        "area": width * height if mask is None else int(mask.sum()),
        "segmentation": [] if mask is None else coco_from_run_length(run_length_from_mask(mask)),
        "iscrowd": 0,
        "attributes": {"label": "Auto"},
        **values,
    }


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images of equal base names, four labels, one of them a crowd; ids with gaps, annotations out of order."""
    document = {
        "info": {"description": "test"},
        "licenses": [],
        "categories": [{"id": 2, "name": "Vögel"}, {"id": 5, "name": "car"}],
        "images": [
            {"id": 3, "file_name": "a.jpg", "width": 20, "height": 10},
            {"id": 7, "file_name": "sub/a.jpg", "width": 20, "height": 10},
        ],
        "annotations": [
            annotation(1, 7, CROWD, iscrowd=1),
            annotation(2, 3, RING, score=0.9),
            annotation(4, 7, PARTS, score=0.5, category_id=5),
            annotation(9, 3, None, score=0.2),
        ],
    }
    pictures = tmp_path / "in" / "sub"
    pictures.mkdir(parents=True)
    for name in ("a.jpg", "sub/a.jpg"):
        PIL.Image.new("RGB", (20, 10)).save(tmp_path / "in" / name)
    path = tmp_path / "in" / "annotations.json"
    path.write_text(json.dumps(document))
    return path


def exported(source: Path, kind: LabelFormat, **options: Any) -> tuple[Path, Losses]:
    output = source.parent.parent / "out"
    return output, export_labels(ExportSettings(source, output, kind, **options)).losses


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def test_coco_keeps_what_it_knows_and_what_it_does_not(source: Path) -> None:
    output, losses = exported(source, LabelFormat.COCO)
    before, after = read_json(source), read_json(output / "annotations.json")
    order = [2, 9, 1, 4]
    before["annotations"].sort(key=lambda one: order.index(one["id"]))
    assert after == before
    assert not losses.counts


def test_coco_polygons_are_the_same_masks(source: Path) -> None:
    output, losses = exported(source, LabelFormat.COCO, form=MaskForm.BOTH)
    assert (output / "annotations.json").exists()
    polygons = {
        one["id"]: one["segmentation"] for one in read_json(output / "annotations.polygons.json")["annotations"]
    }
    assert len(polygons[4]) == 2
    assert isinstance(polygons[1], dict), "a crowd stays a run length"
    assert (losses.n_masks, losses.iou_least) == (2, 1.0)


def test_yolo(source: Path) -> None:
    output, losses = exported(source, LabelFormat.YOLO)
    content = yaml.safe_load((output / "data.yaml").read_text(encoding="utf-8"))
    # Without `path`, the folders are looked for beside the file, wherever it lies.
    assert content == {"train": "images/train", "val": "images/train", "names": {0: "Vögel", 1: "car"}}
    ring_line, box_line = (output / "labels/train/a.txt").read_text().splitlines()
    outline = np.array(ring_line.split()[1:], np.float64).reshape(-1, 2) * (20, 10)
    canvas = np.zeros((10, 20), np.uint8)
    cv2.fillPoly(canvas, [outline.astype(np.int32)], 1)
    assert np.array_equal(canvas.astype(np.bool_), RING)
    assert np.array_equal(outline.astype(np.int32), np.round(outline))
    assert box_line == "0 0.2 0.2 0.6 0.2 0.6 0.7 0.2 0.7", "readers take it for two corners otherwise"
    assert losses.counts["boxes written as outlines"] == 1
    assert (output / "labels/train/sub__a.txt").read_text().startswith("1 ")
    assert losses.counts["masks whose parts are joined by lines a pixel wide"] == 1
    assert losses.counts["crowd regions left out"] == 1
    assert losses.counts["scores left out"] == 3


def test_yolo_boxes(source: Path) -> None:
    output, losses = exported(source, LabelFormat.YOLO, form=MaskForm.NONE)
    assert (output / "labels/train/a.txt").read_text().splitlines()[0] == "0 0.4 0.45 0.4 0.5"
    assert losses.counts["masks left out"] == 2


def test_yolo_of_boxes_alone_is_boxes_within_the_image(source: Path) -> None:
    document = read_json(source)
    for one in document["annotations"]:
        one.update(segmentation=[], iscrowd=0, bbox=[-0.5, 2, 21, 5])
    source.write_text(json.dumps(document))
    output, losses = exported(source, LabelFormat.YOLO)
    assert (output / "labels/train/a.txt").read_text().splitlines() == ["0 0.5 0.45 1 0.5"] * 2
    assert losses.n_masks == 0


def test_voc_counts_from_one(source: Path) -> None:
    output, losses = exported(source, LabelFormat.VOC)
    root = ElementTree.parse(output / "Annotations/a.xml").getroot()  # noqa: S314  (our own file)
    assert [item.findtext("name") for item in root.findall("object")] == ["Vögel", "Vögel"]
    box = root.find("object/bndbox")
    assert box is not None
    assert [element.text for element in box] == ["5", "3", "12", "7"]
    assert (output / "ImageSets/Main/trainval.txt").read_text().split() == ["a", "sub__a"]
    assert losses.counts["masks left out"] == 2


def test_labelme_masks_are_exact(source: Path) -> None:
    output, _ = exported(source, LabelFormat.LABELME)
    first, second = read_json(output / "a.json")["shapes"]
    assert (first["label"], first["score"], first["attributes"]) == ("Vögel", 0.9, {"label": "Auto"})
    assert first["points"] == [[4, 2], [11, 6]]
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(first["mask"]), np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert np.array_equal(picture > 0, RING[2:7, 4:12])
    assert (second["shape_type"], second["points"]) == ("rectangle", [[4.0, 2.0], [12.0, 7.0]])
    assert read_json(output / "sub/a.json")["imagePath"] == "a.jpg"


def test_labelme_polygons_of_one_object_are_a_group(source: Path) -> None:
    output, losses = exported(source, LabelFormat.LABELME, form=MaskForm.POLYGON)
    shapes = read_json(output / "sub/a.json")["shapes"]
    assert [shape["group_id"] for shape in shapes] == [1, 1]
    assert losses.counts["masks in several polygons with a common group_id"] == 1
    assert (losses.n_masks, losses.iou_least) == (2, 1.0)


@pytest.mark.parametrize("mask", [RING, PARTS, CROWD, ~CROWD, np.eye(300, dtype=np.bool_)], ids=len)
def test_a_brush_unpacks_to_the_mask(mask: npt.NDArray[np.bool_]) -> None:
    pixels = unpacked(brush_from_run_length(run_length_from_mask(mask))).reshape(*mask.shape, 4)
    assert np.array_equal(pixels, np.repeat(mask[..., None] * np.uint8(255), 4, axis=2))


def test_labelstudio(source: Path) -> None:
    output, _ = exported(source, LabelFormat.LABELSTUDIO)
    first, second = read_json(output / "tasks.json")
    assert second["data"]["image"] == "/data/local-files/?d=images/sub/a.jpg"
    brush, rectangle = first["predictions"][0]["result"]
    assert (brush["type"], brush["score"], brush["value"]["brushlabels"]) == ("brushlabels", 0.9, ["Vögel"])
    values = {key: rectangle["value"][key] for key in ("x", "y", "width", "height")}
    assert values == pytest.approx({"x": 20, "y": 20, "width": 40, "height": 50})
    assert first["predictions"][0]["score"] == pytest.approx(0.55)
    config = ElementTree.parse(output / "config.xml").getroot()  # noqa: S314  (our own file)
    assert [label.get("value") for label in config.findall("BrushLabels/Label")] == ["Vögel", "car"]


def test_labelstudio_polygons(source: Path) -> None:
    output, losses = exported(source, LabelFormat.LABELSTUDIO, form=MaskForm.POLYGON)
    regions = read_json(output / "tasks.json")[1]["predictions"][0]["result"]
    assert [sorted(region["value"]["points"])[0] for region in regions] == [[5.0, 10.0], [5.0, 60.0]]
    assert losses.counts["masks in several regions, one for each part"] == 1
    assert (losses.n_masks, losses.iou_least) == (2, 1.0)


@pytest.mark.parametrize("kind", [kind for kind, forms in MASK_FORMS.items() if MaskForm.POLYGON in forms])
def test_what_a_tolerance_costs_is_told(source: Path, kind: LabelFormat) -> None:
    _, losses = exported(source, kind, form=MaskForm.POLYGON, tolerance_px=2.0)
    assert losses.n_masks == 2
    assert 0.3 < losses.iou_least < 1


def test_cvat_brings_its_labels(source: Path) -> None:
    document = read_json(source)
    document["annotations"][2]["attributes"] = {"weather": "rain"}
    source.write_text(json.dumps(document))
    output, _ = exported(source, LabelFormat.CVAT)
    labels = read_json(output / "labels.json")
    assert [label["name"] for label in labels] == ["Vögel", "car"]
    assert [one["name"] for one in labels[1]["attributes"]] == ["label", "score", "weather"]
    assert isinstance(read_json(output / "annotations.json")["annotations"][0]["segmentation"], dict)


def test_fiftyone_cuts_nothing_off_and_meets_no_word_of_its_own(source: Path) -> None:
    document = read_json(source)
    # Rounded, this box begins a pixel right of the mask; the other one only passes its edges.
    document["annotations"][1].update(bbox=[4.6, 2, 7.4, 5], label="?")
    document["annotations"][2]["bbox"] = [1.4, 1.2, 2.9, 8]
    source.write_text(json.dumps(document))
    output, losses = exported(source, LabelFormat.FIFTYONE)
    after = {one["id"]: one for one in read_json(output / "annotations.json")["annotations"]}
    assert after[2]["bbox"] == [4, 2, 8, 5]
    assert (after[2]["attribute_label"], after[2]["attributes"]) == ("?", {"attribute_label": "Auto"})
    assert {"label"}.isdisjoint(after[2])
    assert after[4]["bbox"] == [1.4, 1.2, 2.9, 8]
    assert losses.counts["boxes set to the edges of their masks, which would be cut off"] == 1
    (output / "annotations.json").unlink()
    output.rmdir()
    output, losses = exported(source, LabelFormat.FIFTYONE, form=MaskForm.NONE)
    assert read_json(output / "annotations.json")["annotations"][0]["bbox"] == [4.6, 2, 7.4, 5], "there is no mask"
    assert losses.counts == {"masks left out": 3}


def test_mask_pictures(source: Path) -> None:
    output, losses = exported(source, LabelFormat.MASKS)
    shown = np.asarray(PIL.Image.open(output / "instances/a.jpg.001.png"))
    assert np.array_equal(shown, RING * np.uint8(255))
    classes = np.asarray(PIL.Image.open(output / "classes/sub/a.jpg.png"))
    assert np.array_equal(classes, PARTS * np.uint8(2))
    lines = [json.loads(line) for line in (output / "instances.jsonl").read_text().splitlines()]
    assert lines[1] == {"file": "sub/a.jpg.002.png", "image": "sub/a.jpg", "class": "car", "score": 0.5}
    assert losses.counts["boxes without a mask left out"] == 1


def test_scores_and_classes_select(source: Path) -> None:
    output, _ = exported(source, LabelFormat.COCO, min_score=0.4, classes=("Vögel",))
    after = read_json(output / "annotations.json")
    assert [one["id"] for one in after["annotations"]] == [2, 1], "what has no score is kept"
    assert after["categories"] == [{"id": 2, "name": "Vögel"}]
    assert len(after["images"]) == 2


def test_splits_are_exact_and_repeatable() -> None:
    names = [f"{number}.jpg" for number in range(100)]
    dealt = split_names(names, (80, 10, 10), seed=1)
    assert [list(dealt.values()).count(split) for split in ("train", "valid", "test")] == [80, 10, 10]
    assert split_names(names[::-1], (80, 10, 10), seed=1) == dealt
    assert split_names(names, (80, 10, 10), seed=2) != dealt
    assert split_names(["a"], (80, 20), seed=0) == {"a": "train"}


@pytest.mark.parametrize("pictures", [Pictures.COPY, Pictures.LINK])
@pytest.mark.parametrize("form", list(LabelFormat))
def test_images_go_where_the_format_looks(source: Path, form: LabelFormat, pictures: Pictures) -> None:
    output, _ = exported(source, form, pictures=pictures, images=source.parent, split=(1, 1))
    copies = sorted(path for path in output.rglob("*.jpg") if path.is_file())
    assert len(copies) == 2
    assert all(path.is_symlink() == (pictures is Pictures.LINK) for path in copies)


def test_names_that_meet_get_numbers() -> None:
    assert list(unique_names(["a.jpg", "A.png", "b/a.jpg", "b__a.jpg"], ".txt", flat=True).values()) == [
        "a.jpg",
        "A_2.png",
        "b__a.jpg",
        "b__a_2.jpg",
    ]


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"form": MaskForm.RLE}, "seg is rle, for yolo it must be one of polygon, none"),
        ({"min_score": 2.0}, "min-score"),
        ({"tolerance_px": math.nan}, "tolerance is nan"),
        ({"split": (1,)}, "split"),
        ({"classes": ("dog",)}, "no class dog; it has Vögel, car"),
        ({"pictures": Pictures.COPY}, "--images"),
    ],
)
def test_what_makes_no_sense_is_refused(source: Path, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        exported(source, LabelFormat.YOLO, **options)


@pytest.mark.parametrize("kind", list(LabelFormat))
def test_an_empty_mask_is_no_crash(source: Path, kind: LabelFormat) -> None:
    document = read_json(source)
    empty = coco_from_run_length(run_length_from_mask(np.zeros((10, 20), np.bool_)))
    document["annotations"][1]["segmentation"] = empty
    source.write_text(json.dumps(document))
    for place, form in enumerate(MASK_FORMS[kind]):
        settings = ExportSettings(source, source.parent.parent / f"out-{place}", kind, form)
        report = export_labels(settings)
        assert report.n_labels == 4
        assert report.losses.iou_least > 0.8
        assert any(
            note.startswith("masks without a pixel were left out, and their boxes kept") for note in report.notes
        )
    if kind is LabelFormat.YOLO:
        box = (source.parent.parent / "out-0" / "labels/train/a.txt").read_text().splitlines()[0]
        assert box == "0 0.2 0.2 0.6 0.2 0.6 0.7 0.2 0.7"


def test_what_is_forbidden_is_one_line(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = source.parent.parent / "out"
    output.mkdir()

    def forbidden(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", forbidden)
        with pytest.raises(OutputError, match=r"out can't be written \(Permission denied\)"):
            exported(source, LabelFormat.VOC)
    monkeypatch.setattr(Path, "is_dir", forbidden)
    monkeypatch.setattr(Path, "exists", forbidden)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputError, match=r"annotations.json can't be read \(Permission denied\)"):
        exported(source, LabelFormat.VOC)


def test_an_output_in_use_is_refused(source: Path) -> None:
    exported(source, LabelFormat.YOLO)
    with pytest.raises(UsageError, match="is in use"):
        exported(source, LabelFormat.YOLO)


def test_an_empty_folder_is_filled_even_the_working_folder(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source.parent.parent / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = folder.stat().st_ino
    done = CliRunner().invoke(main, ["export", str(source), "--to", "cvat", "-o", "."])
    assert (done.exit_code, done.stderr) == (0, "")
    assert sorted(path.name for path in Path().iterdir()) == ["annotations.json", "labels.json"]
    assert folder.stat().st_ino == before
    again = CliRunner().invoke(main, ["export", str(source), "--to", "cvat", "-o", "."])
    assert (again.exit_code, "is in use" in again.stderr) == (2, True)


def test_a_failed_export_empties_the_folder_and_a_killed_one_is_no_hindrance(source: Path) -> None:
    output = source.parent.parent / "out"
    (output / ".part").mkdir(parents=True)
    (output / ".part" / "left.json").touch()
    with pytest.raises(UsageError, match="no class dog"):
        exported(source, LabelFormat.COCO, classes=("dog",))
    assert list(output.iterdir()) == []
    (output / ".part").mkdir()
    exported(source, LabelFormat.COCO)
    assert [path.name for path in output.iterdir()] == ["annotations.json"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"images": [{"id": 0, "file_name": "a.jpg", "width": 1, "height": 1}]}, 'image_id 7 is not among "images"'),
        ({"categories": []}, "it lists no categories"),
        ({"images": []}, "lists no images"),
    ],
)
def test_a_broken_file_points_to_validate(source: Path, change: dict[str, Any], problem: str) -> None:
    source.write_text(json.dumps({**read_json(source), **change}))
    with pytest.raises(InputError, match=f"{problem}.*validate"):
        exported(source, LabelFormat.COCO)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../a.jpg", r"images\[0\]: file_name '../a.jpg' leaves the folder of the images"),
        ("./.", r"images\[0\]: file_name './.' is the folder of the images"),
        ("/a.jpg", r"images\[0\]: file_name '/a.jpg' leaves the folder of the images"),
        ("sub/a.jpg", "lists images whose file_name is there twice, such as 'sub/a.jpg'"),
    ],
)
def test_names_that_lead_elsewhere_or_meet_are_refused(source: Path, name: str, says: str) -> None:
    document = read_json(source)
    document["images"][0]["file_name"] = name
    source.write_text(json.dumps(document))
    with pytest.raises(InputError, match=says):
        exported(source, LabelFormat.LABELME)


def test_an_export_that_fails_leaves_nothing(source: Path) -> None:
    document = read_json(source)
    document["annotations"][0]["segmentation"] = {"size": [20, 10], "counts": [200]}
    source.write_text(json.dumps(document))
    before = sorted(source.parent.parent.iterdir())
    with pytest.raises(InputError, match=r"annotations\[0\]: the mask is 10 x 20 px, its image 20 x 10 px; .*validate"):
        exported(source, LabelFormat.LABELSTUDIO)
    assert sorted(source.parent.parent.iterdir()) == before


def test_the_command_says_what_was_lost(source: Path) -> None:
    output = source.parent.parent / "out"
    done = CliRunner().invoke(main, ["export", str(source), "--to", "yolo", "-o", str(output), "--split", "50/50"])
    assert done.exit_code == 0
    assert done.stdout.startswith(f"4 labels of 2 images (1 train, 1 valid): {output}\n2 masks as polygons: IoU")
    # A loss is part of the result: it is told where nobody looks at stderr, too.
    assert "\nyolo: 1 crowd regions left out\n" in done.stdout
    assert done.stderr == ""


def test_a_run_folder_is_a_source(source: Path) -> None:
    assert exported(source.parent, LabelFormat.COCO)[0].exists()


def test_validate_command_exits_with_three(source: Path, tmp_path: Path) -> None:
    assert CliRunner().invoke(main, ["validate", str(source)]).exit_code == 0
    source.write_text(source.read_text().replace('"iscrowd": 0', '"iscrowd": "many"'))
    done = CliRunner().invoke(main, ["validate", str(source)])
    assert done.exit_code == 3
    assert "error iscrowd-wrong: annotations[1].iscrowd" in done.stdout
    done = CliRunner().invoke(main, ["validate", str(source), "--fix", str(tmp_path / "fixed.json")])
    assert done.exit_code == 0
    assert "repaired annotations[1]: iscrowd 'many' became 0" in done.stdout


def run_length(annotation: dict[str, Any]) -> RunLength:
    return run_length_from_coco(annotation["segmentation"])


def test_masks_survive_every_byte(source: Path) -> None:
    output, _ = exported(source, LabelFormat.COCO)
    first = read_json(output / "annotations.json")["annotations"][0]
    assert np.array_equal(mask_from_run_length(run_length(first)), RING)


def test_a_format_has_to_be_named(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(main, ["export", str(tmp_path), "-o", str(tmp_path / "out")])
    assert outcome.exit_code == 2
    assert "Missing option '--to'. Choose from: coco, yolo" in " ".join(outcome.stderr.split())


def test_an_unfinished_run_is_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text('{"exit_code": null}')
    outcome = CliRunner().invoke(main, ["export", str(tmp_path), "--to", "yolo", "-o", str(tmp_path / "out")])
    assert outcome.exit_code == 3
    assert "isn't finished; finish it with run --resume, then export it" in outcome.stderr
