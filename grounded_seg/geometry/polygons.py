"""Polygons from masks, in the two conventions that readers rasterise by, and masks from polygons and outlines.

Pixel-edge polygons run along the outer edges of the pixels, as the box convention of `grounded_seg` has it. pycocotools
turns them back into exactly the same mask. Pixel-centre polygons run through the centres of the outermost pixels, for
readers that draw the outline along with the inside (OpenCV's `fillPoly`, Pillow's `polygon`): those make a pixel-edge
polygon a pixel too wide and too high.

A polygon is one ring without holes, so a hole is joined to the outline by a cut of no width that runs there and back.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from grounded_seg.geometry.masks import (
    mask_from_run_length,
    opencv,
    run_length_from_mask,
    run_length_from_polygons,
    tight_box_xyxy,
)
from grounded_seg.records import ImageSize, LabelledPolygons, RunLength

_FEWEST_CORNERS = 3
Ring: TypeAlias = npt.NDArray[np.float64]
"""(n, 2), x and y of each corner in pixels; the last corner is joined to the first."""


@dataclass(frozen=True, eq=False)
class Part:
    """Connected part of a mask."""

    outline: Ring
    holes: tuple[Ring, ...]


def edge_polygons_from_mask(mask: RunLength, tolerance_px: float = 0.0) -> list[Ring]:
    """Pixel-edge polygons of a mask, one for each part, holes joined by cuts; none for an empty mask.

    Pixels that touch only at a corner are parts of their own. No simplified polygon strays farther than the tolerance;
    0 keeps every corner and so the very mask.
    """
    return [_with_cuts(_simplified(part, tolerance_px)) for part in _edge_parts(mask)]


def centre_polygons_from_mask(mask: RunLength, tolerance_px: float = 0.0) -> list[Ring]:
    """Pixel-centre polygons of a mask, likewise; `drawn_mask` is the way back.

    Pixels that touch at a corner hang together. Every polygon has three corners at least: a part of one pixel has its
    centre three times.
    """
    rings = [_with_cuts(_simplified(part, tolerance_px)) for part in _centre_parts(mask)]
    # Readers take two corners for no polygon at all.
    return [np.concatenate([ring, *[ring[:1]] * (_FEWEST_CORNERS - len(ring))]) for ring in rings]


def joined_parts(rings: Sequence[Ring]) -> Ring:
    """One polygon made of several, (n, 2), for formats that have room for one only; (0, 2) of none.

    The parts are joined by short lines from corner to corner. A reader that draws outlines shows them a pixel wide.
    """
    if not rings:
        return np.zeros((0, 2))
    largest = max(rings, key=len)
    others = [(_shortest_gap(largest, ring)[0], index) for index, ring in enumerate(rings) if ring is not largest]
    joined = largest
    # From near to far, so that a far part can be joined to one on the way.
    for _, index in sorted(others):
        _, here, there = _shortest_gap(joined, rings[index])
        joined = _spliced(joined, here, joined[here], rings[index], there)
    return joined


def drawn_mask(rings: Sequence[Ring], size: ImageSize) -> RunLength:
    """Mask of pixel-centre polygons, filled as readers do that draw an outline along with its inside."""
    cv2 = opencv()
    canvas = np.zeros((size.height, size.width), np.uint8)
    for ring in rings:
        # One by one: together, what two of them cover would be left out.
        cv2.fillPoly(canvas, [np.floor(ring).astype(np.int32)], 1)
    return run_length_from_mask(canvas.astype(np.bool_))


def run_length_from_outline(outline: LabelledPolygons, size: ImageSize) -> RunLength | None:
    """Mask of an outline that Florence-2 answers with; None where nothing is enclosed, or less than a pixel.

    A ring that crosses itself, as generated ones do, is taken for the areas that it encloses an odd number of times.
    Several rings, in pixels of the upright image, are parts of one object.
    """
    rings = [ring for ring in outline.polygons if len(ring) >= _FEWEST_CORNERS]
    whole = shapely.union_all([shapely.make_valid(shapely.Polygon(ring)) for ring in rings])
    filled = np.zeros((size.height, size.width), dtype=np.bool_)
    for area in _areas(whole):
        inside = _filled([area.exterior], size)
        # Only out of its own area: a part that lies within a hole of another stays.
        if area.interiors:
            inside &= ~_filled(area.interiors, size)
        filled |= inside
    return run_length_from_mask(filled) if filled.any() else None


def _filled(rings: Sequence[shapely.LinearRing], size: ImageSize) -> npt.NDArray[np.bool_]:
    polygons = [_ring_of(ring).ravel().tolist() for ring in rings]
    return mask_from_run_length(run_length_from_polygons(polygons, size))


def _areas(shape: BaseGeometry) -> Iterator[shapely.Polygon]:
    """Yield the parts that have an area: a valid shape may also hold points and lines."""
    if isinstance(shape, shapely.Polygon) and not shape.is_empty:
        yield shape
    for part in getattr(shape, "geoms", ()):
        yield from _areas(part)


def _inside(mask: RunLength) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """The mask cut out with a margin of one pixel, as 0 and 1, and the x and y of the cut-out's corner."""
    x0, y0, x1, y1 = (int(edge) for edge in tight_box_xyxy(mask))
    pixels = mask_from_run_length(mask)[y0:y1, x0:x1]
    return np.pad(np.ascontiguousarray(pixels).view(np.uint8), 1), np.array([x0 - 1, y0 - 1])


def _edge_parts(mask: RunLength) -> list[Part]:
    """The mask's parts, along the edges between mask and background."""
    inside, origin_xy = _inside(mask)
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


def _centre_parts(mask: RunLength) -> list[Part]:
    """The mask's parts, through the centres of the outermost pixels."""
    inside, origin_xy = _inside(mask)
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
        joined = _spliced(joined, here, meeting, hole, there)
    return joined


def _simplified(part: Part, tolerance_px: float) -> Part:
    """The part with fewer corners, by Douglas and Peucker; outline and holes don't cross, and no ring vanishes."""
    # Through centres, a part of one or two pixels has fewer corners than a ring takes.
    if tolerance_px <= 0 or len(part.outline) < _FEWEST_CORNERS:
        return part
    polygon = shapely.simplify(shapely.Polygon(part.outline, part.holes), tolerance_px, preserve_topology=True)
    return Part(_ring_of(polygon.exterior), tuple(_ring_of(hole) for hole in polygon.interiors))


def _ring_of(closed: shapely.LinearRing) -> Ring:
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


def _shortest_gap(first: Ring, second: Ring) -> tuple[float, int, int]:
    """Squared distance in pixels of the two corners that lie nearest, and their indices."""
    best = (np.inf, 0, 0)
    # Rows in blocks: two long outlines' whole table of distances would be large.
    for start in range(0, len(first), 256):
        distances = ((first[start : start + 256, None] - second[None]) ** 2).sum(2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        best = min(best, (float(distances[here, there]), start + int(here), int(there)))
    return best


def _spliced(ring: Ring, side: int, meeting: npt.NDArray[np.float64], other: Ring, there: int) -> Ring:
    """The ring that leaves `ring` at a point on a side, goes round `other` from its corner `there`, and comes back."""
    around = np.concatenate([other[there:], other[: there + 1]])
    joined = np.concatenate([ring[: side + 1], meeting[None], around, meeting[None], ring[side + 1 :]])
    return joined[np.r_[True, (joined[1:] != joined[:-1]).any(1)]]
