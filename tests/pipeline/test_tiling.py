"""Tiles: they cover the image and overlap enough, and what is found on several of them is found once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import ColourDetector, InnerSegmenter, painted
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import mask_from_run_length
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.pipeline.tiling import crops_of, tile_sides, tiles
from grounded_seg.records import Detection, Image, ImageResult, ImageSize, Instance
from grounded_seg.settings import DetectSettings, SuppressionScope, TileSettings

lengths = st.integers(1, 5000)
settings_of_tiles = st.builds(TileSettings, side=st.integers(200, 2000), overlap=st.floats(0, 0.5, allow_nan=False))


@given(lengths, lengths, settings_of_tiles)
def test_tiles_cover_the_image_alike_and_overlap_enough(width: int, height: int, settings: TileSettings) -> None:
    found = tiles(ImageSize(width, height), settings.side, settings.overlap)
    if max(width, height) <= settings.side:
        assert found == []
        return
    assert {(tile.right - tile.left, tile.bottom - tile.top) for tile in found} == {
        (min(width, settings.side), min(height, settings.side))
    }
    columns = sorted({(tile.left, tile.right) for tile in found})
    rows = sorted({(tile.top, tile.bottom) for tile in found})
    assert len(found) == len(columns) * len(rows)
    for spans, length in ((columns, width), (rows, height)):
        assert (spans[0][0], spans[-1][1]) == (0, length)
        assert all(earlier[1] - later[0] >= settings.overlap * settings.side for earlier, later in pairwise(spans))
        # One tile less would not reach with this overlap.
        fewest = 1 + max(0, length - settings.side) / (settings.side - np.ceil(settings.overlap * settings.side))
        assert len(spans) < fewest + 1


@given(lengths, st.integers(1, 8), st.floats(0, 0.99))
def test_tiny_tiles_still_cover_a_line(length: int, side: int, overlap: float) -> None:
    found = tiles(ImageSize(length, 1), side, overlap)
    assert {column for tile in found for column in range(tile.left, tile.right)} == (
        set(range(length)) if length > side else set()
    )


@pytest.mark.parametrize(("side", "overlap"), [(0, 0.2), (100, 0.51), (100, -0.1), (100, float("nan"))])
def test_impossible_tiles_are_refused(side: int, overlap: float) -> None:
    with pytest.raises(UsageError, match=r"it must be .*(at least|between 0 and 0\.5)"):
        TileSettings(side, overlap)


RED = {"red car": "car"}


class Finding:
    """Both stages: nothing comes of the detector, and the segmenter gives what a function finds."""

    def __init__(self, find: Callable[[Sequence[Image]], list[ImageResult]]) -> None:
        self.find = find

    def detect(self, images: Sequence[Image], *_: Any, **__: Any) -> list[tuple[Detection, ...]]:
        return [() for _ in images]

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[ImageResult]:
        return self.find(images)


def find_on_tiles(
    find: Callable[[Sequence[Image]], list[ImageResult]],
    images: Sequence[Image],
    settings: TileSettings,
    classes: dict[str, str],
    detect: DetectSettings,
) -> list[PromptedResult]:
    """What a chain makes of the images where this is found on them and on their tiles."""
    prompts = PromptSet(tuple(classes), tuple(classes.values()))
    chain = Chain(Finding(find), Finding(find), tiles=settings, detect=detect)
    return chain.results(images, [prompts] * len(images))


def find_red(images: Sequence[Image]) -> list[ImageResult]:
    return InnerSegmenter().segment(images, ColourDetector().detect(images, ["red car"]))


def result(image: Image, *instances: Instance) -> ImageResult:
    return ImageResult(image.path, image.size, instances)


def picture(width: int, height: int, **boxes: tuple[int, int, int, int]) -> Image:
    return Image(path=Path("x.png"), pixels=painted(width, height, **boxes))


def pixels_of(instance: Instance) -> tuple[int, ...]:
    assert instance.mask is not None
    rows, columns = np.nonzero(mask_from_run_length(instance.mask))
    return (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)


@pytest.mark.parametrize("box", [(3, 4, 20, 22), (30, 4, 55, 30), (80, 60, 97, 72), (35, 20, 75, 50), (0, 0, 100, 75)])
def test_an_object_on_several_tiles_is_found_once_where_it_is(box: tuple[int, int, int, int]) -> None:
    image = picture(100, 75, red=box)
    seen: list[int] = []

    def find(images: Sequence[Image]) -> list[ImageResult]:
        seen.append(len(images))
        return find_red(images)

    [found] = find_on_tiles(find, [image], TileSettings(side=40, overlap=0.25), RED, DetectSettings())
    assert seen == [1] * (1 + 3 * 3)
    [instance] = found.instances
    assert instance.box_xyxy == box
    assert pixels_of(instance) == (box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1)
    assert instance.mask is not None
    assert instance.mask.size == image.size


def test_what_only_a_tile_shows_is_found() -> None:
    image = picture(100, 75, red=(50, 60, 58, 66))

    def find(images: Sequence[Image]) -> list[ImageResult]:
        return [
            one if image.width <= 40 else replace(one, instances=())
            for image, one in zip(images, find_red(images), strict=True)
        ]

    [found] = find_on_tiles(find, [image], TileSettings(side=40), RED, DetectSettings())
    assert [instance.box_xyxy for instance in found.instances] == [(50, 60, 58, 66)]


def test_a_part_at_a_tiles_edge_gives_way_to_the_whole_though_its_box_stops_short_of_the_edge() -> None:
    # Tiles from 0 to 1000 and from 800 to 1800; the first shows half of the object, surely, the second all of it.
    shown = iter([None, ((900, 2, 995, 8), 0.9), ((100, 2, 300, 8), 0.5)])

    def find(images: Sequence[Image]) -> list[ImageResult]:
        found = [next(shown) for _ in images]
        return [
            result(image, *([] if one is None else [Instance(Detection("car", "red car", *one), None, None)]))
            for image, one in zip(images, found, strict=True)
        ]

    [found] = find_on_tiles(find, [picture(1800, 10)], TileSettings(side=1000), RED, DetectSettings())
    assert [instance.box_xyxy for instance in found.instances] == [(900, 2, 1100, 8)]


def test_without_masks_boxes_are_merged() -> None:
    image = picture(100, 40, red=(20, 5, 50, 30))

    def boxes_only(images: Sequence[Image]) -> list[ImageResult]:
        found = ColourDetector().detect(images, ["red car"])
        return [
            result(image, *(Instance(one, None, None) for one in some))
            for image, some in zip(images, found, strict=True)
        ]

    [found] = find_on_tiles(boxes_only, [image], TileSettings(side=40), RED, DetectSettings())
    assert [instance.box_xyxy for instance in found.instances] == [(20, 5, 50, 30)]


def test_each_image_of_a_batch_keeps_its_own_finds_and_small_ones_get_no_tiles() -> None:
    images = [picture(30, 30, red=(5, 5, 15, 15)), picture(90, 30, red=(60, 5, 80, 20)), picture(20, 20)]
    seen: list[int] = []

    def find(batch: Sequence[Image]) -> list[ImageResult]:
        seen.append(len(batch))
        return find_red(batch)

    found = find_on_tiles(find, images, TileSettings(side=40), RED, DetectSettings())
    assert seen == [3, 3]
    assert [[one.box_xyxy for one in some.instances] for some in found] == [[(5, 5, 15, 15)], [(60, 5, 80, 20)], []]


def test_masks_that_came_out_empty_are_counted_over_all_tiles() -> None:
    # The fake's masks lose their outermost pixels: nothing is left of two.
    [found] = find_on_tiles(find_red, [picture(60, 30, red=(2, 2, 4, 4))], TileSettings(side=40), RED, DetectSettings())
    assert (found.instances, found.n_empty_masks) == ((), 2)


CLASS_OF = {"car": "car", "automobile": "car", "dog": "dog"}


@pytest.mark.parametrize(
    ("scope", "prompts"),
    [
        (SuppressionScope.NONE, ["car", "automobile", "dog"]),
        (SuppressionScope.CLASS, ["automobile", "dog"]),
        (SuppressionScope.AGNOSTIC, ["automobile"]),
    ],
)
def test_duplicates_are_looked_for_within_the_scope_over_all_tiles(scope: SuppressionScope, prompts: list[str]) -> None:
    scores = {"car": 0.5, "automobile": 0.9, "dog": 0.6}

    def find(images: Sequence[Image]) -> list[ImageResult]:
        return [
            replace(
                some,
                instances=tuple(
                    Instance(Detection(prompt, prompt, one.box_xyxy, scores[prompt]), one.mask, 0.5)
                    for prompt in scores
                    for one in some.instances
                ),
            )
            for some in find_red(images)
        ]

    image = picture(100, 40, red=(20, 5, 50, 30))
    [found] = find_on_tiles(find, [image], TileSettings(side=40), CLASS_OF, DetectSettings(nms=scope))
    assert [one.detection.prompt for one in found.instances] == prompts


def test_the_limit_holds_for_the_image_not_for_each_tile() -> None:
    def one_each(images: Sequence[Image]) -> list[ImageResult]:
        # The whole image shows nothing; each tile the same small box, with a score of its own.
        return [
            result(image, Instance(Detection("red car", "red car", (10, 10, 20, 20), next(scores)), None, None))
            if image.width <= 40
            else result(image)
            for image in images
        ]

    for limit in (1, 2, 100):
        scores = iter([0.4, 0.9, 0.5, 0.6, 0.7, 0.8])
        detect = DetectSettings(max_detections=limit)
        [found] = find_on_tiles(one_each, [picture(120, 40)], TileSettings(side=40, overlap=0), RED, detect)
        assert [one.detection.score for one in found.instances] == [0.9, 0.5, 0.4][:limit]


def test_very_many_tiles_are_told_with_their_number(caplog: pytest.LogCaptureFixture) -> None:
    image = Image(Path("a.png"), painted(640, 480))
    assert len(crops_of(image, TileSettings(100))) < 200
    assert caplog.text == ""
    assert len(crops_of(image, TileSettings(5))) == 19_200
    [record] = caplog.records
    assert "a.png is searched in 19200 tiles of 5 px" in record.message
    assert "raise --tile" in record.message


def test_auto_takes_sides_that_fit_the_detectors_view() -> None:
    auto = TileSettings("auto")
    assert tile_sides(ImageSize(4000, 3000), auto, 192) == (288, 576)
    assert tile_sides(ImageSize(4000, 3000), auto, 768) == (1152, 2304)
    # What isn't larger than a tile is asked as a whole in any case.
    assert tile_sides(ImageSize(400, 576), auto, 192) == (288,)
    assert tile_sides(ImageSize(288, 200), auto, 192) == ()
    assert tile_sides(ImageSize(288, 200), TileSettings(100), 192) == (100,)


class Sharp(Finding):
    """A detector that sees images at 10 px."""

    view_px = 10


@pytest.mark.parametrize("width", [15, 30, 90])
def test_auto_searches_the_whole_image_and_tiles_of_both_sides(width: int) -> None:
    seen: list[tuple[int, int]] = []

    def find(images: Sequence[Image]) -> list[ImageResult]:
        seen.extend((image.size.width, image.size.height) for image in images)
        return find_red(images)

    detector = Sharp(find)
    chain = Chain(detector, detector, tiles=TileSettings("auto"))
    [found] = chain.results([picture(width, 12, red=(3, 3, 9, 9))], [PromptSet(tuple(RED), tuple(RED.values()))])
    assert [one.box_xyxy for one in found.instances] == [(3, 3, 9, 9)]
    assert set(seen) == {15: {(15, 12)}, 30: {(30, 12), (15, 12)}, 90: {(90, 12), (30, 12), (15, 12)}}[width]


def test_auto_needs_a_detector_whose_view_is_known() -> None:
    chain = Chain(Finding(find_red), Finding(find_red), tiles=TileSettings("auto"))
    with pytest.raises(UsageError, match=r"Finding, has no view_px.*in pixels"):
        chain.results([picture(50, 50)], [PromptSet(tuple(RED), tuple(RED.values()))])


def test_large_images_without_tiles_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    prompts = PromptSet(tuple(RED), tuple(RED.values()))
    for tiled in (None, TileSettings(20)):
        chain = Chain(Sharp(find_red), Sharp(find_red), tiles=tiled)
        chain.results([picture(40, 40), picture(20, 30)], [prompts] * 2)
        assert caplog.messages == []
    Chain(Sharp(find_red), Sharp(find_red)).results([picture(41, 20)], [prompts])
    assert caplog.messages == [
        "x.png is 41 x 20 px, and the detector sees it at 10 px: small objects are lost; --tile auto looks for them"
    ]
    Chain(Finding(find_red), Finding(find_red)).results([picture(41, 20)], [prompts])
    assert len(caplog.messages) == 1


def found_where(whole: Sequence[Any], on_tiles: dict[int, Sequence[Any]]) -> list[tuple[float, ...]]:
    """The boxes of a 180 x 10 image from boxes with scores on it and on its tiles, at 0 to 100 and 80 to 180."""
    shown = iter([whole, on_tiles.get(0, ()), on_tiles.get(1, ())])

    def find(images: Sequence[Image]) -> list[ImageResult]:
        return [
            result(image, *(Instance(Detection("car", "red car", *one), None, None) for one in next(shown)))
            for image in images
        ]

    [found] = find_on_tiles(find, [picture(180, 10)], TileSettings(side=100), RED, DetectSettings())
    return [one.box_xyxy for one in found.instances]


SMALL = ((10, 2, 18, 8), 0.8), ((40, 2, 48, 8), 0.7)


@pytest.mark.parametrize("score", [0.9, 0.1])
def test_what_holds_several_finds_of_tiles_is_none_and_swallows_nothing(score: float) -> None:
    assert found_where([((0, 0, 180, 10), score)], {0: SMALL}) == [one for one, _ in SMALL]


@pytest.mark.parametrize(("score", "kept"), [(0.9, (0, 0, 60, 10)), (0.1, SMALL[0][0])])
def test_of_a_find_within_one_of_the_whole_image_the_better_is_kept(score: float, kept: tuple[int, ...]) -> None:
    # The same thing twice, as neighbouring tiles show it, is one.
    again = ((10, 2, 18, 9), 0.5)
    assert found_where([((0, 0, 60, 10), score)], {0: [SMALL[0], again]}) == [kept]


def test_a_thing_on_another_of_its_class_stays() -> None:
    large, within = ((10, 1, 50, 9), 0.9), ((20, 2, 30, 8), 0.8)
    assert found_where([], {0: [large, within]}) == [(10, 1, 50, 9), (20, 2, 30, 8)]


def test_a_part_that_a_tile_cuts_off_gives_way_to_the_whole_and_survives_alone() -> None:
    # In the image from 70 to 120: the first tile shows 70 to 100, the second 80 to 120.
    parts = {0: [((70, 2, 100, 8), 0.9)], 1: [((0, 2, 40, 8), 0.8)]}
    assert found_where([((70, 2, 120, 8), 0.5)], parts) == [(70, 2, 120, 8)]
    assert found_where([], {0: parts[0]}) == [(70, 2, 100, 8)]
