"""Masks as PNG files: one for each instance, and one for each image with the number of the class at each pixel."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import numpy.typing as npt

from grounded_seg.coco.labels import Label, LabelledImage, Losses
from grounded_seg.export.objects import single_objects
from grounded_seg.geometry.masks import mask_from_run_length


class MaskPngWriter:
    """Writes `instances/NAME.001.png`, `classes/NAME.png`, `instances.jsonl` and `classes.json`.

    In a class picture 0 is background, and where masks overlap the one with the higher score is on top.
    """

    def __init__(self, output: Path, categories: Sequence[str]) -> None:
        """Start; nothing is written yet.

        Args:
            output: The folder, which has to exist.
            categories: In the order of their numbers, which start at 1.
        """
        self.losses = Losses()
        self._output = output
        self._numbers = {name: number for number, name in enumerate(categories, start=1)}
        self._index: IO[str] | None = None

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's pictures, also where there is nothing on it."""
        dtype = np.uint8 if len(self._numbers) < 256 else np.uint16
        classes = np.zeros((image.size.height, image.size.width), dtype)
        n_hidden = 0
        # Numbered by their place in the file, whatever of it is left out.
        numbers = {id(label): number for number, label in enumerate(image.labels, start=1)}
        for label in sorted(single_objects(image, self.losses, keeps_attributes=False), key=_score):
            if label.mask is None:
                self.losses.add("boxes without a mask left out")
                continue
            mask, number = mask_from_run_length(label.mask), numbers[id(label)]
            class_number = self._numbers[label.category]
            n_hidden += int(np.count_nonzero((classes[mask] != 0) & (classes[mask] != class_number)))
            classes[mask] = class_number
            name = f"{split or '.'}/{image.file_name}.{number:03}.png"
            _write(self._output / "instances" / name, mask * np.uint8(255))
            self._note(Path(name).as_posix(), image, label)
        self.losses.add("pixels of a class picture hidden by a better mask of another class", n_hidden)
        _write(self._output / "classes" / split / f"{image.file_name}.png", classes)

    def picture_name(self, file_name: str, split: str) -> str:
        """In `images/`, in the folder of the split."""
        return f"images/{split}/{file_name}" if split else f"images/{file_name}"

    def close(self) -> None:
        """Write the classes' numbers."""
        if self._index is not None:
            self._index.close()
        text = json.dumps({number: name for name, number in self._numbers.items()}, ensure_ascii=False, indent=1)
        (self._output / "classes.json").write_text(text + "\n", encoding="utf-8")

    def _note(self, name: str, image: LabelledImage, label: Label) -> None:
        """Say in a line what a picture shows."""
        if self._index is None:
            self._index = (self._output / "instances.jsonl").open("w", encoding="ascii")
        line = {"file": name, "image": image.file_name, "class": label.category, "score": label.score}
        self._index.write(json.dumps(line) + "\n")


def _score(label: Label) -> float:
    return label.score or 0.0


def _write(path: Path, picture: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Encoded here and written by Python, because OpenCV can't write to every name on every system.
    path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(picture))[1].tobytes())
