"""Work through many items a chunk at a time, with smaller chunks once the memory is full."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from grounded_seg.device.choose import free_memory, is_out_of_memory

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_chunks(
    items: Sequence[_Item], size: int, work: Callable[[Sequence[_Item]], Sequence[_Result]]
) -> Iterator[_Result]:
    """Yield the results of `work` on consecutive chunks; a chunk that runs out of memory is tried again as two halves.

    Args:
        items: May be none.
        size: Items of a chunk at first, at least 1. After running out of memory it stays at what went through.
        work: Gives the results of a chunk, whatever their number.

    Raises:
        RuntimeError, MemoryError: If a single item is too much, as torch says so on this device.
    """
    start = 0
    while start < len(items):
        chunk = items[start : start + size]
        try:
            results: Sequence[_Result] | None = work(chunk)
        except (RuntimeError, MemoryError) as error:
            if len(chunk) == 1 or not is_out_of_memory(error):
                raise
            results = None
        if results is None:
            # Only here, outside of the handler, are the failed attempt's tensors gone.
            free_memory()
            size = len(chunk) // 2
            continue
        yield from results
        start += len(chunk)
