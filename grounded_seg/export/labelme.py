"""LabelMe: a JSON file per image, beside it and named like it; X-AnyLabeling reads the same form.

A mask is a picture in the file, exact and of any shape, or polygons, where the parts of one object share a `group_id`.
LabelMe keeps keys that it doesn't know, so the score and the attributes stay with their shape.
"""

import base64
import json
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.export.writer import (
    Target,
    losses_of_head,
    mask_to_write,
    n_renamed,
    png_bytes,
    single_objects,
    unique_names,
)
from grounded_seg.geometry.masks import mask_from_run_length, tight_box_xyxy
from grounded_seg.geometry.polygons import centre_polygons_from_mask, drawn_mask
from grounded_seg.records import RunLength

_VERSION = "5.5.0"
"""Of LabelMe, the form's."""


class LabelmeWriter:
    """Writes `NAME.json` for each image, in the folder of its split, with the images beside."""

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        self._target = target
        self.losses = losses_of_head(target)
        self._names = unique_names(target.file_names, ".json", flat=False)
        self.losses.add("image names changed to be unique", n_renamed(self._names))

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's file."""
        shapes: list[dict[str, Any]] = []
        n_groups = 0
        for label in single_objects(image, self.losses):
            outlines = self._shapes(label, image.file_name)
            n_groups += len(outlines) > 1
            group_id = n_groups if len(outlines) > 1 else None
            shapes += [{**_common(label), "group_id": group_id, **outline} for outline in outlines]
        path = self._target.output / self.picture_name(image.file_name, split)
        content: dict[str, Any] = {
            "version": _VERSION,
            "flags": {},
            "shapes": shapes,
            "imagePath": path.name,
            "imageData": None,
            "imageHeight": image.size.height,
            "imageWidth": image.size.width,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(content, ensure_ascii=False, indent=1)
        path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")

    def picture_name(self, file_name: str, split: str) -> str:
        """In the folder of the split."""
        return str(PurePosixPath(split, self._names[file_name]))

    def close(self) -> None:
        """There is nothing that is written only at the end."""

    def _shapes(self, label: Label, file_name: str) -> list[dict[str, Any]]:
        mask = mask_to_write(label, self._target.form, self.losses)
        if mask is None:
            x0, y0, x1, y1 = label.box_xyxy
            return [{"shape_type": "rectangle", "points": [[x0, y0], [x1, y1]]}]
        if self._target.form is MaskForm.RLE:
            return [_mask_shape(mask)]
        # LabelMe draws a polygon's outline along with its inside.
        rings = centre_polygons_from_mask(mask, self._target.tolerance_px)
        self.losses.add("masks in several polygons with a common group_id", len(rings) > 1)
        self.losses.add_round_trip(mask, drawn_mask(rings, mask.size), file_name)
        return [{"shape_type": "polygon", "points": ring.tolist()} for ring in rings]


def _common(label: Label) -> dict[str, Any]:
    known: dict[str, Any] = {"label": label.category, "description": "", "flags": {}}
    if label.score is not None:
        known["score"] = label.score
    if "attributes" in label.record:
        known["attributes"] = label.record["attributes"]
    return known


def _mask_shape(mask: RunLength) -> dict[str, Any]:
    """Shape of a mask, cut out; its corners are the first and the last pixel."""
    x0, y0, x1, y1 = (int(edge) for edge in tight_box_xyxy(mask))
    inside = mask_from_run_length(mask)[y0:y1, x0:x1] * np.uint8(255)
    return {
        "shape_type": "mask",
        "points": [[x0, y0], [x1 - 1, y1 - 1]],
        "mask": base64.b64encode(png_bytes(inside)).decode("ascii"),
    }
