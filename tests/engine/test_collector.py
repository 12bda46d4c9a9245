"""Images of many callers, collected into batches: as if each had been asked about alone."""

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from typing import Any

import pytest
from fakes import ColourDetector, InnerSegmenter, painted
from serve_cases import ThresholdColours

from grounded_seg.detect.prompts import PromptSet, prompt_set_from
from grounded_seg.engine.collector import Collected, Collector, Thresholds
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import DeviceMemoryError, UsageError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.records import Image


class GatedDetector(ThresholdColours):
    """A detector whose first batch waits, so that others collect behind it; it remembers what each was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.is_asked = threading.Event()
        self.asked: list[tuple[str, ...]] = []

    def detect(self, images: Any, prompts: Any, class_names: Any = None, *, asked: Any = None) -> Any:
        self.is_asked.set()
        assert self.gate.wait(30)
        self.asked.append(tuple(prompts))
        return super().detect(images, prompts, class_names, asked=asked)


@pytest.fixture
def gated() -> Iterator[tuple[GatedDetector, Collector]]:
    detector = GatedDetector()
    collector = Collector(Chain(detector, InnerSegmenter()), batch_size=3)
    yield detector, collector
    detector.gate.set()
    collector.close()


def picture(width: int = 40) -> Image:
    return Image(Path(f"{width}.png"), painted(width, 30, red=(2, 3, 12, 9), green=(20, 5, 30, 17)))


def found(result: Any) -> list[tuple[str, Any]]:
    return [(one.prompt, one.box_xyxy) for one in result.instances]


def alone(prompts: PromptSet) -> list[tuple[str, Any]]:
    return found(GroundedSegmenter(ColourDetector(), InnerSegmenter())(picture(), prompts))


def wait_for(collector: Collector, n_waiting: int) -> None:
    end = time.monotonic() + 30
    while collector.state.n_waiting != n_waiting:
        assert time.monotonic() < end
        time.sleep(0.005)


def behind_a_batch(gated: tuple[GatedDetector, Collector], asked: Sequence[tuple[Any, Thresholds]]) -> list[Any]:
    """Ask while a first image is with the models; then let all go, and give the results."""
    detector, collector = gated
    first = collector.submit(picture(), prompt_set_from("red"))
    assert detector.is_asked.wait(30)
    futures = [collector.submit(picture(), prompt_set_from(prompts), limits) for prompts, limits in asked]
    wait_for(collector, len(asked))
    detector.gate.set()
    assert found(first.result(30)) == alone(prompt_set_from("red"))
    return [future.result(30) for future in futures]


def test_what_waits_goes_through_the_models_together(gated: tuple[GatedDetector, Collector]) -> None:
    prompts = ("red", "green; red", {"green": "thing"}, "red; green; blue")
    results = behind_a_batch(gated, [(one, Thresholds()) for one in prompts])
    assert [found(result) for result in results] == [alone(prompt_set_from(one)) for one in prompts]
    # The first alone, then a full batch, then the rest; none is padded.
    assert gated[0].batch_sizes == [1, 3, 1]
    assert gated[1].state == Collected(n_batches=3, n_images=5, n_waiting=0)
    assert all(result.seconds.keys() == {"wait", "detect", "segment"} for result in results)


def test_instances_come_in_the_order_of_each_callers_prompts(gated: tuple[GatedDetector, Collector]) -> None:
    results = behind_a_batch(gated, [("green; red", Thresholds()), ("red; green", Thresholds())])
    assert [[one.prompt for one in result.instances] for result in results] == [["green", "red"], ["red", "green"]]
    assert gated[0].batch_sizes == [1, 2]


def test_calls_of_other_thresholds_or_classes_are_batches_of_their_own(
    gated: tuple[GatedDetector, Collector],
) -> None:
    asked = [
        ("red", Thresholds(score=0.9)),
        ({"red": "thing", "green": "thing"}, Thresholds()),
        ("red", Thresholds(score=0.9)),
        ("red; green", Thresholds()),
        ("red", Thresholds(iou=0.2)),
    ]
    results = behind_a_batch(gated, asked)
    assert [len(result.instances) for result in results] == [0, 2, 0, 2, 1]
    assert gated[0].thresholds == [(0.5, 0.7), (0.9, 0.7), (0.5, 0.7), (0.5, 0.7), (0.5, 0.2)]
    assert gated[0].batch_sizes == [1, 2, 1, 1, 1]


def test_a_batch_waits_a_moment_for_an_image_that_is_being_read(gated: tuple[GatedDetector, Collector]) -> None:
    detector, collector = gated
    detector.gate.set()
    with collector.expecting():
        first = collector.submit(picture(), prompt_set_from("red"))
        time.sleep(0.05)
        second = collector.submit(picture(), prompt_set_from("red"))
    assert len(first.result(30).instances) == len(second.result(30).instances) == 1
    assert detector.batch_sizes == [2]


def test_an_image_that_never_comes_is_not_waited_for(
    gated: tuple[GatedDetector, Collector], monkeypatch: pytest.MonkeyPatch
) -> None:
    detector, collector = gated
    detector.gate.set()
    monkeypatch.setattr("grounded_seg.engine.collector._PATIENCE_S", 0.05)
    with collector.expecting():
        assert len(collector.submit(picture(), prompt_set_from("red")).result(30).instances) == 1


def test_a_cancelled_image_costs_the_models_nothing(gated: tuple[GatedDetector, Collector]) -> None:
    detector, collector = gated
    first = collector.submit(picture(), prompt_set_from("red"))
    assert detector.is_asked.wait(30)
    unwanted, wanted = (collector.submit(picture(), prompt_set_from("red")) for _ in range(2))
    assert unwanted.cancel()
    detector.gate.set()
    assert len(first.result(30).instances) == len(wanted.result(30).instances) == 1
    with pytest.raises(CancelledError):
        unwanted.result(30)
    assert detector.batch_sizes == [1, 1]


class FaultyDetector(ColourDetector):
    """A detector that can't be asked about wide images, nor about a certain prompt."""

    def detect(self, images: Any, prompts: Any, class_names: Any = None, *, asked: Any = None) -> Any:
        if any(image.width > 100 for image in images):
            raise DeviceMemoryError("out of memory")
        if "too long" in prompts:
            raise UsageError("the prompt is too long")
        if "fault" in prompts:
            raise ZeroDivisionError("a fault of ours")
        return super().detect(images, prompts, class_names, asked=asked)


