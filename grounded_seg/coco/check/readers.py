"""Warnings of what label tools reject or lose of a right COCO file."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from grounded_seg.coco.check.rules import (
    DATUMARO,
    FIFTYONE,
    LABEL_STUDIO,
    PYCOCOTOOLS,
    SUPERVISION,
    ULTRALYTICS,
    X_ANYLABELING,
    Fault,
)
from grounded_seg.coco.values import mask_of, plain_numbers
from grounded_seg.geometry.boxes import rounded_box_holds
from grounded_seg.geometry.masks import tight_box_xyxy
from grounded_seg.records import BoxXyxy

_READERS = (
    (LABEL_STUDIO, "run_lengths", "run-length masks stop its import; use `export --to labelstudio`"),
    (LABEL_STUDIO, "several", "masks of several polygons become a region for each"),
    (LABEL_STUDIO, "scores", "scores are lost; use `export --to labelstudio`"),
    (X_ANYLABELING, "run_lengths", "run-length masks become outlines; a hole stops its import; use `--to labelme`"),
    (X_ANYLABELING, "base_names", "images share a base name with another, and folders are dropped"),
    (DATUMARO, "several", "masks of several polygons become a group of shapes; run lengths stay masks"),
    (DATUMARO, "scores", "scores are kept only as an attribute that the task's labels name; use `export --to cvat`"),
    (SUPERVISION, "polygons", "polygon masks are read up to a pixel wider and higher; run lengths are exact"),
    (SUPERVISION, "scores", "scores are lost"),
    (PYCOCOTOOLS, "no_mask", "annotations without a mask can be measured as boxes only"),
    (ULTRALYTICS, "no_mask", "annotations without a mask become outlines of their box"),
    (ULTRALYTICS, "high_class", "objects have a category_id beyond the number of classes; use `export --to yolo`"),
    (ULTRALYTICS, "run_lengths", "run-length masks lose parts of a pixel or two; use `export --seg polygon`"),
    (ULTRALYTICS, "several", "masks of several polygons become one outline"),
    (FIFTYONE, "no_mask", "annotations without a mask become boxes only"),
    (FIFTYONE, "own_words", "annotations stop its import by an attribute such as label; use `export --to fiftyone`"),
    (FIFTYONE, "beyond_box", "masks are cut off at their box; use `export --to fiftyone`"),
)
"""Tool, what in the file concerns it, and what it does to that."""
_FIFTYONE_WORDS = {
    *("label", "bounding_box", "mask", "mask_path", "confidence", "index", "tags", "attributes", "instance_id"),
    *("has_mask", "field_names", "clean", "validate", "self"),
}
"""Names of attributes at which FiftyOne's COCO importer stops, because its labels have their own."""
_COCO_KEYS = {"id", "image_id", "category_id", "bbox", "segmentation", "keypoints", "area", "iscrowd", "score"}


def fiftyone_takes(name: str, *, is_attribute: bool) -> bool:
    """Whether FiftyOne's COCO importer takes a key as what it is.

    The importer moves what stands in an annotation's `attributes` into the annotation, where one called `id` or `bbox`
    would replace COCO's own.
    """
    if name in _COCO_KEYS or name == "attributes":
        return not is_attribute
    return name not in _FIFTYONE_WORDS and not name.startswith(("_", "$")) and not {".", "\0"} & set(name)


def reader_warnings(
    images: list[tuple[str, Mapping[str, Any]]], annotations: list[tuple[str, Mapping[str, Any]]], n_classes: int
) -> Iterator[Fault]:
    """Warnings of what each tool would lose, with the first place and how many; each record comes with its place."""
    places: dict[str, list[str]] = {}
    for place, record in annotations:
        for feature in _features(record):
            places.setdefault(feature, []).append(place)
        # Its classes are the ids less one, and its trainer leaves out an image with one beyond their number.
        if type(number := record.get("category_id")) is int and number > n_classes:
            places.setdefault("high_class", []).append(place)
    first: dict[str, str] = {}
    for place, image in images:
        if first.setdefault(PurePosixPath(str(image.get("file_name"))).name, place) != place:
            places.setdefault("base_names", []).append(place)
    for tool, feature, message in _READERS:
        if found := places.get(feature):
            yield Fault("reader", found[0], f"{tool}: {len(found)} {message}")


def _features(annotation: Mapping[str, Any]) -> Iterator[str]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        yield "run_lengths"
    elif not segmentation:
        yield "no_mask"
    elif isinstance(segmentation, list):
        yield "polygons"
        if len(segmentation) > 1 and isinstance(segmentation[0], list):
            yield "several"
    if annotation.get("score") is not None:
        yield "scores"
    attributes = annotation.get("attributes")
    inner = attributes if isinstance(attributes, Mapping) else {}
    if not all(fiftyone_takes(str(name), is_attribute=keys is inner) for keys in (annotation, inner) for name in keys):
        yield "own_words"
    shape = _shape_xyxy(segmentation)
    match plain_numbers(annotation.get("bbox")):
        case [x, y, width, height] if shape and not rounded_box_holds((x, y, x + width, y + height), shape):
            yield "beyond_box"


def _shape_xyxy(segmentation: Any) -> BoxXyxy | None:
    """Give the edges of a mask in either form; None where it is damaged, or there is none."""
    if isinstance(segmentation, Mapping):
        try:
            mask = mask_of(segmentation, None)
        except ValueError:
            return None
        return None if mask is None else tight_box_xyxy(mask)
    polygons = [plain_numbers(polygon) for polygon in segmentation] if isinstance(segmentation, list) else []
    xs = [x for polygon in polygons for x in (polygon or [])[0::2]]
    ys = [y for polygon in polygons for y in (polygon or [])[1::2]]
    return (min(xs), min(ys), max(xs), max(ys)) if xs and ys else None
