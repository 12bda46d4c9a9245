"""Less goes through at once where the memory of any device is full, and only there."""

import gc
import mmap
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from grounded_seg.device.memory import (
    check_address_space,
    collection_paused,
    halving,
    in_chunks,
    out_of_memory_as_device_error,
)
from grounded_seg.errors import DeviceError, DeviceMemoryError

resource = pytest.importorskip("resource", reason="Unix only")

FULL = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB)."),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
    DeviceMemoryError("Out of memory while segmenting 8 images. Lower --batch-size."),
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


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_an_attempt_is_made_again_at_half_the_size(error: Exception) -> None:
    sizes: list[int] = []
    assert halving(7, lambda size: worker(error, 2, sizes)(range(size))) == ([0], 1)
    assert sizes == [7, 3, 1]
    assert halving(2, lambda size: worker(error, 2, sizes)(range(size))) == ([0, 2], 2)


def test_out_of_memory_becomes_one_line_with_a_remedy() -> None:
    with (
        pytest.raises(DeviceError, match=r"^Out of memory while encoding 8 images\. Lower --batch-size\.$"),
        out_of_memory_as_device_error("encoding 8 images", "Lower --batch-size."),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 1 GiB")


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("MPS backend out of memory (MPS allocated: 9.0 GB, max allowed: 9.1 GB).")]
)
def test_memory_that_is_not_of_cuda_runs_out_as_well(error: Exception) -> None:
    with pytest.raises(DeviceError, match="Out of memory while a"), out_of_memory_as_device_error("a", "b"):
        raise error


def test_the_memory_of_the_cpu_runs_out() -> None:
    with pytest.raises(DeviceError, match="Out of memory while a"), out_of_memory_as_device_error("a", "b"):
        torch.empty(1 << 60, dtype=torch.uint8)


def test_other_errors_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shape mismatch"), out_of_memory_as_device_error("a", "b"):
        raise RuntimeError("shape mismatch")


def test_no_garbage_is_looked_for_while_much_is_loaded() -> None:
    assert gc.isenabled()
    with collection_paused():
        assert not gc.isenabled()
        with pytest.raises(ValueError, match="inside"), collection_paused():
            raise ValueError("inside")
        assert not gc.isenabled()
    assert gc.isenabled()


def limited(monkeypatch: pytest.MonkeyPatch, megabytes: int | None) -> None:
    """Pretend that so many megabytes are left below the limit of the address space; None for no limit."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    limit = resource.RLIM_INFINITY if megabytes is None else used + (megabytes << 20)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (limit, limit))


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")
def test_a_limit_that_leaves_next_to_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for megabytes in (None, 4000):
        limited(monkeypatch, megabytes)
        check_address_space()
    limited(monkeypatch, 100)
    with pytest.raises(DeviceMemoryError, match=r"\(\d+ MB, `ulimit -v`\) leaves \d+ MB"):
        check_address_space()
