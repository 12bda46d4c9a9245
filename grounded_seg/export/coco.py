"""COCO files, with the masks in the form that a reader takes; CVAT and FiftyOne read them too, but need more.

CVAT keeps only the attributes that the labels of its task name, so these are written as well. FiftyOne cuts masks off
at their box, and stops at attributes that it names itself.
"""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from grounded_seg.coco.check.readers import fiftyone_takes
from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.export.writer import LabelWriter, Losses, Target, json_text
from grounded_seg.geometry.boxes import rounded_box_holds
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_polygons, tight_box_xyxy
from grounded_seg.geometry.polygons import edge_polygons_from_mask
from grounded_seg.records import RunLength

_PIXEL_DECIMALS = 3


class CocoWriter(LabelWriter):
    """Writes `annotations.json`, or `train/_annotations.coco.json` and so on.

    Unknown keys stay as they were, and so do ids, where all of a section are whole numbers from 1.

    The images belong into `images/`, or beside the file of their split.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        # Nothing of the file's head is lost.
        self.losses = Losses()
        for section, n in target.numbered.items():
            self.losses.add(f"{section} numbered from 1", n)
        self._forms = [MaskForm.RLE, MaskForm.POLYGON] if target.form is MaskForm.BOTH else [target.form]
        self._files: dict[tuple[str, MaskForm], _CocoFile] = {}

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image and its annotations."""
        for form in self._forms:
            file = self._files.get((split, form)) or self._start(split, form)
            file.add(image.record, [self._annotation(label, form, image.file_name) for label in image.labels])

    def picture_name(self, file_name: str, split: str) -> str:
        """Beside the file of the split, or in `images/`."""
        return f"{split or 'images'}/{file_name}"

    def close(self) -> None:
        """Finish the files; without any image there is one file, with empty lists."""
        if not self._files:
            for form in self._forms:
                self._start("", form)
        for file in self._files.values():
            file.close()

    def _start(self, split: str, form: MaskForm) -> "_CocoFile":
        # Of two forms, the polygons get a name of their own.
        marked = ".polygons" if form is MaskForm.POLYGON and len(self._forms) > 1 else ""
        name = f"{split}/_annotations{marked}.coco.json" if split else f"annotations{marked}.json"
        self._files[split, form] = file = _CocoFile(self._path(name), self._target.head)
        return file

    def _annotation(self, label: Label, form: MaskForm, file_name: str) -> dict[str, Any]:
        annotation = dict(label.record)
        if form is MaskForm.NONE:
            self.losses.add("masks left out", label.mask is not None)
            annotation["segmentation"] = []
        elif label.mask is not None:
            as_it_was = annotation["segmentation"]
            if form is MaskForm.RLE or label.is_crowd:
                annotation["segmentation"] = coco_from_run_length(label.mask)
            # What a person drew stays what it is, unless it is to be simplified.
            elif isinstance(as_it_was, Mapping) or self._target.tolerance_px > 0:
                annotation["segmentation"] = self._polygons(label.mask, file_name)
        return annotation

    def _polygons(self, mask: RunLength, file_name: str) -> list[list[float]]:
        rings = edge_polygons_from_mask(mask, self._target.tolerance_px)
        polygons = [[_short(value) for value in ring.ravel().tolist()] for ring in rings]
        self.losses.add_round_trip(mask, run_length_from_polygons(polygons, mask.size), file_name)
        return polygons


class CvatWriter(CocoWriter):
    """Writes a COCO file, and `labels.json` for the "Raw" tab where CVAT asks for a task's labels."""

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        # A dictionary keeps the order in which they come up.
        self._attributes: dict[str, None] = {}

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image, and note the attributes of its labels; CVAT takes a label's score for one too."""
        super().add(image, split)
        for label in image.labels:
            attributes = label.record.get("attributes")
            self._attributes.update(dict.fromkeys(attributes if isinstance(attributes, Mapping) else ()))
            if label.score is not None:
                self._attributes["score"] = None

    def close(self) -> None:
        """Finish the COCO file, and write the labels."""
        super().close()
        field = {"input_type": "text", "mutable": False, "values": [""], "default_value": ""}
        attributes = [{"name": name, **field} for name in self._attributes]
        labels = [{"name": name, "attributes": attributes} for name in self._target.class_names]
        self._path("labels.json").write_text(json_text(labels), encoding="utf-8")


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
        if not fiftyone_takes(name, is_attribute=are_attributes):
            name = "attribute_" + name.replace(".", "_").replace("\0", "_")
            while name in values or name in renamed:
                name = f"attribute_{name}"
        renamed[name] = value
    return renamed


class _CocoFile:
    """COCO file in the making: the images are in it, the annotations wait in a file beside."""

    def __init__(self, destination: Path, head: Mapping[str, Any]) -> None:
        self._destination = destination
        self._annotations = destination.with_suffix(".waiting")
        self._written: set[Path] = set()
        sections = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items())
        destination.write_text("{\n" + sections + '"images": [', encoding="ascii", newline="\n")

    def add(self, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> None:
        self._append(self._destination, [image])
        self._append(self._annotations, annotations)

    def close(self) -> None:
        with self._destination.open("a", encoding="ascii", newline="\n") as file:
            file.write('\n],\n"annotations": [')
            if self._annotations in self._written:
                with self._annotations.open(encoding="ascii", newline="\n") as waiting:
                    shutil.copyfileobj(waiting, file)
                self._annotations.unlink()
            file.write("\n]\n}\n")

    def _append(self, path: Path, records: Sequence[Mapping[str, Any]]) -> None:
        # Opened anew for each image: an export that fails leaves no file open.
        if records:
            with path.open("a", encoding="ascii", newline="\n") as file:
                file.write(",\n" if path in self._written else "\n")
                file.write(",\n".join(json.dumps(record, allow_nan=False) for record in records))
            self._written.add(path)


def _short(value: float) -> float | int:
    """Drop the fraction of a whole number, which makes half of the text of exact polygons."""
    return int(value) if value.is_integer() else round(value, _PIXEL_DECIMALS)
