"""FiftyOne reads COCO files, but cuts masks off at their box and stops at attributes that it names itself."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from grounded_seg.coco.check.readers import fiftyone_takes
from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.coco import CocoWriter
from grounded_seg.export.settings import MaskForm
from grounded_seg.geometry.boxes import rounded_box_holds
from grounded_seg.geometry.masks import tight_box_xyxy


class FiftyoneWriter(CocoWriter):
    """Writes a COCO file that FiftyOne's importer takes as it comes.

    A box that its rounded edges would cut the mask at becomes the tight box of the mask, and is counted; an attribute
    `label` becomes `attribute_label`, and so do others that the importer would stop at or take for COCO's own keys.
    """

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image and its annotations."""
        super().add(replace(image, labels=tuple(map(self._changed, image.labels))), split)

    def _changed(self, label: Label) -> Label:
        record = _renamed(label.record, are_attributes=False)
        if isinstance(label.record.get("attributes"), Mapping):
            record["attributes"] = _renamed(label.record["attributes"], are_attributes=True)
        if self._target.form is not MaskForm.NONE and label.mask is not None:
            x0, y0, x1, y1 = tight = tight_box_xyxy(label.mask)
            if x1 > x0 and not rounded_box_holds(label.box_xyxy, tight):
                self.losses.add("boxes set to the edges of their masks, which would be cut off")
                record["bbox"] = [x0, y0, x1 - x0, y1 - y0]
        return replace(label, record=record)


def _renamed(values: Mapping[str, Any], *, are_attributes: bool) -> dict[str, Any]:
    renamed: dict[str, Any] = {}
    for name, value in values.items():
        free = name
        if not fiftyone_takes(name, is_attribute=are_attributes):
            free = "attribute_" + name.replace(".", "_").replace("\0", "_")
            while free in values or free in renamed:
                free = f"attribute_{free}"
        renamed[free] = value
    return renamed
