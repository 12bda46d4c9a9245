"""A labelled data set as it passes from a COCO file to a writer of another format, image by image."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

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


@dataclass
class Losses:
    """What a format could not take, counted, and how well masks came through."""

    counts: Counter[str] = field(default_factory=Counter)
    """How often each thing was lost, by a description that can follow a number."""
    n_masks: int = 0
    """Masks that were written as polygons and rasterised again."""
    iou_sum: float = 0.0
    iou_least: float = 1.0
    least_file_name: str = ""
    """The image with that mask; "" where all came through whole."""

    def add(self, what: str, n: int = 1) -> None:
        """Count a loss; 0 is none."""
        if n:
            self.counts[what] += n

    def add_all(self, whose: str, names: Iterable[str]) -> None:
        """Count what is left out of one image, label or class, by name."""
        for name in names:
            self.add(f"{whose}' {name} left out")

    def add_round_trip(self, iou: float, file_name: str) -> None:
        """Note how a mask of an image compares with its polygons, as their reader will rasterise them."""
        self.n_masks += 1
        self.iou_sum += iou
        if iou < self.iou_least:
            self.iou_least, self.least_file_name = iou, file_name

    @property
    def iou_mean(self) -> float:
        """Mean IoU of masks and their polygons; 1 where there was none to compare."""
        return self.iou_sum / self.n_masks if self.n_masks else 1.0


class LabelWriter(Protocol):
    """Writes one format, an image at a time."""

    losses: Losses

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's labels; images of one split come in a row.

        Args:
            image: What is on it.
            split: "train", "valid" or "test", or "" where the data set isn't split.
        """

    def picture_name(self, file_name: str, split: str) -> str:
        """Where the format looks for the image, relative to the output folder, POSIX."""

    def close(self) -> None:
        """Write what can be written only at the end."""
