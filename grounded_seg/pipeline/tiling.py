"""Large images in overlapping tiles: where the tiles lie, and how what was found on them comes together.

A detector sees every image at one size, so that small objects of a large image vanish; on a tile they don't. The whole
image is asked as well, for what is larger than a tile. What was found twice is kept once.
"""

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.geometry.masks import masks_kept_by_group, placed_run_length
from grounded_seg.records import Image, ImageResult, ImageSize, Instance
from grounded_seg.settings import DetectSettings, SuppressionScope, TileSettings

_LOG = logging.getLogger(__name__)

_MANY_TILES = 200
IOU_THRESHOLD = 0.5
"""Two finds of one class that overlap by more than this IoU are one object."""
CONTAINMENT_THRESHOLD = 0.7
"""So are two of which the smaller lies within the other by more than this share, as the part that a tile shows does."""
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


def tiles(size: ImageSize, settings: TileSettings) -> list[Tile]:
    """Cover an image with as few tiles as the overlap allows, evenly spread; none for an image that fits in one.

    All tiles are alike: as wide as the side, or as the image where that is narrower, and as high likewise. They go
    from left to right, then from top to bottom.

    >>> [(tile.left, tile.right) for tile in tiles(ImageSize(1000, 400), TileSettings(side=400, overlap=0.2))]
    [(0, 400), (300, 700), (600, 1000)]
    """
    if max(size.width, size.height) <= settings.side:
        return []
    width, height = min(settings.side, size.width), min(settings.side, size.height)
    return [
        Tile(left, top, left + width, top + height)
        for top in _starts(size.height, settings)
        for left in _starts(size.width, settings)
    ]


def _starts(length: int, settings: TileSettings) -> list[int]:
    """Place tiles along one axis, the first at the start and the last at the end."""
    surplus = length - settings.side
    if surplus <= 0:
        return [0]
    # A step of at least a pixel, also where a small tile overlaps almost whole.
    longest_step = max(1, settings.side - math.ceil(settings.overlap * settings.side))
    n_steps = math.ceil(surplus / longest_step)
    return [surplus * step // n_steps for step in range(n_steps + 1)]


def crops_of(image: Image, settings: TileSettings) -> list[tuple[Tile, Image]]:
    """Cut an image into its tiles, each as an image of its own; none for an image that fits in one.

    Very many are told: each goes through the models as an image does.
    """
    parts = tiles(image.size, settings)
    if len(parts) > _MANY_TILES:
        _LOG.warning(
            "%s is searched in %d tiles of %d px, each of which takes as long as an image; raise --tile to have fewer",
            image.path,
            len(parts),
            settings.side,
            extra={"once": True},
        )
    return [(tile, tile.crop(image)) for tile in parts]


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
    distinct = _without_duplicates([instance for instance, _ in finds], classes, detect.nms)
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
    best_first: Sequence[Instance], classes: Mapping[str, str], scope: SuppressionScope
) -> list[Instance]:
    prompts = [one.detection.prompt for one in best_first]
    groups = prompts if scope is SuppressionScope.NONE else [classes[prompt] for prompt in prompts]
    distinct = _distinct(best_first, groups, CONTAINMENT_THRESHOLD)
    # What lies within a thing of another class is no part of it that a tile shows: a driver stays beside the car.
    return _distinct(distinct, [""] * len(distinct), 1.0) if scope is SuppressionScope.AGNOSTIC else distinct


def _distinct(best_first: Sequence[Instance], groups: Sequence[str], containment_threshold: float) -> list[Instance]:
    """Keep the first of those of a group that are one object: by their masks, or by boxes where there are none."""
    masks = [instance.mask for instance in best_first if instance.mask is not None]
    ranks = [-float(index) for index in range(len(best_first))]
    if len(masks) == len(best_first):
        kept = masks_kept_by_group(masks, ranks, groups, IOU_THRESHOLD, containment_threshold)
    else:
        boxes = array_from_boxes([instance.box_xyxy for instance in best_first])
        kept = kept_by_group(boxes, np.array(ranks), groups, IOU_THRESHOLD, containment_threshold).tolist()
    return [best_first[index] for index in sorted(kept)]


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
