"""Masks as PNG files: one for each instance, and one for each image with the number of the class at each pixel."""

import json
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.writer import Target, losses_of_head, png_bytes, single_objects
from grounded_seg.files import name_within_limit
from grounded_seg.geometry.masks import mask_from_run_length


class MaskPngWriter:
    """Writes `instances/NAME.001.png`, `classes/NAME.png`, `instances.jsonl` and `classes.json`.

    In a class picture 0 is background, and where masks overlap the one with the higher score is on top.
    """

    def __init__(self, target: Target) -> None:
        """Start; nothing is written yet."""
        self._target = target
        self.losses = losses_of_head(target)
        self._numbers = {name: number for number, name in enumerate(target.class_names, start=1)}

    def add(self, image: LabelledImage, split: str) -> None:
        """Write an image's pictures, also where there is nothing on it."""
        dtype = np.uint8 if len(self._numbers) < 256 else np.uint16
        classes = np.zeros((image.size.height, image.size.width), dtype)
        n_hidden = 0
        lines: list[dict[str, Any]] = []
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
            name = _extended(PurePosixPath(split, image.file_name), f".{number:03}.png")
            _write(self._target.output / "instances" / name, mask * np.uint8(255))
            lines.append({"file": str(name), "image": image.file_name, "class": label.category, "score": label.score})
        self.losses.add("pixels of a class picture hidden by a better mask of another class", n_hidden)
        _write(self._target.output / "classes" / _extended(PurePosixPath(split, image.file_name), ".png"), classes)
        self._append(lines)

    def picture_name(self, file_name: str, split: str) -> str:
        """In `images/`, in the folder of the split."""
        return f"images/{split}/{file_name}" if split else f"images/{file_name}"

    def close(self) -> None:
        """Write the classes' numbers."""
        text = json.dumps({number: name for name, number in self._numbers.items()}, ensure_ascii=False, indent=1)
        (self._target.output / "classes.json").write_text(text + "\n", encoding="utf-8")

    def _append(self, lines: list[dict[str, Any]]) -> None:
        """Say in a line each what the pictures of an image show."""
        if lines:
            with (self._target.output / "instances.jsonl").open("a", encoding="ascii") as file:
                file.writelines(json.dumps(line) + "\n" for line in lines)


def _extended(name: PurePosixPath, ending: str) -> PurePosixPath:
    return name.with_name(name_within_limit(name.name, ending))


def _score(label: Label) -> float:
    return label.score or 0.0


def _write(path: Path, picture: npt.NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(picture))
