"""Scenes rendered ahead of training, in chunks on disk, so that the model doesn't wait for the painter.

    python checkpoints/make_demo/pool.py --scenes 26000 --workers 2

A chunk holds the pictures as the detector sees them (squeezed to a square) and the objects' kinds, colours and boxes.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from grounded_seg.scenes import COLOURS, KINDS, Split, render_scene

SIDE = 256
CHUNK = 1000
STATE = Path(__file__).resolve().parents[2] / ".cache" / "demo-training"
KIND_NAMES, COLOUR_NAMES = list(KINDS), list(COLOURS)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Some scenes, flattened; objects of scene i are rows `first[i]` to `first[i + 1]`."""

    pixels: npt.NDArray[np.uint8]
    """(n, SIDE, SIDE, 3)."""
    first: npt.NDArray[np.int64]
    kind: npt.NDArray[np.int64]
    colour: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float32]
    """x0 y0 x1 y1 as shares of the image, in [0, 1]."""


def write_chunk(index: int) -> Path:
    """Render chunk `index` (its scenes follow from the index alone), unless it is there already."""
    path = STATE / "pool" / f"{index:05d}.npz"
    if path.exists():
        return path
    cv2.setNumThreads(1)
    pixels, first, kinds, colours, boxes = [], [0], [], [], []
    for i in range(index * CHUNK, (index + 1) * CHUNK):
        scene = render_scene(Split.TRAIN, i, short_side=272)
        pixels.append(np.asarray(Image.fromarray(scene.pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)))
        for o in scene.objects:
            kinds.append(KIND_NAMES.index(o.kind))
            colours.append(COLOUR_NAMES.index(o.colour))
            boxes.append(np.array(o.box_xyxy) / ((scene.size.width, scene.size.height) * 2))
        first.append(len(kinds))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, pixels=np.stack(pixels), first=first, kind=kinds, colour=colours, boxes=np.array(boxes, np.float32))
    part.rename(path)
    return path


def read_chunk(path: Path) -> Chunk:
    """Load one chunk."""
    with np.load(path) as data:
        return Chunk(**{name: data[name] for name in ("pixels", "first", "kind", "colour", "boxes")})


def chunks_on_disk() -> list[Path]:
    """The finished chunks, in order."""
    return sorted(p for p in (STATE / "pool").glob("*.npz") if ".part" not in p.name)


def main() -> None:
    """Fill the pool."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--scenes", type=int, default=26_000)
    options.add_argument("--workers", type=int, default=2)
    chosen = options.parse_args()
    with ProcessPoolExecutor(chosen.workers) as workers:
        for path in workers.map(write_chunk, range(chosen.scenes // CHUNK)):
            print(path.name, flush=True)


if __name__ == "__main__":
    main()
