"""A format's writer: what it is told, what it must offer, and what the writers share."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.files import MAX_NAME_BYTES, name_within_limit
from grounded_seg.geometry.masks import mask_iou, opencv
from grounded_seg.records import RunLength

_IMAGE_KEYS = frozenset({"id", "file_name", "width", "height"})
_LABEL_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "segmentation", "iscrowd", "score"})
"""What every format writes in its own way, or counts by itself."""


@dataclass(frozen=True)
class Target:
    """What a writer knows before the first image: where it writes, what, and how."""

    output: Path
    head: Mapping[str, Any]
    """The sections of the COCO file besides images and annotations; of its categories only those to write."""
    file_names: tuple[str, ...]
    has_masks: bool
    form: MaskForm
    tolerance_px: float
    numbered: Mapping[str, int] = field(default_factory=dict)
    """How many entries of each section got ids from 1, as the file's weren't whole numbers from 1."""

    @property
    def class_names(self) -> list[str]:
        """The classes to write, in the order of the file."""
        return list(dict.fromkeys(str(category.get("name")) for category in self.head["categories"]))


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
        """Count a loss, or nothing where `n` is 0."""
        if n:
            self.counts[what] += n

    def add_all(self, whose: str, names: Iterable[str]) -> None:
        """Count what is left out of an image, label or class, by name."""
        for name in names:
            self.add(f"{whose}' {name} left out")

    def add_round_trip(self, mask: RunLength, read_back: RunLength, file_name: str) -> None:
        """Note the IoU of a mask of an image with its polygons, as their reader rasterises them."""
        iou = float(mask_iou([mask], [read_back])[0, 0])
        self.n_masks += 1
        self.iou_sum += iou
        if iou < self.iou_least:
            self.iou_least, self.least_file_name = iou, file_name

    @property
    def iou_mean(self) -> float:
        """Mean IoU of masks and their polygons; 1 where there was none to compare."""
        return self.iou_sum / self.n_masks if self.n_masks else 1.0


class LabelWriter:
    """Base of the writers, one for each format; a format has room for class names at least."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self.losses = _losses_of_head(target)

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's labels; images of one split come in a row, and "" is that of a data set without splits."""
        raise NotImplementedError

    def picture_name(self, file_name: str, split: str) -> str:
        """Where the format looks for the image: in `images/`, in the folder of the split, POSIX."""
        return "/".join(filter(None, ("images", split, file_name)))

    def close(self) -> None:
        """Write what can be written only at the end."""

    def _unique_names(self, ending: str, *, flat: bool) -> dict[str, str]:
        """The images' names by `unique_names`, with the changed ones counted."""
        names = unique_names(self._target.file_names, ending, flat=flat)
        n_renamed = sum(old != new for old, new in names.items())
        self.losses.add("image names changed to be unique" + " in one folder" * flat, n_renamed)
        return names

    def _path(self, *names: str | PurePosixPath) -> Path:
        """A file below the output folder, whose own folder is there from now on."""
        path = self._target.output.joinpath(*names)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def json_text(content: Any) -> str:
    """JSON that people read too."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def _losses_of_head(target: Target) -> Losses:
    losses = Losses()
    for name, section in target.head.items():
        # Every file has an info, and it says nothing of the labels.
        if name not in ("info", "categories"):
            losses.add(f"{name} left out", len(section) if isinstance(section, list | Mapping) else 1)
    for category in target.head["categories"]:
        losses.add_all("classes", [key for key, value in category.items() if key not in ("id", "name") and value])
    return losses


def single_objects(image: LabelledImage, losses: Losses, *, keeps_attributes: bool = True) -> Iterator[Label]:
    """Labels of single objects, in order, for formats without crowds; these are counted.

    So is what else the file says of the image and its labels, the labels' attributes too if `keeps_attributes` is off.
    """
    losses.add_all("images", _further(image.record, _IMAGE_KEYS))
    for label in image.labels:
        if label.is_crowd:
            losses.add("crowd regions left out")
            continue
        known = _LABEL_KEYS | {"attributes"} if keeps_attributes else _LABEL_KEYS
        losses.add_all("labels", _further(label.record, known))
        yield label


def _further(record: Mapping[str, Any], known: frozenset[str]) -> list[str]:
    return [key for key, value in record.items() if key not in known and value not in (None, "", [], {})]


def mask_to_write(label: Label, form: MaskForm, losses: Losses) -> RunLength | None:
    """Mask of a label, or None to write the box; a mask that isn't to be written is counted."""
    if label.mask is None or form is not MaskForm.NONE:
        return label.mask
    losses.add("masks left out")
    return None


def png_bytes(picture: npt.NDArray[Any]) -> bytes:
    """PNG of a picture, to be written by Python: OpenCV can't write to every name on every system."""
    encoded: bytes = opencv().imencode(".png", np.ascontiguousarray(picture))[1].tobytes()
    return encoded


def unique_names(file_names: Iterable[str], ending: str, *, flat: bool) -> dict[str, str]:
    """Names of images where each has a label file of its name, so that `a.jpg` and `a.png` don't share one.

    A name that is free stays; a later one that isn't gets a number. What is too long for a file system is shortened.

    `ending` is that of the label files, with its dot. With `flat` all go into one folder: `a/b.jpg` becomes `a__b.jpg`.

    >>> unique_names(["a.jpg", "a.png", "b/a.jpg"], ".txt", flat=True)
    {'a.jpg': 'a.jpg', 'a.png': 'a_2.png', 'b/a.jpg': 'b__a.jpg'}
    """
    taken: set[str] = set()
    names = {}
    for file_name in file_names:
        path = PurePosixPath(file_name.replace("/", "__") if flat else file_name)
        name, number = _shortened(path, ending), 1
        while str(name.with_suffix("")).casefold() in taken:
            number += 1
            name = _shortened(path.with_stem(f"{path.stem}_{number}"), ending)
        taken.add(str(name.with_suffix("")).casefold())
        names[file_name] = str(name)
    return names


def _shortened(path: PurePosixPath, ending: str) -> PurePosixPath:
    """The name, shortened if it is too long with its own ending or with the label file's."""
    spare = max(0, len(ending.encode()) - len(path.suffix.encode(errors="surrogateescape")))
    return path.with_name(name_within_limit(path.stem, path.suffix, MAX_NAME_BYTES - spare))
