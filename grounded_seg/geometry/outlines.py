"""Outlines of a mask's pixels as rings of corners, in the two conventions that readers rasterise by.

Pixel-edge rings run along the outer edges of the pixels, as the box convention of `grounded_seg` has it. pycocotools
turns them back into exactly the same mask. Pixel-centre rings run through the centres of the outermost pixels, for
readers that draw the outline along with the inside (OpenCV's `fillPoly`, Pillow's `polygon`): those make a pixel-edge
ring a pixel too wide and too high.

A polygon is one ring without holes, so a hole is joined to the outline by a cut of no width that runs there and back.
"""

from collections import defaultdict
from dataclasses import dataclass
from types import ModuleType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely

from grounded_seg.errors import DeviceError

FEWEST_CORNERS = 3
Ring: TypeAlias = npt.NDArray[np.float64]
"""(n, 2), x and y of each corner in pixels; the last corner is joined to the first."""


def opencv() -> ModuleType:
    """The module `cv2`, loaded when something is first traced or drawn.

    Raises:
        DeviceError: If it can't be loaded, as its wheel is linked with a library of the system that bare machines lack.
    """
    try:
        import cv2
    except ImportError as error:
        raise DeviceError(
            f"OpenCV can't be loaded ({error}); on Debian: apt-get install libgl1 libglib2.0-0"
        ) from error
    return cv2


@dataclass(frozen=True, eq=False)
class Part:
    """Connected part of a mask."""

    outline: Ring
    holes: tuple[Ring, ...]


def edge_rings(mask: npt.NDArray[np.bool_], left: int, top: int, tolerance_px: float) -> list[Ring]:
    """Pixel-edge rings of a mask, one for each part, holes joined by cuts; none for an empty mask.

    Pixels that touch only at a corner are parts of their own. No simplified ring strays farther than the tolerance;
    0 keeps every corner and so the very mask.

    Args:
        mask: (height, width), the part of an image that holds the whole mask.
        left: The image's column in which it begins.
        top: Row likewise.
        tolerance_px: How far a simplified ring may stray.
    """
    return [_with_cuts(_simplified(part, tolerance_px)) for part in _edge_parts(*_padded(mask, left, top))]


def centre_rings(mask: npt.NDArray[np.bool_], left: int, top: int, tolerance_px: float) -> list[Ring]:
    """Pixel-centre rings of a mask, likewise.

    Pixels that touch at a corner hang together. Every ring has three corners at least: a part of one pixel has its
    centre three times.
    """
    rings = [_with_cuts(_simplified(part, tolerance_px)) for part in _centre_parts(*_padded(mask, left, top))]
    # Readers take two corners for no polygon at all.
    return [np.concatenate([ring, *[ring[:1]] * (FEWEST_CORNERS - len(ring))]) for ring in rings]


