"""What every reader script writes: for each image its labels, each with class, box, mask, score and attributes."""

import json
from pathlib import Path

import numpy as np


class ReaderOutput:
    """Collects what a tool has read. Runs in the tools' environments, so it needs numpy only."""

    def __init__(self) -> None:
        self._images: dict[str, list[dict[str, object]]] = {}

    def add(  # type: ignore[no-untyped-def]
        self, image, name, box_xyxy, mask=None, score=None, polygons=None, size_hw=None, attributes=None
    ) -> None:
        """Add a label; `mask` is a boolean (height, width) array or None.

        A tool that reads polygons and rasterises none gives those, as COCO has them, and the image's height and width.
        """
        self._images.setdefault(str(image), []).append(
            {
                "class": str(name),
                "box": [float(edge) for edge in box_xyxy],
                "mask": None if mask is None else runs(np.asarray(mask, dtype=bool)),
                "polygons": None if polygons is None else {"size": list(size_hw), "rings": polygons},
                "score": None if score is None else float(score),
                "attributes": attributes,
            }
        )

    def write(self, path: str) -> None:
        """Write all as JSON."""
        Path(path).write_text(json.dumps(self._images))


def runs(mask) -> dict[str, object]:  # type: ignore[no-untyped-def]
    """Write a mask as COCO's plain run lengths."""
    pixels = np.concatenate([[False], mask.T.ravel()])
    edges = np.flatnonzero(pixels[1:] != pixels[:-1])
    counts = np.diff(np.concatenate([[0], edges, [mask.size]])).astype(int).tolist()
    return {"size": list(mask.shape), "counts": counts}