def test_what_is_wrong_with_one_image_is_no_error_of_its_neighbours() -> None:
    collector = Collector(Chain(FaultyDetector(), InnerSegmenter()), batch_size=8)
    with collector.expecting():
        asked = [(40, "red"), (40, "too long"), (120, "red"), (40, "fault"), (40, "green")]
        futures = [collector.submit(picture(width), prompt_set_from(prompts)) for width, prompts in asked]
    errors = [type(future.exception(30)) for future in futures]
    assert errors == [type(None), UsageError, DeviceMemoryError, ZeroDivisionError, type(None)]
    assert len(futures[0].result().instances) == len(futures[4].result().instances) == 1
    collector.close()


def test_at_the_end_what_waits_is_finished() -> None:
    collector = Collector(Chain(ColourDetector(), InnerSegmenter()), batch_size=2)
    futures = [collector.submit(picture(), prompt_set_from("red")) for _ in range(7)]
    collector.close()
    assert [len(future.result(0).instances) for future in futures] == [1] * 7
    with pytest.raises(RuntimeError, match="closed"):
        collector.submit(picture(), prompt_set_from("red"))


def test_what_is_unwanted_for_one_caller_is_found_for_another(gated: tuple[GatedDetector, Collector]) -> None:
    detector, collector = gated
    first = collector.submit(picture(), prompt_set_from("blue"))
    assert detector.is_asked.wait(30)
    rules: Any = {"red": {"class": "thing", "not": "green"}}
    prompts = [prompt_set_from(one) for one in (rules, {"green": "thing", "red": "thing"}, rules)]
    asked = [collector.submit(picture(), one) for one in prompts]
    detector.gate.set()
    found_prompts = [[one.prompt for one in future.result(30).instances] for future in asked]
    assert found_prompts == [["red"], ["green", "red"], ["red"]]
    assert first.result(30).instances == ()
    assert detector.batch_sizes == [1, 2, 1]