def _padded(mask: npt.NDArray[np.bool_], left: int, top: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The mask with a margin of one pixel, as 0 and 1, and the x and y of its corner."""
    return np.pad(np.ascontiguousarray(mask).view(np.uint8), 1), np.array([left - 1, top - 1])


def _edge_parts(inside: npt.NDArray[np.uint8], origin_xy: npt.NDArray[np.int64]) -> list[Part]:
    """The mask's parts, along the edges between mask and background."""
    labels = opencv().connectedComponents(inside, connectivity=4)[1]
    outlines: dict[int, Ring] = {}
    holes = defaultdict[int, list[Ring]](list)
    for ring in _edge_rings(inside.astype(np.bool_)):
        x, y = min(ring, key=lambda corner: (corner[1], corner[0]))
        placed = np.array(ring, dtype=np.float64) + origin_xy
        # Below a ring's top left corner lies the part that it bounds, or the hole, which has its part above.
        if inside[y, x]:
            outlines[labels[y, x]] = placed
        else:
            # All rings go clockwise. A hole goes the other way, so that its area is taken away from the part's.
            holes[labels[y - 1, x]].append(placed[::-1])
    return [Part(outlines[part], tuple(holes[part])) for part in sorted(outlines)]


def _edge_rings(inside: npt.NDArray[np.bool_]) -> list[list[tuple[int, int]]]:
    """The rings of corners, each starting anywhere; `inside` has an empty margin.

    Along each row of the pixel grid, the first corner is joined to the second, the third to the fourth and so on, and
    likewise down each column. So a ring is walked by going across and down in turn.
    """
    up_left, up_right, low_left, low_right = inside[:-1, :-1], inside[:-1, 1:], inside[1:, :-1], inside[1:, 1:]
    turns = up_left ^ up_right ^ low_left ^ low_right
    touching = (up_left == low_right) & (up_left != up_right) & (up_right == low_left)
    # Where two pixels touch at a corner only, two rings turn: the corner counts twice.
    rows, columns = np.nonzero(turns | touching)
    rows, columns = (np.repeat(axis, 1 + touching[rows, columns]) for axis in (rows, columns))
    n_corners = len(rows)
    is_second = np.zeros(n_corners, dtype=np.bool_)
    is_second[1:] = (rows[1:] == rows[:-1]) & (columns[1:] == columns[:-1])
    # The first of the two ends the edge from the left. It belongs to the pixel up left or down left, whichever is set,
    # and so goes on up or down.
    goes_down = (~up_left & touching)[rows, columns]
    order = np.lexsort((is_second ^ goes_down, rows, columns))
    across = (np.arange(n_corners) ^ 1).tolist()
    down = order[np.arange(n_corners) ^ 1][np.argsort(order)].tolist()
    corners = list(zip((columns + 1).tolist(), (rows + 1).tolist(), strict=True))
    waiting = [True] * n_corners
    rings = []
    for start in range(n_corners):
        ring, here = [], start
        while waiting[here]:
            across_from_here = across[here]
            waiting[here] = waiting[across_from_here] = False
            ring += [corners[here], corners[across_from_here]]
            here = down[across_from_here]
        if ring:
            rings.append(ring)
    return rings


def _centre_parts(inside: npt.NDArray[np.uint8], origin_xy: npt.NDArray[np.int64]) -> list[Part]:
    """The mask's parts, through the centres of the outermost pixels."""
    cv2 = opencv()
    contours, hierarchy = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    rings = [contour[:, 0].astype(np.float64) + origin_xy + 0.5 for contour in contours]
    parents = [] if hierarchy is None else hierarchy[0, :, 3].tolist()
    holes = defaultdict[int, list[Ring]](list)
    for ring, parent in zip(rings, parents, strict=True):
        holes[parent].append(ring)
    # Where nothing is around a ring, its parent is -1.
    return [Part(rings[index], tuple(holes[index])) for index, parent in enumerate(parents) if parent < 0]


def _with_cuts(part: Part) -> Ring:
    """One ring of a part's outline and its holes."""
    joined = part.outline
    # From left to right, so that what lies to the left of a hole is joined already.
    for hole in sorted(part.holes, key=lambda ring: ring[:, 0].min()):
        there = int(np.lexsort((hole[:, 1], hole[:, 0]))[0])
        here, meeting = _first_to_the_left(joined, hole[there])
        joined = spliced(joined, here, meeting, hole, there)
    return joined


def _simplified(part: Part, tolerance_px: float) -> Part:
    """The part with fewer corners, by Douglas and Peucker; outline and holes don't cross, and no ring vanishes."""
    # Through centres, a part of one or two pixels has fewer corners than a ring takes.
    if tolerance_px <= 0 or len(part.outline) < FEWEST_CORNERS:
        return part
    polygon = shapely.simplify(shapely.Polygon(part.outline, part.holes), tolerance_px, preserve_topology=True)
    return Part(ring_of(polygon.exterior), tuple(ring_of(hole) for hole in polygon.interiors))


def ring_of(closed: shapely.LinearRing) -> Ring:
    """Corners of a ring, without the last, which shapely has as the first again."""
    corners: Ring = shapely.get_coordinates(closed)[:-1]
    return corners


def _first_to_the_left(ring: Ring, corner: npt.NDArray[np.float64]) -> tuple[int, npt.NDArray[np.float64]]:
    """Index of the side that is met first on the way left from a hole's corner, and the point on it.

    Where a ring that touched itself was simplified, nothing may be there: the nearest corner is taken.
    """
    starts, ends = ring, np.roll(ring, -1, axis=0)
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    sides = np.flatnonzero((low <= corner[1]) & (corner[1] <= high) & (low < high))
    share = (corner[1] - starts[sides, 1]) / (ends[sides, 1] - starts[sides, 1])
    x = starts[sides, 0] + share * (ends[sides, 0] - starts[sides, 0])
    left = np.flatnonzero(x <= corner[0])
    if not left.size:
        nearest = int(((ring - corner) ** 2).sum(1).argmin())
        return nearest, ring[nearest]
    best = left[x[left].argmax()]
    return int(sides[best]), np.array([x[best], corner[1]])


def spliced(ring: Ring, side: int, meeting: npt.NDArray[np.float64], other: Ring, there: int) -> Ring:
    """The ring that leaves `ring` at a point on a side, goes round `other` from its corner `there`, and comes back."""
    around = np.concatenate([other[there:], other[: there + 1]])
    joined = np.concatenate([ring[: side + 1], meeting[None], around, meeting[None], ring[side + 1 :]])
    return joined[np.r_[True, (joined[1:] != joined[:-1]).any(1)]]
