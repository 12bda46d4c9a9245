"""Warnings of what label tools reject or lose of a right COCO file, by their code or documents of November 2026."""

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from grounded_seg.coco.faults import Fault
from grounded_seg.coco.labels import fiftyone_takes
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.values import mask_of, plain_numbers
from grounded_seg.geometry.boxes import rounded_box_holds
from grounded_seg.geometry.masks import tight_box_xyxy
from grounded_seg.records import BoxXyxy

_READERS = (
    ("Label Studio", "run_lengths", "run-length masks are not read; use `export --to labelstudio`"),
    ("Label Studio", "several", "masks of several polygons become a region for each"),
    ("Label Studio", "scores", "scores are lost; use `export --to labelstudio`"),
    (
        "X-AnyLabeling",
        "run_lengths",
        "run-length masks are dropped without a word; use `export --to labelme --seg polygon`",
    ),
    ("X-AnyLabeling", "base_names", "images share a base name with another, and folders are dropped"),
    ("CVAT", "several", "masks of several polygons become a group of shapes; run lengths stay masks"),
    ("CVAT", "scores", "scores are kept only as an attribute that the task's labels name; use `export --to cvat`"),
    ("supervision", "polygons", "polygon masks are read up to a pixel wider and higher; run lengths are exact"),
    ("supervision", "scores", "scores are lost"),
    ("pycocotools", "no_mask", "annotations without a mask can be measured as boxes only"),
    ("FiftyOne", "no_mask", "annotations without a mask become boxes only"),
    (
        "FiftyOne",
        "own_words",
        "annotations stop its import by an attribute such as label; use `export --to fiftyone`, or import with "
        "extra_attrs=False",
    ),
    ("FiftyOne", "beyond_box", "masks are cut off at their box; use `export --to fiftyone`"),
)
"""Tool, what in the file concerns it, and what it does to that."""


def reader_warnings(
    images: list[tuple[str, Mapping[str, Any]]], annotations: list[tuple[str, Mapping[str, Any]]]
) -> Iterator[Fault]:
    """Warnings of what each tool would lose, with the first place and how many; each record comes with its place."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    base_names: set[str] = set()
    features = [(place, feature) for place, record in annotations for feature in _features(record)]
    for place, image in images:
        name = PurePosixPath(str(image.get("file_name"))).name
        if name in base_names:
            features.append((place, "base_names"))
        base_names.add(name)
    for place, feature in features:
        counts[feature] += 1
        first.setdefault(feature, place)
    for tool, feature, message in _READERS:
        if counts[feature]:
            yield Fault("reader", first[feature], f"{tool}: {counts[feature]} {message}")


def _features(annotation: Mapping[str, Any]) -> Iterator[str]:
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, Mapping):
        yield "run_lengths"
    elif not segmentation:
        yield "no_mask"
    elif isinstance(segmentation, list):
        yield "polygons"
        if len(segmentation) > 1:
            yield "several"
    if annotation.get("score") is not None:
        yield "scores"
    attributes = annotation.get("attributes")
    inner = attributes if isinstance(attributes, Mapping) else {}
    if not all(fiftyone_takes(str(name), is_attribute=keys is inner) for keys in (annotation, inner) for name in keys):
        yield "own_words"
    box, shape = plain_numbers(annotation.get("bbox")), _shape_xyxy(segmentation)
    if (
        box
        and shape
        and len(box) == 4
        and not rounded_box_holds(xyxy_from_xywh((box[0], box[1], box[2], box[3])), shape)
    ):
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
