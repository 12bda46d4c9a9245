"""Streams of a GPU: work that is queued on a second one, one call ahead, and threads that stay on their caller's."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch

_Given = TypeVar("_Given")
_Result = TypeVar("_Result")


def one_ahead(calls: Iterable[Callable[[], _Result]], device: torch.device) -> Iterator[_Result]:
    """The results of calls, in their order; on a GPU of NVIDIA the next call is queued before a result is given.

    The calls go to a second stream, so that the GPU works on the next one while it has little to do for the caller, who
    works on this one. Results are tensors, or lists and dicts of them. Elsewhere each call waits until it is its turn.
    """
    if device.type != "cuda":
        yield from (call() for call in calls)
        return
    stream, waiting = _second_stream(device), None
    for call in calls:
        # What the call reads may still be under way.
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            made = call(), stream.record_event()
        if waiting is not None:
            yield _taken(*waiting, device)
        waiting = made
    if waiting is not None:
        yield _taken(*waiting, device)


def on_same_stream(work: Callable[[_Given], _Result], device: torch.device) -> Callable[[_Given], _Result]:
    """The same work for other threads, whose copies and kernels go to the caller's stream on a GPU of NVIDIA.

    By itself a thread begins on the GPU's default stream: what it queues there, nobody on another stream waits for.
    """
    if device.type != "cuda":
        return work
    stream = torch.cuda.current_stream(device)

    def on_stream(given: _Given) -> _Result:
        with torch.cuda.stream(stream):
            return work(given)

    return on_stream


@lru_cache
def _second_stream(device: torch.device) -> Any:
    """The one second stream of a device: torch keeps memory for each."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _taken(result: _Result, done: Any, device: torch.device) -> _Result:
    """A result, for use on the caller's stream."""
    stream = torch.cuda.current_stream(device)
    stream.wait_event(done)
    for tensor in _tensors(result):
        # Or its memory could be given to the second stream's next call while the caller still reads it.
        tensor.record_stream(stream)
    return result


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        yield result
    elif isinstance(result, dict | list | tuple):
        for part in result.values() if isinstance(result, dict) else result:
            yield from _tensors(part)
