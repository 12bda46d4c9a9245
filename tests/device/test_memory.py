"""Chunks get smaller where the memory of any device is full, and only there."""

from collections.abc import Callable, Sequence

import pytest
import torch

from grounded_seg.device.memory import in_chunks

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


def worker(error: Exception, room: int, sizes: list[int]) -> Callable[[Sequence[int]], list[int]]:
    def work(chunk: Sequence[int]) -> list[int]:
        sizes.append(len(chunk))
        if len(chunk) > room:
            raise error
        return [2 * item for item in chunk]

    return work


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_chunk_that_is_too_much_is_halved(error: Exception) -> None:
    sizes: list[int] = []
    assert list(in_chunks(range(7), 5, worker(error, 2, sizes))) == [0, 2, 4, 6, 8, 10, 12]
    assert sizes == [5, 2, 2, 2, 1]


@pytest.mark.parametrize("error", [*FULL, RuntimeError("shape mismatch")], ids=str)
def test_what_smaller_chunks_do_not_help_is_raised(error: Exception) -> None:
    sizes: list[int] = []
    with pytest.raises(type(error)) as caught:
        list(in_chunks(range(7), 4, worker(error, 0, sizes)))
    assert caught.value is error
    assert sizes == ([4] if "shape" in str(error) else [4, 2, 1])
