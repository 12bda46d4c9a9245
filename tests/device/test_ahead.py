"""Work beside other work: in order, one call ahead on a GPU, and waited for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from grounded_seg.detect.model import pixels
from grounded_seg.device import ahead
from grounded_seg.records import Image

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


class NotedStream:
    """Stands in for a GPU's stream, and notes what it is told."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: "NotedStream") -> None:
        self.log.append(f"{self.name} waits for {other.name}")

    def record_event(self) -> str:
        return f"event {sum(line.startswith('call') for line in self.log)}"

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")


class NotedTensor(torch.Tensor):
    """A tensor that notes which stream it is used on."""

    log: list[str]

    def record_stream(self, stream: Any) -> None:
        self.log.append(f"kept for {stream.name}")


def results(log: list[str], device: torch.device, n: int) -> list[Any]:
    def call(number: int) -> Any:
        log.append(f"call {number}")
        tensor = torch.zeros(1).as_subclass(NotedTensor)
        tensor.log = log
        return [{"one": tensor, "more": [tensor]}, number]

    taken = []
    for result in ahead.one_ahead((partial(call, number) for number in range(1, n + 1)), device):
        log.append(f"taken {result[1]}")
        taken.append(result)
    return taken


def test_on_a_gpu_the_next_call_is_queued_before_a_result_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    ours, second = NotedStream("ours", log), NotedStream("second", log)
    monkeypatch.setattr(ahead, "_second_stream", lambda _: second)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: ours)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    assert [number for _, number in results(log, CUDA, 3)] == [1, 2, 3]
    kept = ["kept for ours"] * 2
    assert log == [
        *("second waits for ours", "call 1", "second waits for ours", "call 2"),
        *("ours waits for event 1", *kept, "taken 1"),
        *("second waits for ours", "call 3", "ours waits for event 2", *kept, "taken 2"),
        *("ours waits for event 3", *kept, "taken 3"),
    ]
    assert results(log, CUDA, 0) == []


def test_threads_queue_their_work_on_the_stream_of_their_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    entered = threading.local()

    @contextmanager
    def stream(one: str) -> Iterator[None]:
        entered.stream = one
        yield
        del entered.stream

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the caller's on {device}")
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(pixels, "uploaded", lambda array, device: (entered.stream, torch.tensor(array))[1])
    monkeypatch.setattr(pixels, "resampled", lambda one, *_: one)
    images = [Image(Path("x.png"), np.full((2, 2, 3), n, np.uint8)) for n in range(3)]
    copied = pixels.resized_there(images, pixels.PixelSettings(2, 2), CUDA)
    assert copied[:, 0, 0, 0].tolist() == [0, 1, 2]
    work = ahead.on_same_stream(lambda given: (entered.stream, given), CUDA)
    assert list(map(work, "ab")) == [("the caller's on cuda:0", "a"), ("the caller's on cuda:0", "b")]
    assert ahead.on_same_stream(len, CPU) is len


def test_elsewhere_each_waits_for_its_turn() -> None:
    log: list[str] = []
    results(log, CPU, 2)
    assert log == ["call 1", "taken 1", "call 2", "taken 2"]
