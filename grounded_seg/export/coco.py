"""Write labelled images as COCO files, with the masks in the form that a reader takes."""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from grounded_seg.coco.labels import Label, LabelledImage, Losses
from grounded_seg.export.settings import MaskForm
from grounded_seg.geometry.masks import coco_from_run_length, mask_iou, run_length_from_polygons
from grounded_seg.geometry.polygons import edge_polygons_from_mask
from grounded_seg.records import RunLength

_PIXEL_DECIMALS = 3


class CocoWriter:
    """Writes `annotations.json`, or `train/_annotations.coco.json` and so on; ids and unknown keys stay as they were.

    The images belong into `images/`, or beside the file of their split.
    """

    def __init__(
        self, output: Path, head: Mapping[str, Any], form: MaskForm = MaskForm.RLE, tolerance_px: float = 0.0
    ) -> None:
        """Start; nothing is written yet.

        Args:
            output: The folder, which has to exist.
            head: The file's other sections: info, licenses, categories.
            form: How masks are written.
            tolerance_px: How far a simplified polygon may stray.
        """
        self.losses = Losses()
        self._output = output
        self._head = dict(head)
        self._forms = [MaskForm.RLE, MaskForm.POLYGON] if form is MaskForm.BOTH else [form]
        self._tolerance_px = tolerance_px
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
        """Put the files together; without any image there is one file, with empty lists."""
        if not self._files:
            for form in self._forms:
                self._start("", form)
        for file in self._files.values():
            file.close(self._head)

    def _start(self, split: str, form: MaskForm) -> "_CocoFile":
        # Of two forms, the polygons get a name of their own.
        marked = ".polygons" if form is MaskForm.POLYGON and len(self._forms) > 1 else ""
        name = f"{split}/_annotations{marked}.coco.json" if split else f"annotations{marked}.json"
        self._files[split, form] = file = _CocoFile(self._output / name)
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
            elif isinstance(as_it_was, Mapping) or self._tolerance_px > 0:
                annotation["segmentation"] = self._polygons(label.mask, file_name)
        return annotation

    def _polygons(self, mask: RunLength, file_name: str) -> list[list[float]]:
        rings = edge_polygons_from_mask(mask, self._tolerance_px)
        polygons = [[_short(value) for value in ring.ravel().tolist()] for ring in rings]
        if rings:
            read_back = run_length_from_polygons(polygons, mask.size)
            self.losses.add_round_trip(float(mask_iou([mask], [read_back])[0, 0]), file_name)
        self.losses.add("empty masks written as their boxes", not rings)
        return polygons


class _CocoFile:
    """A COCO file in the making: images and annotations wait in files of their own."""

    def __init__(self, destination: Path) -> None:
        self._destination = destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        self._images, self._annotations = (
            tempfile.TemporaryFile("w+", encoding="ascii", newline="\n", dir=destination.parent)  # noqa: SIM115
            for _ in range(2)
        )

    def add(self, image: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]]) -> None:
        _append(self._images, image)
        for annotation in annotations:
            _append(self._annotations, annotation)

    def close(self, head: Mapping[str, Any]) -> None:
        with self._destination.open("w", encoding="ascii", newline="\n") as file:
            file.write("{\n" + "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in head.items()))
            for key, waiting in (("images", self._images), ("annotations", self._annotations)):
                file.write(f'"{key}": [')
                waiting.seek(0)
                shutil.copyfileobj(waiting, file)
                waiting.close()
                file.write("\n],\n" if key == "images" else "\n]\n}\n")


def _append(waiting: IO[str], record: Mapping[str, Any]) -> None:
    waiting.write((",\n" if waiting.tell() else "\n") + json.dumps(record, allow_nan=False))


def _short(value: float) -> float | int:
    """Drop the fraction of a whole number, which makes half of the text of exact polygons."""
    return int(value) if value.is_integer() else round(value, _PIXEL_DECIMALS)
