"""What an export can't take along: it survives, or is counted and said."""

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner

from grounded_seg.cli import main
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import MASK_FORMS, ExportSettings, LabelFormat, MaskForm
from grounded_seg.export.writer import Losses
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_mask

BLOCK = np.zeros((20, 30), np.bool_)
BLOCK[4:14, 5:25] = True
TEETH = BLOCK.copy()
TEETH[4:9, 6:25:2] = False
IN_COCO = (LabelFormat.COCO, LabelFormat.CVAT, LabelFormat.FIFTYONE)
WITH_ATTRIBUTES = (*IN_COCO, LabelFormat.LABELME, LabelFormat.LABELSTUDIO)


def annotation(number: int, image_id: int, mask: npt.NDArray[np.bool_], **values: Any) -> dict[str, Any]:
    return {
        "id": number,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [5, 4, 20, 10],
        "area": int(mask.sum()),
        "segmentation": coco_from_run_length(run_length_from_mask(mask)),
        "iscrowd": 0,
        **values,
    }


@pytest.fixture
def document() -> dict[str, Any]:
    return {
        "info": {"description": "test"},
        "licenses": [{"id": 1, "name": "CC0"}],
        "videos": [{"id": 1}, {"id": 2}],
        "dataset": "street",
        "categories": [{"id": 1, "name": "car", "supercategory": "vehicle"}],
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 30, "height": 20, "license": 1},
            {"id": 2, "file_name": "sub/a.jpg", "width": 30, "height": 20, "license": None},
        ],
        "annotations": [
            annotation(1, 1, BLOCK, attributes={"label": "Auto"}, detector_bbox=[5, 4, 20, 10]),
            annotation(2, 2, TEETH, attributes={}),
        ],
    }


def exported(folder: Path, document: Any, kind: LabelFormat, **options: Any) -> tuple[Path, Losses]:
    source, output = folder / "annotations.json", folder / "out"
    source.write_text(json.dumps(document))
    return output, export_labels(ExportSettings(source, output, kind, **options)).losses


@pytest.mark.parametrize("kind", IN_COCO)
def test_every_section_of_a_coco_file_survives(tmp_path: Path, document: dict[str, Any], kind: LabelFormat) -> None:
    output, losses = exported(tmp_path, document, kind)
    written = json.loads((output / "annotations.json").read_text())
    if kind is LabelFormat.FIFTYONE:
        document["annotations"][0]["attributes"] = {"attribute_label": "Auto"}
    assert written == document
    assert not losses.counts


@pytest.mark.parametrize("section", [{"description": "no list"}, "text", 7, None])
@pytest.mark.parametrize("name", ["info", "licenses", "videos"])
def test_sections_of_another_form_survive(tmp_path: Path, document: dict[str, Any], name: str, section: Any) -> None:
    document[name] = section
    output, _ = exported(tmp_path, document, LabelFormat.COCO)
    assert json.loads((output / "annotations.json").read_text()) == document


@pytest.mark.parametrize("kind", [kind for kind in LabelFormat if kind not in IN_COCO])
def test_what_other_formats_have_no_word_for_is_counted(
    tmp_path: Path, document: dict[str, Any], kind: LabelFormat
) -> None:
    _, losses = exported(tmp_path, document, kind)
    counts = {what: n for what, n in losses.counts.items() if not what.startswith(("image names", "masks left out"))}
    assert counts == {
        "licenses left out": 1,
        "videos left out": 2,
        "dataset left out": 1,
        "classes' supercategory left out": 1,
        "images' license left out": 1,
        "labels' detector_bbox left out": 1,
        **({} if kind in WITH_ATTRIBUTES else {"labels' attributes left out": 1}),
    }


@pytest.mark.parametrize("kind", [kind for kind, forms in MASK_FORMS.items() if MaskForm.NONE in forms])
def test_masks_that_are_left_out_are_counted(tmp_path: Path, document: dict[str, Any], kind: LabelFormat) -> None:
    _, losses = exported(tmp_path, document, kind, form=MaskForm.NONE)
    assert losses.counts["masks left out"] == 2


@pytest.mark.parametrize("kind", IN_COCO)
def test_empty_masks_as_polygons_are_counted(tmp_path: Path, document: dict[str, Any], kind: LabelFormat) -> None:
    document["annotations"][0] = annotation(1, 1, np.zeros_like(BLOCK))
    source = tmp_path / "annotations.json"
    source.write_text(json.dumps(document))
    report = export_labels(ExportSettings(source, tmp_path / "out", kind, MaskForm.POLYGON))
    place = "annotations[0].segmentation"
    assert report.notes == (f"masks without a pixel were left out, and their boxes kept (once, first in {place})",)
    written = json.loads((tmp_path / "out" / "annotations.json").read_text())
    assert written["annotations"][0]["segmentation"] == []


