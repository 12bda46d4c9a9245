"""Batches that other processes read ahead: the same ones with little shared memory, and errors of one line."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_kinds import IN_A_NAMESPACE, needs_namespaces
from paths import ROOT
from torch.utils.data import Dataset

from grounded_seg.errors import DeviceError, ImageError, WorkerError
from grounded_seg.train.data.encoded_images import EncodedImages
from grounded_seg.train.data.read_ahead import lost_workers_explained, make_loader, received

N = 5


class Numbers(Dataset[torch.Tensor]):
    """Large tensors, each of its number; at the third something may happen."""

    def __init__(self, at_third: Callable[[], object] = lambda: None) -> None:
        self._at_third = at_third

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == 2:
            self._at_third()
        return torch.full((200_000,), float(index))


def stack(samples: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    return {"values": torch.stack(list(samples)), "first": torch.tensor([bool(samples[0][0])])}


def read(workers: int, at_third: Callable[[], object] = lambda: None) -> list[dict[str, torch.Tensor]]:
    numbers: Any = Numbers(at_third)
    loader = make_loader(numbers, stack, batch_size=2, workers=workers, pins=False)
    with lost_workers_explained(workers):
        return [dict(batch) for batch in received(loader, workers)]


def test_workers_give_the_same_batches() -> None:
    alone, by_two = read(0), read(2)
    assert len(alone) == len(by_two) == 3
    for one, other in zip(alone, by_two, strict=True):
        assert one.keys() == other.keys()
        for name, values in one.items():
            assert values.dtype == other[name].dtype
            assert torch.equal(values, other[name])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_of_a_sample_keeps_its_words(workers: int) -> None:
    def fail() -> None:
        raise ImageError("c.png is gone; look for it")

    with pytest.raises(ImageError) as raised:
        read(workers, fail)
    assert str(raised.value) == "c.png is gone; look for it"


def test_a_worker_that_is_killed_is_one_line() -> None:
    with pytest.raises(WorkerError, match=r"^DataLoader worker \(pid.*; give fewer --workers, and resume") as raised:
        read(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert len(str(raised.value).splitlines()) == 1


def test_processes_that_can_not_be_started_are_one_line() -> None:
    class Refusing:
        def __iter__(self) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DeviceError, match=r"--workers 2 can't be started \(No space left on device\); make room in"):
        next(received(Refusing(), 2))
    with pytest.raises(OSError, match="No space"):
        next(received(Refusing(), 0))


@needs_namespaces
def test_little_shared_memory_is_enough() -> None:
    # torch's own way would wait forever for a batch that it lost.
    folders = [str(ROOT), str(ROOT / "tests"), str(Path(__file__).parent)]
    program = f"import sys; sys.path[:0] = {folders}; from test_read_ahead import read; print(len(read(2)))"
    mounted = 'mount -t tmpfs -o size=64k tmpfs /dev/shm && exec "$0" -c "$1"'
    command = [*IN_A_NAMESPACE, "sh", "-c", mounted, sys.executable, program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_marks_are_shared_only_where_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert len(EncodedImages([Path("a.png")], is_shared=False)) == 1
    with pytest.raises(DeviceError, match=r"No space left on device.*or train with --workers 0"):
        EncodedImages([Path("a.png")])
