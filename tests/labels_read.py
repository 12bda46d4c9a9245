"""Labels of an export as its format has them, read without the tools that they are for."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import PIL.Image
import yaml

from grounded_seg.export.settings import LabelFormat, MaskForm

Box = tuple[str, list[float]]


@dataclass(frozen=True)
class Found:
    """What an export holds, in the order of the file."""

    classes: list[str]
    """Those that the format lists; for one that has no list, those of its labels."""
    boxes: list[Box]
    """Class and edges x0 y0 x1 y1, in pixels."""
    n_masks: int


def found_in(folder: Path, kind: LabelFormat, form: MaskForm) -> Found:
    """Labels of all images."""
    readers = {
        LabelFormat.YOLO: _yolo,
        LabelFormat.VOC: _voc,
        LabelFormat.LABELME: _labelme,
        LabelFormat.LABELSTUDIO: _labelstudio,
        LabelFormat.MASKS: _masks,
    }
    if kind in readers:
        return readers[kind](folder)
    return _coco(folder, "annotations.json" if form is not MaskForm.BOTH else "annotations.polygons.json")


def _coco(folder: Path, name: str) -> Found:
    document = json.loads((folder / name).read_text())
    names = {one["id"]: one["name"] for one in document["categories"]}
    assert {one["image_id"] for one in document["annotations"]} <= {one["id"] for one in document["images"]}
    assert all(one["id"] >= 1 for section in ("images", "categories", "annotations") for one in document[section])
    boxes = []
    for one in document["annotations"]:
        x, y, width, height = one["bbox"]
        boxes.append((names[one["category_id"]], [x, y, x + width, y + height]))
    return Found(list(names.values()), boxes, sum(bool(one["segmentation"]) for one in document["annotations"]))


def _yolo(folder: Path) -> Found:
    content = yaml.safe_load((folder / "data.yaml").read_text(encoding="utf-8"))
    boxes: list[Box] = []
    n_masks = 0
    for path in sorted((folder / "labels").rglob("*.txt")):
        [picture] = [one for one in (folder / "images").rglob("*") if one.stem == path.stem]
        size = _size(picture)
        for row in path.read_text().splitlines():
            number, *values = row.split()
            numbers = np.array(values, float)
            if len(numbers) == 4:
                x, y, width, height = numbers * (*size, *size)
                edges = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
            else:
                n_masks += 1
                corners = numbers.reshape(-1, 2) * size
                # An outline goes through the pixels that it ends with.
                edges = [*np.floor(corners.min(axis=0)), *np.ceil(corners.max(axis=0))]
            boxes.append((content["names"][int(number)], [float(edge) for edge in edges]))
    return Found(list(content["names"].values()), boxes, n_masks)


def _size(picture: Path) -> tuple[int, int]:
    with PIL.Image.open(picture) as opened:
        return opened.size


def _voc(folder: Path) -> Found:
    boxes: list[Box] = []
    for path in sorted((folder / "Annotations").iterdir()):
        for item in ElementTree.parse(path).getroot().findall("object"):  # noqa: S314  (our own file)
            edges = [float(item.findtext(f"bndbox/{tag}") or "nan") for tag in ("xmin", "ymin", "xmax", "ymax")]
            boxes.append((item.findtext("name") or "", [edges[0] - 1, edges[1] - 1, *edges[2:]]))
    return Found(_classes(boxes), boxes, 0)


def _labelme(folder: Path) -> Found:
    boxes: list[Box] = []
    n_masks = 0
    for path in sorted(folder.glob("*.json")):
        groups: dict[Any, tuple[str, list[list[float]]]] = {}
        shapes = json.loads(path.read_text(encoding="utf-8"))["shapes"]
        for index, shape in enumerate(shapes):
            key = index if shape["group_id"] is None else f"group {shape['group_id']}"
            n_masks += shape["shape_type"] != "rectangle" and key not in groups
            groups.setdefault(key, (shape["label"], []))[1].extend(shape["points"])
        boxes += [
            (label, [*np.min(points, axis=0).tolist(), *np.max(points, axis=0).tolist()])
            for label, points in groups.values()
        ]
    return Found(_classes(boxes), boxes, n_masks)


def _labelstudio(folder: Path) -> Found:
    boxes: list[Box] = []
    n_masks = 0
    for task in json.loads((folder / "tasks.json").read_text()):
        for region in task["predictions"][0]["result"]:
            value, kind = region["value"], region["from_name"]
            n_masks += kind != "rectangle"
            [label] = value[f"{kind}labels"]
            boxes.append((label, _region_edges(region)))
    config = ElementTree.parse(folder / "config.xml").getroot()  # noqa: S314  (our own file)
    return Found([one.get("value") or "" for one in config.findall("BrushLabels/Label")], boxes, n_masks)


def _region_edges(region: dict[str, Any]) -> list[float]:
    value, width, height = region["value"], region["original_width"], region["original_height"]
    if region["from_name"] == "rectangle":
        x, y, w, h = (value[key] for key in ("x", "y", "width", "height"))
        points = np.array([[x, y], [x + w, y + h]]) * (width, height) / 100
    elif region["from_name"] == "polygon":
        points = np.array(value["points"]) * (width, height) / 100
    else:
        rows, columns = np.nonzero(unpacked(bytes(value["rle"])).reshape(height, width, 4)[..., 0])
        points = np.array([[columns.min(), rows.min()], [columns.max() + 1, rows.max() + 1]])
    return [*points.min(axis=0).tolist(), *points.max(axis=0).tolist()]


def unpacked(brush: bytes) -> npt.NDArray[np.uint8]:
    """Unpack Label Studio's form bit by bit, runs and single bytes alike."""
    bits = "".join(f"{byte:08b}" for byte in brush)
    place = 0

    def take(n: int) -> int:
        nonlocal place
        place += n
        return int(bits[place - n : place], 2)

    n_bytes, width = take(32), take(5) + 1
    widths = [take(4) + 1 for _ in range(4)]
    values: list[int] = []
    while len(values) < n_bytes:
        is_run, length = take(1), take(widths[take(2)]) + 1
        values += [take(width)] * length if is_run else [take(width) for _ in range(length)]
    return np.array(values, np.uint8)


def _masks(folder: Path) -> Found:
    path = folder / "instances.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    assert all((folder / "instances" / line["file"]).is_file() for line in lines)
    classes = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    return Found(list(classes.values()), [], len(lines))


def _classes(boxes: list[Box]) -> list[str]:
    return list(dict.fromkeys(label for label, _ in boxes))
