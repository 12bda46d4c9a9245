"""Large images in overlapping tiles: how large they are, and where they lie.

A detector sees every image at one size, so that small objects of a large image vanish; on a tile they don't. The whole
image is asked as well, for what is larger than a tile.

How large a tile is to be depends on the detector's view, the size at which it sees an image: `tile_sides`.
"""

import logging
import math
from dataclasses import dataclass

from grounded_seg.records import Image, ImageSize
from grounded_seg.settings import TileSettings

_LOG = logging.getLogger(__name__)

_MANY_TILES = 200
_VIEWS_IN_A_TILE, _SCALE = 1.5, 2
"""Side of the smaller tiles of "auto" in views of the detector, and how many times larger the larger ones are."""
_VIEWS_IN_AN_IMAGE = 4
"""Sides of an image in views of the detector, up to which nothing is said where tiles aren't asked for."""


@dataclass(frozen=True)
class Tile:
    """A part of an image, in whole pixels, half-open."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def side(self) -> int:
        """The longer of its sides."""
        return max(self.right - self.left, self.bottom - self.top)

    def crop(self, image: Image) -> Image:
        """Cut the part out, as an image of its own that shares the pixels."""
        return Image(path=image.path, pixels=image.pixels[self.top : self.bottom, self.left : self.right])


def tile_sides(size: ImageSize, settings: TileSettings, view_px: int | None) -> tuple[int, ...]:
    """Choose the sides of an image's tiles in pixels, ascending: as asked for, or those that fit the detector's view.

    A tile of one and a half views shows small objects well enough, and cuts many of those that are larger than its
    overlap. These are whole on tiles of twice the side, which are a quarter as many. Sides that the image isn't larger
    than are left out, as it is asked as a whole in any case.

    >>> tile_sides(ImageSize(4000, 3000), TileSettings("auto"), 768)
    (1152, 2304)
    """
    if isinstance(settings.side, int):
        return (settings.side,)
    if view_px is None:
        raise ValueError("sides can't fit a view that isn't known")
    side = round(_VIEWS_IN_A_TILE * view_px)
    return tuple(one for one in (side, _SCALE * side) if one < max(size.width, size.height))


def tiles(size: ImageSize, side: int, overlap: float) -> list[Tile]:
    """Cover an image with as few tiles as the overlap allows, evenly spread; none for an image that fits in one.

    All tiles are alike: as wide as the side, or as the image where that is narrower, and as high likewise. They go
    from left to right, then from top to bottom.

    >>> [(tile.left, tile.right) for tile in tiles(ImageSize(1000, 400), side=400, overlap=0.2)]
    [(0, 400), (300, 700), (600, 1000)]
    """
    if max(size.width, size.height) <= side:
        return []
    width, height = min(side, size.width), min(side, size.height)
    return [
        Tile(left, top, left + width, top + height)
        for top in _starts(size.height, side, overlap)
        for left in _starts(size.width, side, overlap)
    ]


def _starts(length: int, side: int, overlap: float) -> list[int]:
    """Place tiles along one axis, the first at the start and the last at the end."""
    surplus = length - side
    if surplus <= 0:
        return [0]
    # A step of at least a pixel, also where a small tile overlaps almost whole.
    longest_step = max(1, side - math.ceil(overlap * side))
    n_steps = math.ceil(surplus / longest_step)
    return [surplus * step // n_steps for step in range(n_steps + 1)]


def crops_of(image: Image, settings: TileSettings, view_px: int | None = None) -> list[tuple[Tile, Image]]:
    """Cut an image into its tiles, each as an image of its own; none for an image that fits in one.

    Very many are told: each goes through the models as an image does.
    """
    sides = tile_sides(image.size, settings, view_px)
    parts = [tile for side in sides for tile in tiles(image.size, side, settings.overlap)]
    if len(parts) > _MANY_TILES:
        _LOG.warning(
            "%s is searched in %d tiles of %s px, each of which takes as long as an image; %s --tile to have fewer",
            str(image.path),
            len(parts),
            " and ".join(map(str, sides)),
            "give a larger" if settings.side == "auto" else "raise",
            extra={"once": True},
        )
    return [(tile, tile.crop(image)) for tile in parts]


def tell_if_tiles_would_help(image: Image, view_px: int | None) -> None:
    """Tell, once, of an image that is so large that the detector sees little of its small objects."""
    if view_px is not None and max(image.size.width, image.size.height) > _VIEWS_IN_AN_IMAGE * view_px:
        _LOG.info(
            "%s is %d x %d px, and the detector sees it at %d px: small objects are lost; --tile auto looks for them",
            str(image.path),
            image.size.width,
            image.size.height,
            view_px,
            extra={"once": True, "is_hint": True},
        )
