"""Large images in overlapping tiles: where the tiles lie, and how what was found on them comes together.

A detector sees every image at one size, so that small objects of a large image vanish; on a tile they don't. The whole
image is asked as well, for what is larger than a tile. What was found twice is kept once.

How large a tile is to be depends on the detector's view, the size at which it sees an image: `tile_sides`.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.geometry.boxes import array_from_boxes, indices_by_group, pairwise_containment, pairwise_iou
from grounded_seg.geometry.masks import mask_containment, mask_iou, placed_run_length
from grounded_seg.records import Image, ImageResult, ImageSize, Instance
from grounded_seg.settings import DetectSettings, SuppressionScope, TileSettings

_LOG = logging.getLogger(__name__)

_MANY_TILES = 200
_VIEWS_IN_A_TILE, _SCALE = 2, 2
"""Side of the smaller tiles of "auto" in views of the detector, and how many times larger the larger ones are."""
_VIEWS_IN_AN_IMAGE = 4
"""Sides of an image in views of the detector, up to which nothing is said where tiles aren't asked for."""
IOU_THRESHOLD = 0.5
"""Two finds of one class that overlap by more than this IoU are one object."""
CONTAINMENT_THRESHOLD = 0.7
"""So are two of which the smaller lies within the other by more than this share, where a tile's edge cuts one of them:
it shows a part. Two that are whole may be one thing on another."""
_EDGE_PX, _EDGE_SHARE = 2.0, 0.01
"""A box that comes this near to a tile's inner edge, in pixels or in shares of the side, is taken to go on beyond it: a
detector's boxes lie on a grid of a thousandth of the side, and are off by several of its steps."""


@dataclass(frozen=True)
class Tile:
    """A part of an image, in whole pixels, half-open."""

    left: int
    top: int
    right: int
    bottom: int

    def crop(self, image: Image) -> Image:
        """Cut the part out, as an image of its own that shares the pixels."""
        return Image(path=image.path, pixels=image.pixels[self.top : self.bottom, self.left : self.right])


def tile_sides(size: ImageSize, settings: TileSettings, view_px: int | None) -> tuple[int, ...]:
    """Choose the sides of an image's tiles in pixels, ascending: as asked for, or those that fit the detector's view.

    A tile of two views shows small objects well enough, and cuts many of those that are larger than its overlap. These
    are whole on tiles of twice the side, which are a quarter as many. Sides that the image isn't larger than are left
    out, as it is asked as a whole in any case.

    >>> tile_sides(ImageSize(4000, 3000), TileSettings("auto"), 768)
    (1536, 3072)
    """
    if isinstance(settings.side, int):
        return (settings.side,)
    if view_px is None:
        raise ValueError("sides can't fit a view that isn't known")
    sides = (_VIEWS_IN_A_TILE * view_px, _SCALE * _VIEWS_IN_A_TILE * view_px)
    return tuple(side for side in sides if side < max(size.width, size.height))


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


def merged(
    whole: ImageResult,
    parts: Sequence[tuple[Tile, ImageResult]],
    prompts: PromptSet,
    detect: DetectSettings,
) -> ImageResult:
    """Merge the instances of a whole image and of its tiles.

    Args:
        whole: The instances of the whole image.
        parts: The instances of each tile, in pixels of the tile.
        prompts: What was asked.
        detect: The scope of duplicate removal, and how many instances of a prompt are kept: on the image as a whole,
            just as on one that isn't cut. With scope none, instances of one prompt are still merged.

    Returns:
        Instances in the order of the prompts, from high to low score within a prompt.
    """
    classes = prompts.class_by_prompt
    finds = [(instance, False) for instance in whole.instances]
    for tile, part in parts:
        finds += [
            (_on_image(instance, tile, whole.size), _is_cut(instance, tile, whole.size)) for instance in part.instances
        ]
    # A find that its tile cut off gives way to any that shows the object whole, whatever their scores.
    finds.sort(key=lambda find: (find[1], -find[0].detection.score))
    distinct = _without_duplicates(finds, classes, detect.nms)
    by_prompt = [[one for one in distinct if one.detection.prompt == prompt] for prompt in classes]
    everything = [whole, *(part for _, part in parts)]
    return replace(
        whole,
        instances=tuple(
            one
            for found in by_prompt
            for one in sorted(found, key=lambda one: -one.detection.score)[: detect.max_detections]
        ),
        n_empty_masks=sum(one.n_empty_masks for one in everything),
        n_unusable_boxes=sum(one.n_unusable_boxes for one in everything),
    )


