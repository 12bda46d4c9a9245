"""Batches that are too much for the device's memory: halved, padded, and in their order."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fakes import ColourDetector, InnerSegmenter, painted
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.batches import BatchProcessor, ReadImage, batch_ranges, batches
from grounded_seg.engine.request import Processed, Request
from grounded_seg.errors import DeviceMemoryError, UsageError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageResult, ImageSkipped

RED = prompts_from(["red car"])


class SmallDetector(ColourDetector):
    """Has memory for so many images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def detect(self, images: Sequence[Image], *rest: Any, **options: Any) -> list[tuple[Detection, ...]]:
        if len(images) > self.room:
            raise DeviceMemoryError(f"no room for {len(images)}")
        return super().detect(images, *rest, **options)


def batch(n_images: int, boxes: tuple[Detection, ...] | None = None) -> list[ReadImage]:
    """Images with a red thing of growing width; the second can't be read."""
    images = [Image(Path(f"{number}.png"), painted(40, 30, red=(0, 0, 5 + number, 9))) for number in range(n_images)]
    read = [*images[:1], ImageSkipped(Path("1.png"), "damaged", "ImageError"), *images[2:]]
    return [
        ReadImage(Request(index, image.path.name, image.path, RED, boxes=boxes), image, 0.5)
        for index, image in enumerate(read)
    ]


def widths(processed: Sequence[Processed]) -> list[float | None]:
    results = [one.result for one in processed]
    return [one.instances[0].box_xyxy[2] if isinstance(one, PromptedResult) else None for one in results]


def test_batches_are_cut_by_position() -> None:
    assert list(batches([], 3)) == []
    assert list(batches(range(7), 3)) == [(0, 1, 2), (3, 4, 5), (6,)]
    with pytest.raises(UsageError, match="batch-size"):
        list(batches([1], 0))
    with pytest.raises(UsageError, match="batch-size"):
        list(batch_ranges(1, 0))


def test_a_batch_never_crosses_a_group() -> None:
    assert list(batches("aaabbc", 2, ord)) == [("a", "a"), ("a",), ("b", "b"), ("c",)]
    assert list(batch_ranges(6, 2, (0, 3, 5))) == [range(2), range(2, 3), range(3, 5), range(5, 6)]
    assert list(batch_ranges(0, 2)) == []


@given(st.lists(st.integers(1, 7), max_size=6), st.integers(1, 4))
def test_ranges_and_batches_are_cut_alike(lengths: list[int], size: int) -> None:
    starts = [sum(lengths[:number]) for number in range(len(lengths))]
    groups = [number for number, length in enumerate(lengths) for _ in range(length)]
    ranges = [tuple(one) for one in batch_ranges(len(groups), size, starts or (0,))]
    assert ranges == list(batches(range(len(groups)), size, groups.__getitem__))
    assert [index for one in ranges for index in one] == list(range(len(groups)))


@pytest.mark.parametrize(("room", "sizes"), [(6, [6]), (3, [3, 3]), (2, [1] * 5)])
def test_a_batch_that_is_too_much_goes_through_in_halves(
    room: int, sizes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    detector = SmallDetector(room)
    processor = BatchProcessor(Chain(detector, InnerSegmenter()), 6)
    assert widths(processor.process(batch(6))) == [5, None, 7, 8, 9, 10]
    assert detector.batch_sizes == sizes
    halvings = {6: [], 3: [3], 2: [3, 1]}[room]
    assert [record.args for record in caplog.records] == [(n_at_once,) for n_at_once in halvings]
    assert processor.n_at_once == (halvings or [6])[-1]
    # The next batch starts with what went through.
    detector.batch_sizes.clear()
    assert widths(processor.process(batch(6))) == [5, None, 7, 8, 9, 10]
    assert detector.batch_sizes == sizes
    assert len(caplog.records) == len(halvings)


def test_what_is_too_much_for_the_segmenter_is_remembered_as_well() -> None:
    class SmallSegmenter(InnerSegmenter):
        """Has memory for so many images of a batch."""

        def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[ImageResult]:
            if len(images) > 2:
                raise DeviceMemoryError("no room to segment")
            return super().segment(images, detections)

    detector = SmallDetector(8)
    processor = BatchProcessor(Chain(detector, SmallSegmenter()), 8)
    n_at_once = []
    for _ in range(2):
        assert widths(processor.process(batch(8))) == [5, None, *range(7, 13)]
        n_at_once.append(processor.n_at_once)
    assert n_at_once == [2, 2]
    # Whole, one half of it, and from then on quarters.
    assert detector.batch_sizes == [8, 4, *[2] * 8]


def test_a_short_batch_has_the_shape_of_a_full_one() -> None:
    detector = SmallDetector(6)
    processor = BatchProcessor(Chain(detector, InnerSegmenter()), 6)
    assert widths(processor.process(batch(3))) == [5, None, 7]
    assert detector.batch_sizes == [6]


def test_no_memory_for_one_image_is_an_error() -> None:
    processor = BatchProcessor(Chain(SmallDetector(0), InnerSegmenter()), 4)
    with pytest.raises(DeviceMemoryError, match="no room for 1"):
        processor.process(batch(4))


def test_given_boxes_are_cut_to_the_image_and_segmented_beside_the_found_ones() -> None:
    boxes = tuple(Detection("car", "car", box, 1.0) for box in ((30.0, 20.0, 50.0, 40.0), (45.0, 0.0, 60.0, 9.0)))
    processed = BatchProcessor(Chain(ColourDetector(), InnerSegmenter()), 3).process(batch(3, boxes))
    assert widths(processed) == [5, None, 7]
    for one in (processed[0], processed[2]):
        assert one.given is not None
        # The second lies outside of the image.
        assert [instance.box_xyxy for instance in one.given] == [(30.0, 20.0, 40.0, 30.0)]
        assert set(one.seconds) == {"read", "detect", "segment", "true_boxes"}
        assert one.seconds["read"] == 0.5
    assert (processed[1].given, processed[1].seconds) == (None, {"read": 0.5})
    [unasked, *_] = BatchProcessor(Chain(ColourDetector(), InnerSegmenter()), 3).process(batch(3))
    assert unasked.given is None


def test_each_image_of_a_batch_is_asked_its_own_prompts() -> None:
    detector = ColourDetector()
    image = Image(Path("a.png"), painted(40, 30, red=(0, 0, 9, 9), blue=(20, 10, 30, 20)))
    asked = [["red car"], ["blue car"], [], ["blue car", "red car"]]
    prompts = [prompts_from(some) if some else replace(RED, prompts=(), class_names=()) for some in asked]
    read = [ReadImage(Request(index, "a.png", image.path, one), image, 0) for index, one in enumerate(prompts)]
    processed = BatchProcessor(Chain(detector, InnerSegmenter()), 4).process(read)
    assert detector.batch_sizes == [4]
    results = [one.result for one in processed if isinstance(one.result, PromptedResult)]
    # In the order in which the batch names them first.
    assert [sorted(one.detection.prompt for one in result.instances) for result in results] == list(map(sorted, asked))
    assert [result.asked for result in results] == prompts
