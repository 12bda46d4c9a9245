"""The engine: one outcome for each request in their order, whatever takes longest, and what failures leave."""

import collections
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import Paint
from fakes import ColourDetector, InnerSegmenter, found_models

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.executors import N_THREADS, open_engine
from grounded_seg.engine.request import Processed, Request, Work
from grounded_seg.errors import ImageError, OutputError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.records import ImageSize, ImageSkipped
from grounded_seg.settings import ModelSettings

RED = prompts_from(["red car"])


def width(processed: Processed) -> float | str:
    """Takes longest for the first images."""
    time.sleep(0.02 / (1 + processed.request.index))
    result = processed.result
    return result.error if isinstance(result, ImageSkipped) else result.instances[0].box_xyxy[2]


@pytest.fixture
def requests(paint: Paint) -> list[Request]:
    """Seven images with a red thing of growing width."""
    paths = [paint(f"{number}.png", red=(0, 0, 5 + number, 9)) for number in range(7)]
    return [Request(index, path.name, path, RED) for index, path in enumerate(paths)]


def told_before(failure: type[BaseException], outcomes: Iterator[float | str]) -> list[float | str]:
    """What comes before a failure."""
    told: list[float | str] = []
    with pytest.raises(failure):
        collections.deque((told.append(one) for one in outcomes), maxlen=0)
    return told


def run(requests: Sequence[Request], work: Work[float | str], detector: ColourDetector) -> Iterator[float | str]:
    with open_engine(requests, work) as engine:
        engine.read_first()
        engine.load(found_models(ModelSettings(preset="demo")), lambda _: Chain(detector, InnerSegmenter()))
        for outcome in engine.outcomes():
            yield outcome.made


def test_outcomes_come_in_the_order_of_the_requests(requests: list[Request]) -> None:
    detector = ColourDetector()
    assert list(run(requests, Work(width, 3), detector)) == [5, 6, 7, 8, 9, 10, 11]
    assert detector.batch_sizes == [3, 3, 3]


def test_what_is_known_completes_its_batch_and_has_no_outcome(requests: list[Request]) -> None:
    detector = ColourDetector()
    known = [
        Request(one.index, one.name, one.path, one.prompts, is_known=one.index < 4) for one in requests if one.index > 2
    ]
    assert list(run(known, Work(width, 3), detector)) == [9, 10, 11]
    assert detector.batch_sizes == [3, 3]


def test_a_batch_ends_with_its_group_and_is_padded(requests: list[Request]) -> None:
    detector = ColourDetector()
    grouped = [replace(one, group=0 if one.index < 4 else 4) for one in requests]
    assert list(run(grouped, Work(width, 3), detector)) == [5, 6, 7, 8, 9, 10, 11]
    # Three, one, three, each of the shape of a full batch; by position alone the last one would be short.
    assert detector.batch_sizes == [3, 3, 3]
    assert detector.first_images == ["0.png", "3.png", "4.png"]


def test_no_requests_are_no_outcomes() -> None:
    with open_engine([], Work(width)) as engine:
        assert not engine.read_first()
    assert list(run([], Work(width), ColourDetector())) == []


def test_an_image_that_cannot_be_read_is_skipped_or_ends_the_work(requests: list[Request]) -> None:
    requests[4].path.write_bytes(b"")
    assert list(run(requests, Work(width, 2), ColourDetector())) == [5, 6, 7, 8, "ImageError", 10, 11]
    # What was done before it has come by then, though a part of it was still under way.
    assert told_before(ImageError, run(requests, Work(width, 2, skips=False), ColourDetector())) == [5, 6, 7, 8]


def test_an_image_of_another_size_than_it_has_to_have_is_no_good(requests: list[Request]) -> None:
    sized = [Request(0, "0.png", requests[0].path, RED, size=ImageSize(40, 30))]
    assert list(run(sized, Work(width), ColourDetector())) == [5]
    sized = [Request(0, "0.png", requests[0].path, RED, size=ImageSize(30, 40))]
    with pytest.raises(ImageError, match="is 40 x 30 px upright, but its data set says 30 x 40 px"):
        list(run(sized, Work(width, skips=False), ColourDetector()))


def test_what_the_per_image_function_raises_ends_the_work_after_what_was_done(requests: list[Request]) -> None:
    def full(processed: Processed) -> float | str:
        if processed.request.index == 3:
            raise OutputError("the disk is full")
        return width(processed)

    before = set(threading.enumerate())
    assert told_before(OutputError, run(requests, Work(full, 2), ColourDetector())) == [5, 6, 7]
    assert set(threading.enumerate()) <= before


def test_an_interruption_of_the_models_tells_what_was_done_first(requests: list[Request]) -> None:
    class Interrupted(ColourDetector):
        def detect(self, *arguments: object, **options: object) -> list[tuple[object, ...]]:  # type: ignore[override]
            if len(self.batch_sizes) == 2:
                raise KeyboardInterrupt
            return super().detect(*arguments, **options)  # type: ignore[arg-type, return-value]

    assert told_before(KeyboardInterrupt, run(requests, Work(width, 2), Interrupted())) == [5, 6, 7, 8]


def test_requests_are_taken_as_they_are_needed(requests: list[Request]) -> None:
    taken: list[int] = []

    def endless() -> Iterator[Request]:
        while True:
            taken.append(len(taken))
            yield requests[0]

    outcomes = run(endless(), Work(width, 2), ColourDetector())  # type: ignore[arg-type]
    assert next(outcomes) == 5
    # Those ahead, the batches under way, and the one whose outcome came.
    assert len(taken) <= 4 * (2 + N_THREADS)
    outcomes.close()  # type: ignore[attr-defined]


def test_the_per_image_function_has_the_pixels_at_hand(requests: list[Request], tmp_path: Path) -> None:
    def size(processed: Processed) -> float | str:
        return "none" if processed.image is None else float(processed.image.pixels.shape[1])

    requests[1].path.write_bytes(b"")
    assert list(run(requests[:2], Work(size), ColourDetector())) == [40, "none"]