def _without_duplicates(
    best_first: Sequence[tuple[Instance, bool]], classes: Mapping[str, str], scope: SuppressionScope
) -> list[Instance]:
    """Take finds, each with whether its tile cut it, and keep the first of those that are one object."""
    prompts = [one.detection.prompt for one, _ in best_first]
    groups = prompts if scope is SuppressionScope.NONE else [classes[prompt] for prompt in prompts]
    distinct = [best_first[index] for index in _distinct(best_first, groups)]
    if scope is SuppressionScope.AGNOSTIC:
        # What lies within a thing of another class is no part of it that a tile shows: a driver stays beside the car.
        whole = [(one, False) for one, _ in distinct]
        distinct = [distinct[index] for index in _distinct(whole, [""] * len(whole))]
    return [one for one, _ in distinct]


def _distinct(best_first: Sequence[tuple[Instance, bool]], groups: Sequence[str]) -> list[int]:
    """Indices of the first of those of a group that are one object, by masks, or by boxes where there are none."""
    masks = [one.mask for one, _ in best_first if one.mask is not None]
    has_masks = len(masks) == len(best_first)
    boxes = array_from_boxes([one.box_xyxy for one, _ in best_first])
    is_cut = np.array([cut for _, cut in best_first], dtype=np.bool_)
    kept: list[int] = []
    for members in indices_by_group(groups):
        of_group = [masks[index] for index in members.tolist()] if has_masks else []
        iou_of_masks, containment_of_masks = mask_iou(of_group, of_group), mask_containment(of_group, of_group)
        chosen: list[int] = []
        for rank, index in enumerate(members.tolist()):
            others = members[chosen]
            if has_masks:
                iou, containment = iou_of_masks[rank, chosen], containment_of_masks[rank, chosen]
            else:
                # One row at a time: a tiled image may have very many boxes.
                pair = boxes[index : index + 1], boxes[others]
                iou, containment = pairwise_iou(*pair)[0], pairwise_containment(*pair)[0]
            is_part = (is_cut[others] | is_cut[index]) & (containment > CONTAINMENT_THRESHOLD)
            if not (is_part | (iou > IOU_THRESHOLD)).any():
                chosen.append(rank)
        kept += members[chosen].tolist()
    return sorted(kept)


def _on_image(instance: Instance, tile: Tile, size: ImageSize) -> Instance:
    """Move what was found on a tile into the image."""
    x0, y0, x1, y1 = instance.box_xyxy
    box_xyxy = (x0 + tile.left, y0 + tile.top, x1 + tile.left, y1 + tile.top)
    mask = None if instance.mask is None else placed_run_length(instance.mask, tile.left, tile.top, size)
    return replace(instance, detection=replace(instance.detection, box_xyxy=box_xyxy), mask=mask)


def _is_cut(instance: Instance, tile: Tile, size: ImageSize) -> bool:
    """Tell whether a find, in pixels of its tile, touches an edge of the tile that isn't one of the image."""
    x0, y0, x1, y1 = instance.box_xyxy
    width, height = tile.right - tile.left, tile.bottom - tile.top
    near_x, near_y = max(_EDGE_PX, _EDGE_SHARE * width), max(_EDGE_PX, _EDGE_SHARE * height)
    return (
        (tile.left > 0 and x0 < near_x)
        or (tile.top > 0 and y0 < near_y)
        or (tile.right < size.width and x1 > width - near_x)
        or (tile.bottom < size.height and y1 > height - near_y)
    )
