"""Batches that other processes read ahead: the same ones with little shared memory, and errors of one line."""

import errno
import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from fault_kinds import SETUPS, needs_namespaces
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


def test_a_death_that_is_told_again_at_the_end_is_told_once() -> None:
    class Dying:
        n_ended = 0

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            raise RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly")

        def _shutdown_workers(self) -> None:
            self.n_ended += 1
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    batches = Dying()
    with pytest.raises(WorkerError, match="exited unexpectedly"), lost_workers_explained(2):
        next(received(batches, 2))
    assert batches.n_ended == 1


def test_processes_that_can_not_be_started_are_one_line() -> None:
    class Refusing:
        def __iter__(self) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(DeviceError, match=r"--workers 2 can't be started \(No space left on device\); make room in"):
        next(received(Refusing(), 2))
    with pytest.raises(OSError, match="No space"):
        next(received(Refusing(), 0))


def read_with_little_memory(answers: Any) -> None:
    SETUPS["shared_memory"]("64k", False)
    answers.send(len(read(2)))


@needs_namespaces
def test_little_shared_memory_is_enough() -> None:
    # torch's own way would wait forever for a batch that it lost.
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=read_with_little_memory, args=(theirs,))
    process.start()
    try:
        assert ours.poll(120)
        assert ours.recv() == 3
    finally:
        process.kill()
        process.join()


def test_marks_are_shared_only_where_others_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: torch.Tensor) -> None:
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    assert len(EncodedImages([Path("a.png")], is_shared=False)) == 1
    with pytest.raises(DeviceError, match=r"No space left on device.*or train with --workers 0"):
        EncodedImages([Path("a.png")])
