"""A labelled data set as it passes from a COCO file to a writer of another format, image by image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grounded_seg.records import BoxXyxy, ImageSize, RunLength

_FIFTYONE_WORDS = frozenset(
    {
        *("label", "bounding_box", "mask", "mask_path", "confidence", "index", "tags", "attributes", "instance_id"),
        *("has_mask", "field_names", "clean", "validate", "self"),
    }
)
"""Names of attributes at which FiftyOne's COCO importer stops, because its labels have their own."""
_COCO_KEYS = frozenset(
    {"id", "image_id", "category_id", "bbox", "segmentation", "keypoints", "area", "iscrowd", "score"}
)


def fiftyone_takes(name: str, *, is_attribute: bool) -> bool:
    """Tell whether FiftyOne's COCO importer takes a key as what it is.

    Args:
        name: The key.
        is_attribute: It stands in the annotation's `attributes`. The importer moves those into the annotation, where
            one called `id` or `bbox` would replace COCO's own.
    """
    if name in _COCO_KEYS or name == "attributes":
        return not is_attribute
    return name not in _FIFTYONE_WORDS and not name.startswith(("_", "$")) and not {".", "\0"} & set(name)


@dataclass(frozen=True)
class Label:
    """One object of an image."""

    category: str
    box_xyxy: BoxXyxy
    mask: RunLength | None
    """At the image's own size; None where there is but a box."""
    score: float | None
    """In [0, 1]; None for what a person drew."""
    is_crowd: bool
    """A region of many objects, which most formats have no word for."""
    record: Mapping[str, Any]
    """The annotation as it stands in the file, for formats that hold any key."""


@dataclass(frozen=True)
class LabelledImage:
    """One image with its objects."""

    file_name: str
    """Relative to the folder of the images, POSIX."""
    size: ImageSize
    labels: tuple[Label, ...]
    record: Mapping[str, Any]
    """The image as it stands in the file."""
