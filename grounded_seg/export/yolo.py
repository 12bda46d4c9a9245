"""YOLO as Ultralytics and supervision read it: a text file per image, a line per object, and `data.yaml`.

A line is `class x y x y ...`, an outline, or `class x y width height`, a box by its centre; all in shares of the
image's sides. Classes count from 0. The form has no room for scores, holes, several parts, or crowds, nor for outlines
and boxes in one data set: Ultralytics would read a box beside an outline as two corners of one.
"""

from typing import Any

import numpy as np
import yaml

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.export.writer import (
    Target,
    losses_of_head,
    mask_to_write,
    n_renamed,
    single_objects,
    unique_names,
)
from grounded_seg.geometry.polygons import centre_polygons_from_mask, drawn_mask, joined_parts
from grounded_seg.records import RunLength

_IN_PIXEL = 0.25
"""Where in its pixel a corner is written: Ultralytics cuts the fraction off, supervision rounds, both find it so."""

JOINED = "masks whose parts are joined by lines a pixel wide"
"""Name of that loss."""


class YoloWriter:
    """Writes `labels/train/NAME.txt` and so on, and `data.yaml`; a data set without splits is all `train`."""

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        self._target = target
        self.losses = losses_of_head(target)
        self._numbers = {name: number for number, name in enumerate(target.class_names)}
        self._names = unique_names(target.file_names, ".txt", flat=True)
        # A data set of boxes is written as boxes.
        self._form = target.form if target.has_masks else MaskForm.NONE
        self._splits: set[str] = set()
        self.losses.add("image names changed to be unique in one folder", n_renamed(self._names))

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's label file; one without objects gets an empty one, which says that there is nothing."""
        lines = []
        for label in single_objects(image, self.losses, keeps_attributes=False):
            self.losses.add("scores left out", label.score is not None)
            numbers = self._shape(label, image)
            lines.append(" ".join([str(self._numbers[label.category]), *(f"{number:.7g}" for number in numbers)]))
        folder = self._target.output / "labels" / _split_name(split)
        folder.mkdir(parents=True, exist_ok=True)
        self._splits.add(_split_name(split))
        path = (folder / self._names[image.file_name]).with_suffix(".txt")
        path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")

    def picture_name(self, file_name: str, split: str) -> str:
        """In `images/`, in the folder of the split."""
        return f"images/{_split_name(split)}/{self._names[file_name]}"

    def close(self) -> None:
        """Write `data.yaml`. Training needs a `val`, so it is `train` where the data set isn't split."""
        folders: dict[str, str] = {
            split: f"images/{split}" for split in ("train", "val", "test") if split in self._splits
        }
        # No `path`: Ultralytics takes the folder of this file then, and the current one for ".".
        content: dict[str, Any] = {
            "train": "images/train",
            "val": "images/train",
            **folders,
            "names": {number: name for name, number in self._numbers.items()},
        }
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        (self._target.output / "data.yaml").write_text(text, encoding="utf-8")

    def _shape(self, label: Label, image: LabelledImage) -> list[float]:
        mask = mask_to_write(label, self._form, self.losses)
        if mask is not None:
            return self._outline(mask, image)
        sides = (image.size.width, image.size.height) * 2
        # A number beyond 1 makes Ultralytics leave the image out.
        x0, y0, x1, y1 = (min(max(edge / side, 0.0), 1.0) for edge, side in zip(label.box_xyxy, sides, strict=True))
        if self._form is MaskForm.NONE:
            return [(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
        self.losses.add("boxes written as outlines")
        return [x0, y0, x1, y0, x1, y1, x0, y1]

    def _outline(self, mask: RunLength, image: LabelledImage) -> list[float]:
        parts = centre_polygons_from_mask(mask, self._target.tolerance_px)
        self.losses.add(JOINED, len(parts) > 1)
        ring = np.floor(joined_parts(parts))
        self.losses.add_round_trip(mask, drawn_mask([ring], image.size), image.file_name)
        return list(((ring + _IN_PIXEL) / (image.size.width, image.size.height)).ravel().tolist())


def _split_name(split: str) -> str:
    """Give YOLO's name of a split."""
    return {"": "train", "valid": "val"}.get(split, split)
