"""A mask as run lengths, the record that is kept and written, and the two forms that a caller can have it in."""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from grounded_seg.geometry.outlines import Ring, edge_rings

BoxXyxy: TypeAlias = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels of the upright image, continuous edges, half-open. See `grounded_seg`."""


@dataclass(frozen=True)
class ImageSize:
    """Width and height of the upright image, in pixels."""

    width: int
    height: int


@dataclass(frozen=True)
class RunLength:
    """A mask in COCO's compressed run-length encoding: column-major runs, starting with background."""

    size: ImageSize
    counts: bytes

    def to_array(self) -> npt.NDArray[np.bool_]:
        """Give the mask as a (height, width) array, column-major in memory."""
        # Not pycocotools' `decode`: numpy 2 warns about it, and runs that end early come out as uninitialised memory.
        runs = runs_from_text(self.counts)
        is_mask = np.arange(runs.size) % 2 == 1
        return np.repeat(is_mask, runs).reshape(self.size.width, self.size.height).T

    def polygons(self, tolerance_px: float = 0.0) -> list[Ring]:
        """Give the mask's outlines along the outer edges of its pixels, one (n, 2) array of x, y for each part.

        The last corner is joined to the first. A hole is joined to its part's outline by a cut of no width. pycocotools
        turns the polygons back into exactly this mask. An empty mask has none.

        Args:
            tolerance_px: Simplify, but move no edge farther than this; 0 keeps every corner.
        """
        return edge_rings(*self.tight_region(), tolerance_px)

    def tight_region(self) -> tuple[npt.NDArray[np.bool_], int, int]:
        """Give the smallest part of the mask that holds all of it, and its first column and row; (0, 0) if empty."""
        runs = runs_from_text(self.counts)
        ends = np.cumsum(runs)
        holds = np.flatnonzero(runs[1::2]) * 2 + 1
        if not holds.size:
            return np.zeros((0, 0), dtype=np.bool_), 0, 0
        first, last = ends[holds[0] - 1] // self.size.height, (ends[holds[-1]] - 1) // self.size.height
        columns = self.to_array()[:, first : last + 1]
        rows = np.flatnonzero(columns.any(axis=1))
        return columns[rows[0] : rows[-1] + 1], int(first), int(rows[0])


def runs_from_text(text: bytes) -> npt.NDArray[np.int64]:
    """Undo COCO's compression: six bits a character from "0" on, low five first, the sixth says that more follow.

    From the fourth run on, a number is the difference to the run two before (`rleFrString` in cocoapi's maskApi.c).

    Raises:
        ValueError: If the text is no such compression.
    """
    sextets = np.frombuffer(text, dtype=np.uint8).astype(np.int64) - ord("0")
    if not sextets.size or ((sextets < 0) | (sextets > 63)).any() or sextets[-1] & 32:
        raise ValueError("counts are no COCO run lengths")
    ends = np.flatnonzero((sextets & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    positions = np.arange(sextets.size) - np.repeat(starts, ends - starts + 1)
    if positions.max() > 6:
        raise ValueError("a run is longer than any image")
    values = np.add.reduceat((sextets & 31) << (5 * positions), starts)
    # Bit 4 of the last character is the sign.
    values -= np.where(sextets[ends] & 16, np.int64(1) << (5 * (positions[ends] + 1)), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values