@pytest.mark.parametrize("kind", [kind for kind, forms in MASK_FORMS.items() if MaskForm.POLYGON in forms])
def test_the_file_whose_mask_came_through_worst_is_named(
    tmp_path: Path, document: dict[str, Any], kind: LabelFormat
) -> None:
    _, losses = exported(tmp_path, document, kind, form=MaskForm.POLYGON, tolerance_px=3.0)
    assert (losses.n_masks, losses.least_file_name) == (2, "sub/a.jpg")
    assert losses.iou_least < 1


def test_the_command_names_the_worst_file(tmp_path: Path, document: dict[str, Any]) -> None:
    source = tmp_path / "annotations.json"
    source.write_text(json.dumps(document))
    options = ["export", str(source), "--to", "labelme", "--seg", "polygon"]
    exact = CliRunner().invoke(main, [*options, "-o", str(tmp_path / "exact")])
    assert "2 masks as polygons: IoU with the mask 1.0000 on average, 1.0000 at least\n" in exact.stdout
    rough = CliRunner().invoke(main, [*options, "-o", str(tmp_path / "rough"), "--tolerance", "3"])
    assert " at least, in sub/a.jpg\n" in rough.stdout


def test_no_file_is_named_where_all_masks_came_through(tmp_path: Path, document: dict[str, Any]) -> None:
    _, losses = exported(tmp_path, document, LabelFormat.COCO, form=MaskForm.POLYGON)
    assert (losses.n_masks, losses.iou_least, losses.least_file_name) == (2, 1.0, "")


def test_a_class_picture_counts_what_another_class_hides(tmp_path: Path, document: dict[str, Any]) -> None:
    document["categories"].append({"id": 2, "name": "wheel"})
    document["annotations"] = [
        annotation(1, 1, BLOCK, score=0.3),
        annotation(2, 1, TEETH, score=0.5),
        annotation(3, 1, BLOCK, score=0.9, category_id=2),
    ]
    output, losses = exported(tmp_path, document, LabelFormat.MASKS)
    # The second is of the first one's class, and hides nothing of it.
    assert losses.counts["pixels of a class picture hidden by a better mask of another class"] == 200
    shown = cv2.imread(str(output / "classes/a.jpg.png"), cv2.IMREAD_UNCHANGED)
    assert shown is not None
    assert np.array_equal(shown, BLOCK * np.uint8(2))
    assert sorted(path.name for path in (output / "instances").iterdir()) == [
        "a.jpg.001.png",
        "a.jpg.002.png",
        "a.jpg.003.png",
    ]


def test_a_score_of_a_crowd_is_no_part_of_a_task_s(tmp_path: Path, document: dict[str, Any]) -> None:
    document["annotations"] = [
        annotation(1, 1, BLOCK, score=0.1, iscrowd=1),
        annotation(2, 1, TEETH, score=0.5),
    ]
    output, _ = exported(tmp_path, document, LabelFormat.LABELSTUDIO)
    assert json.loads((output / "tasks.json").read_text())[0]["predictions"][0]["score"] == 0.5


def test_renamed_attributes_replace_no_other(tmp_path: Path, document: dict[str, Any]) -> None:
    document["annotations"][0]["attributes"] = {"label": 1, "attribute_label": 2, "id": 3, "a.b": 4, "a_b": 5}
    document["annotations"][0]["tags"] = "x"
    output, _ = exported(tmp_path, document, LabelFormat.FIFTYONE)
    written = json.loads((output / "annotations.json").read_text())["annotations"][0]
    # Its importer moves the attributes into the annotation, where `id` would replace the annotation's.
    assert written["attributes"] == {
        "attribute_attribute_label": 1,
        "attribute_label": 2,
        "attribute_id": 3,
        "attribute_a_b": 4,
        "a_b": 5,
    }
    assert (written["id"], written["attribute_tags"]) == (1, "x")


def test_a_voc_box_at_the_edge_stays_in_the_image(tmp_path: Path, document: dict[str, Any]) -> None:
    document["annotations"][0].update(segmentation=[], bbox=[30, 20, 1, 1])
    output, _ = exported(tmp_path, document, LabelFormat.VOC)
    box = ElementTree.parse(output / "Annotations/a.xml").getroot().find("object/bndbox")  # noqa: S314  (our own file)
    assert box is not None
    assert [element.text for element in box] == ["30", "20", "30", "20"]
