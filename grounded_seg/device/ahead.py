"""Work that a GPU does beside other work: queued on a second stream, one call ahead."""

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, TypeVar

import torch

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
