"""Batches that are too much for the device's memory: halved, padded, and in their order."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from fakes import ColourDetector, InnerSegmenter, painted

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.batches import BatchAsker
from grounded_seg.errors import DeviceMemoryError
from grounded_seg.pipeline.chain import GroundedSegmenter
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageSkipped, SegmentedImage

RED = prompts_from(["red car"])


class SmallDetector(ColourDetector):
    """Has memory for so many images at once."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
    ) -> list[tuple[Detection, ...]]:
        if len(images) > self.room:
            raise DeviceMemoryError(f"no room for {len(images)}")
        return super().detect(images, prompts)


def batch(n_images: int) -> list[Image | ImageSkipped]:
    images = [Image(Path(f"{number}.png"), painted(40, 30, red=(0, 0, 5 + number, 9))) for number in range(n_images)]
    return [*images[:1], ImageSkipped(Path("1.png"), "damaged", "ImageError"), *images[2:]]


def widths(outcomes: Sequence[PromptedResult | ImageSkipped]) -> list[float | None]:
    return [outcome.instances[0].box_xyxy[2] if isinstance(outcome, PromptedResult) else None for outcome in outcomes]


@pytest.mark.parametrize(("room", "sizes"), [(6, [6]), (3, [3, 3]), (2, [1] * 5)])
def test_a_batch_that_is_too_much_goes_through_in_halves(
    room: int, sizes: list[int], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The real one belongs to torch, which takes seconds to load.
    monkeypatch.setitem(sys.modules, "grounded_seg.device.memory", SimpleNamespace(free_memory=lambda: None))
    detector, halvings = SmallDetector(room), []
    asker = BatchAsker(GroundedSegmenter(detector, InnerSegmenter()), RED, 6)
    outcomes = asker.ask(batch(6), lambda: halvings.append(asker.n_at_once))
    assert widths(outcomes) == [5, None, 7, 8, 9, 10]
    assert detector.batch_sizes == sizes
    assert halvings == {6: [], 3: [3], 2: [3, 1]}[room]
    assert len(caplog.records) == len(halvings)
    # The next batch starts with what went through.
    detector.batch_sizes.clear()
    assert widths(asker.ask(batch(6), lambda: halvings.append(0))) == [5, None, 7, 8, 9, 10]
    assert detector.batch_sizes == sizes
    assert 0 not in halvings


def test_what_is_too_much_for_the_segmenter_is_remembered_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    class SmallSegmenter(InnerSegmenter):
        """Has memory for so many images of a batch."""

        def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[SegmentedImage]:
            if len(images) > 2:
                raise DeviceMemoryError("no room to segment")
            return super().segment(images, detections)

    monkeypatch.setitem(sys.modules, "grounded_seg.device.memory", SimpleNamespace(free_memory=lambda: None))
    detector, halvings = SmallDetector(8), []
    asker = BatchAsker(GroundedSegmenter(detector, SmallSegmenter()), RED, 8)
    for _ in range(2):
        assert widths(asker.ask(batch(8), lambda: halvings.append(asker.n_at_once))) == [5, None, *range(7, 13)]
    assert (halvings, asker.n_at_once) == ([4, 2], 2)
    # Whole, one half of it, and from then on quarters.
    assert detector.batch_sizes == [8, 4, *[2] * 8]


def test_a_short_batch_has_the_shape_of_a_full_one() -> None:
    detector = SmallDetector(6)
    asker = BatchAsker(GroundedSegmenter(detector, InnerSegmenter()), RED, 6)
    assert widths(asker.ask(batch(3), lambda: None)) == [5, None, 7]
    assert detector.batch_sizes == [6]


def test_no_memory_for_one_image_is_an_error() -> None:
    asker = BatchAsker(GroundedSegmenter(SmallDetector(0), InnerSegmenter()), RED, 4)
    with pytest.raises(DeviceMemoryError, match="no room for 1"):
        asker.ask(batch(4), lambda: None)
