"""A full device memory: recognised on any device, backed off from, and reported in one line.

torch takes seconds to import, so it is imported where an error is looked at: this module can be used without it.
"""

import gc
import mmap
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from grounded_seg.errors import DeviceMemoryError

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_OUT_OF_MEMORY_TEXTS = ("DefaultCPUAllocator: can't allocate memory", "MPS backend out of memory")
"""What torch's errors say on the devices for which it has no error class of its own."""
LEAST_ADDRESS_SPACE = 256 << 20
"""Bytes with which a command begins at least. With less left, Python itself may end where it makes an error of it."""


def check_address_space() -> None:
    """Refuse to begin where a limit of the shell's (`ulimit -v`) leaves next to no memory: a `DeviceMemoryError`."""
    if sys.platform != "linux":
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit == resource.RLIM_INFINITY:
        return
    try:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    except OSError:
        return
    if limit - used < LEAST_ADDRESS_SPACE:
        raise DeviceMemoryError(
            f"the limit of this process's address space ({limit >> 20} MB, `ulimit -v`) leaves {(limit - used) >> 20} "
            f"MB, too little to begin with; raise it, or take it away with `ulimit -v unlimited`"
        )


def halving(size: int, attempt: Callable[[int], _Result]) -> tuple[_Result, int]:
    """The result of `attempt`, and the size it took: halved, and tried again, as often as the memory is full.

    `size` is at least 1. An error of `attempt` with one item, or of another kind, is raised.
    """
    while True:
        try:
            return attempt(size), size
        except (DeviceMemoryError, RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Only here, outside of the handler, are the failed attempt's tensors gone.
        free_memory()
        size //= 2


def in_chunks(
    items: Sequence[_Item], size: int, work: Callable[[Sequence[_Item]], Sequence[_Result]]
) -> Iterator[_Result]:
    """The results of `work` on consecutive chunks of at most `size` items, halved for good where the memory is full.

    `work` gives the results of a chunk, whatever their number.
    """
    start = 0

    def attempt(size: int) -> Sequence[_Result]:
        return work(items[start : start + size])

    while start < len(items):
        results, size = halving(min(size, len(items) - start), attempt)
        yield from results
        start += size


@contextmanager
def out_of_memory_as_device_error(doing: str, remedy: str) -> Iterator[None]:
    """Running out of memory, on any device, as a `DeviceMemoryError` of one line.

    `doing` is such as "encoding 8 images", `remedy` a sentence such as "Lower --batch-size.".
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceMemoryError(f"Out of memory while {doing}. {remedy}") from error


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error is that of a full memory, of any device."""
    if isinstance(error, MemoryError | DeviceMemoryError):
        return True
    import torch

    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in _OUT_OF_MEMORY_TEXTS)


def free_memory() -> None:
    """Return the memory that torch keeps for later to the device."""
    import torch

    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


@contextmanager
def collection_paused() -> Iterator[None]:
    """No search for garbage in the block, for imports and the loading of weights; also a decorator.

    Both make hundreds of thousands of objects that stay. Python looks through all of them again and again for cycles
    that nothing refers to, which takes a seventh of the time to import torch and transformers.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
