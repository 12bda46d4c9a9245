"""Label Studio: tasks with predictions, and the labelling configuration that they fit.

A mask is a brush stroke, exact and of any shape, or polygons, one region for each part.
"""

import json
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.stream import Label, LabelledImage
from grounded_seg.export.settings import MaskForm
from grounded_seg.export.writer import LabelWriter, Target, mask_to_write, single_objects
from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_polygons
from grounded_seg.geometry.polygons import edge_polygons_from_mask
from grounded_seg.records import ImageSize, RunLength

_LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio addresses files below its document root."""
_RUN_BITS = (3, 4, 8, 16)
"""The widths in bits that a run's length can be written in."""


class LabelStudioWriter(LabelWriter):
    """Writes `tasks.json`, or one file per split, and `config.xml`; the images belong into `images/`.

    The tasks name their images as Label Studio's local files, with the output folder as the document root.
    """

    def __init__(self, target: Target) -> None:
        super().__init__(target)
        self._started: list[Path] = []

    def add(self, image: LabelledImage, split: str) -> None:
        """Append an image's task."""
        regions: list[dict[str, Any]] = []
        scores = []
        for label in single_objects(image, self.losses):
            for kind, value in self._values(label, image):
                regions.append(_region(len(regions) + 1, kind, value, label, image.size))
            if label.score is not None:
                scores.append(label.score)
        prediction: dict[str, Any] = {"model_version": "grounded-seg", "result": regions}
        if scores:
            prediction["score"] = sum(scores) / len(scores)
        address = _LOCAL_FILES + quote(self.picture_name(image.file_name, split))
        self._append(split, {"data": {"image": address}, "predictions": [prediction]})

    def close(self) -> None:
        """Finish the lists of tasks, and write the configuration to paste into the project's settings."""
        for path in self._started:
            with path.open("a", encoding="ascii") as file:
                file.write("\n]\n")
        labels = "".join(f"    <Label value={quoteattr(name)}/>\n" for name in self._target.class_names)
        kinds = {"brush": "BrushLabels", "polygon": "PolygonLabels", "rectangle": "RectangleLabels"}
        blocks = "".join(f'  <{tag} name="{name}" toName="image">\n{labels}  </{tag}>\n' for name, tag in kinds.items())
        text = f'<View>\n  <Image name="image" value="$image" zoom="true"/>\n{blocks}</View>\n'
        self._path("config.xml").write_text(text, encoding="utf-8")

    def _append(self, split: str, task: dict[str, Any]) -> None:
        path = self._path(f"{split or 'tasks'}.json")
        is_first = path not in self._started
        with path.open("w" if is_first else "a", encoding="ascii") as file:
            file.write(("[\n" if is_first else ",\n") + json.dumps(task))
        if is_first:
            self._started.append(path)

    def _values(self, label: Label, image: LabelledImage) -> list[tuple[str, dict[str, Any]]]:
        size = image.size
        mask = mask_to_write(label, self._target.form, self.losses)
        if mask is None:
            x0, y0, x1, y1 = label.box_xyxy
            [[x, y], [width, height]] = per_cent(np.array([[x0, y0], [x1 - x0, y1 - y0]]), size)
            return [("rectangle", {"x": x, "y": y, "width": width, "height": height, "rotation": 0})]
        if self._target.form is MaskForm.RLE:
            return [("brush", {"format": "rle", "rle": list(brush_from_run_length(mask))})]
        rings = edge_polygons_from_mask(mask, self._target.tolerance_px)
        self.losses.add("masks in several regions, one for each part", len(rings) > 1)
        read_back = run_length_from_polygons([ring.ravel().tolist() for ring in rings], size)
        self.losses.add_round_trip(mask, read_back, image.file_name)
        return [("polygon", {"points": per_cent(ring, size), "closed": True}) for ring in rings]


def brush_from_run_length(mask: RunLength) -> bytes:
    """A mask packed as Label Studio's brush does: RGBA, row by row, in runs of equal bytes.

    The bits are: 32 with the number of bytes, 5 with the bits of a byte less one, 4 times 4 with the widths of run
    lengths less one; then for each run a 1, two bits that choose the width, the length less one, and the byte, as in
    https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack.
    """
    pixels = np.ravel(mask_from_run_length(mask), order="C")
    starts = np.concatenate([[0], np.flatnonzero(pixels[1:] != pixels[:-1]) + 1])
    lengths = 4 * np.diff(np.append(starts, pixels.size))
    head = f"{4 * pixels.size:032b}{7:05b}" + "".join(f"{bits - 1:04b}" for bits in _RUN_BITS)
    runs = (_run_bits(int(length), 255 if pixels[start] else 0) for start, length in zip(starts, lengths, strict=True))
    bits = head + "".join(runs)
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def _run_bits(length: int, byte: int) -> str:
    longest = 1 << _RUN_BITS[-1]
    whole, rest = divmod(length, longest)
    runs = f"1{3:02b}{longest - 1:016b}{byte:08b}" * whole
    if rest:
        choice, width = next((index, bits) for index, bits in enumerate(_RUN_BITS) if rest <= 1 << bits)
        runs += f"1{choice:02b}{rest - 1:0{width}b}{byte:08b}"
    return runs


def _region(number: int, kind: str, value: dict[str, Any], label: Label, size: ImageSize) -> dict[str, Any]:
    region: dict[str, Any] = {
        "id": f"region-{number}",
        "from_name": kind,
        "to_name": "image",
        "type": f"{kind}labels",
        "original_width": size.width,
        "original_height": size.height,
        "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label.category]},
    }
    if label.score is not None:
        region["score"] = label.score
    if "attributes" in label.record:
        region["meta"] = {"text": [json.dumps(label.record["attributes"], ensure_ascii=False)]}
    return region


def per_cent(points: npt.NDArray[np.float64], size: ImageSize) -> list[list[float]]:
    """Points in per cent of the image's sides, from pixels, (n, 2)."""
    return list((points * (100 / size.width, 100 / size.height)).tolist())
