"""Polygons from masks, in the two conventions of `outlines`, and masks from polygons and outlines."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry.base import BaseGeometry

from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_mask, run_length_from_polygons
from grounded_seg.geometry.outlines import FEWEST_CORNERS, Ring, centre_rings, opencv, ring_of, spliced
from grounded_seg.geometry.run_length import ImageSize, RunLength


def edge_polygons_from_mask(mask: RunLength, tolerance_px: float = 0.0) -> list[Ring]:
    """Pixel-edge polygons of a mask; see `RunLength.polygons`."""
    return mask.polygons(tolerance_px)


def centre_polygons_from_mask(mask: RunLength, tolerance_px: float = 0.0) -> list[Ring]:
    """Pixel-centre polygons of a mask, likewise; `drawn_mask` is the way back.

    Pixels that touch at a corner hang together. Every polygon has three corners at least: a part of one pixel has its
    centre three times.
    """
    return centre_rings(*mask.tight_region(), tolerance_px)


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
        joined = spliced(joined, here, joined[here], rings[index], there)
    return joined


def drawn_mask(rings: Sequence[Ring], size: ImageSize) -> RunLength:
    """Mask of pixel-centre polygons, filled as readers do that draw an outline along with its inside."""
    cv2 = opencv()
    canvas = np.zeros((size.height, size.width), np.uint8)
    for ring in rings:
        # One by one: together, what two of them cover would be left out.
        cv2.fillPoly(canvas, [np.floor(ring).astype(np.int32)], 1)
    return run_length_from_mask(canvas.astype(np.bool_))


def run_length_from_outline(outline: Sequence[Sequence[tuple[float, float]]], size: ImageSize) -> RunLength | None:
    """Mask of an outline that Florence-2 answers with; None where nothing is enclosed, or less than a pixel.

    A ring that crosses itself, as generated ones do, is taken for the areas that it encloses an odd number of times.
    Several rings of (x, y) pixels of the upright image are parts of one object.
    """
    rings = [ring for ring in outline if len(ring) >= FEWEST_CORNERS]
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
    polygons = [ring_of(ring).ravel().tolist() for ring in rings]
    return mask_from_run_length(run_length_from_polygons(polygons, size))


def _areas(shape: BaseGeometry) -> Iterator[shapely.Polygon]:
    """Yield the parts that have an area: a valid shape may also hold points and lines."""
    if isinstance(shape, shapely.Polygon) and not shape.is_empty:
        yield shape
    for part in getattr(shape, "geoms", ()):
        yield from _areas(part)


def _shortest_gap(first: Ring, second: Ring) -> tuple[float, int, int]:
    """Squared distance in pixels of the two corners that lie nearest, and their indices."""
    best = (np.inf, 0, 0)
    # Rows in blocks: two long outlines' whole table of distances would be large.
    for start in range(0, len(first), 256):
        distances = ((first[start : start + 256, None] - second[None]) ** 2).sum(2)
        here, there = np.unravel_index(distances.argmin(), distances.shape)
        best = min(best, (float(distances[here, there]), start + int(here), int(there)))
    return best
