"""Labelled images as COCO files, with the masks in the form that a reader takes."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.export.writer import Losses, Target
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_polygons
from grounded_seg.geometry.polygons import edge_polygons_from_mask
from grounded_seg.records import RunLength

_PIXEL_DECIMALS = 3


class CocoWriter:
    """Writes `annotations.json`, or `train/_annotations.coco.json` and so on; ids and unknown keys stay as they were.

    The images belong into `images/`, or beside the file of their split.
    """

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        self._target = target
        self.losses = Losses()
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
        self._files[split, form] = file = _CocoFile(self._target.output / name, self._target.head)
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
        if rings:
            read_back = run_length_from_polygons(polygons, mask.size)
            self.losses.add_round_trip(mask, read_back, file_name)
        self.losses.add("empty masks written as their boxes", not rings)
        return polygons


class _CocoFile:
    """COCO file in the making: the images are in it, the annotations wait in a file beside."""

    def __init__(self, destination: Path, head: Mapping[str, Any]) -> None:
        self._destination = destination
        self._annotations = destination.with_suffix(".waiting")
        self._written: set[Path] = set()
        destination.parent.mkdir(parents=True, exist_ok=True)
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
