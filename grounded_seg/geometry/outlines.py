"""Florence-2's outlines as masks, so that its own segmentation can be compared with the segmenter's."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import shapely
from shapely.geometry import Polygon
from shapely.geometry.base import BaseGeometry

from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_mask, run_length_from_polygons
from grounded_seg.records import ImageSize, LabelledPolygons, RunLength

_FEWEST_CORNERS = 3


def run_length_from_outline(outline: LabelledPolygons, size: ImageSize) -> RunLength | None:
    """Fill an outline.

    A ring that crosses itself, as generated ones do, is taken for the areas that it encloses an odd number of times.
    Several rings are parts of one object. None where nothing is enclosed, or it is less than a pixel.

    Args:
        outline: In pixels of the image.
        size: The upright image.
    """
    rings = [ring for ring in outline.polygons if len(ring) >= _FEWEST_CORNERS]
    whole = shapely.union_all([shapely.make_valid(Polygon(ring)) for ring in rings])
    filled = np.zeros((size.height, size.width), dtype=np.bool_)
    for area in _areas(whole):
        inside = _mask([area.exterior], size)
        # Only out of its own area: a part that lies within a hole of another stays.
        if area.interiors:
            inside &= ~_mask(area.interiors, size)
        filled |= inside
    return run_length_from_mask(filled) if filled.any() else None


def _mask(rings: Sequence[shapely.LinearRing], size: ImageSize) -> npt.NDArray[np.bool_]:
    return mask_from_run_length(run_length_from_polygons([_corners(ring) for ring in rings], size))


def _areas(shape: BaseGeometry) -> Iterator[Polygon]:
    """Yield the parts that have an area: a valid shape may also hold points and lines."""
    if isinstance(shape, Polygon):
        if not shape.is_empty:
            yield shape
    else:
        for part in getattr(shape, "geoms", ()):
            yield from _areas(part)


def _corners(ring: shapely.LinearRing) -> list[float]:
    """List x and y in turn, without the last corner, which is the first again."""
    flat: list[float] = np.asarray(ring.coords)[:-1, :2].ravel().tolist()
    return flat
