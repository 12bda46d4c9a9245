"""Batches that other processes read ahead (`--workers`), and what can go wrong on their way as errors of one line.

They come through pipes. torch would put their tensors into shared memory, and where `/dev/shm` is full, or no more
files may be opened, it loses a batch without a word and waits for it forever.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from grounded_seg.errors import DeviceError, GroundedSegError, WorkerError
from grounded_seg.train.data.samples import QuestionDataset, Sample

Batch: TypeAlias = Mapping[str, torch.Tensor]
"""What `samples.Collator` gives."""
_Collate: TypeAlias = Callable[[Sequence[Sample]], Batch]


def make_loader(
    dataset: QuestionDataset, collate: _Collate, *, batch_size: int, workers: int, pins: bool
) -> DataLoader[Any]:
    """Make the loader of a data set's batches in its order, whose batches `received` gives.

    Args:
        dataset: Of the training's questions.
        collate: What makes a batch of samples.
        batch_size: Samples in a batch.
        workers: Number of processes that read ahead; 0 reads in this one.
        pins: Whether batches are put into pinned memory, for a GPU.
    """
    return DataLoader(
        _Told(dataset) if workers else dataset,
        batch_size=batch_size,
        collate_fn=_Sending(collate) if workers else collate,
        num_workers=workers,
        pin_memory=pins,
    )


def received(batches: Iterable[Any], workers: int) -> Iterator[Batch]:
    """Give the batches of a loader.

    Raises:
        GroundedSegError: If a sample can't be had, with that error.
        DeviceError: If the processes can't be started or reached.
    """
    with _refusal_explained(workers):
        iterator = iter(batches)
    try:
        while True:
            with _refusal_explained(workers):
                sent = next(iterator, None)
            if sent is None:
                return
            if isinstance(sent, GroundedSegError):
                raise sent
            yield sent.tensors() if isinstance(sent, _Sent) else sent
    finally:
        _end_workers(iterator)


def _end_workers(iterator: Iterator[Any]) -> None:
    """End a loader's processes, as torch does when it is deleted.

    While it waits for them, torch may tell a second time that one was killed; that would be a traceback on stderr.
    """
    end = getattr(iterator, "_shutdown_workers", None)
    if end is not None:
        with suppress(RuntimeError):
            end()


@contextmanager
def _refusal_explained(workers: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # Files are read, and their errors told, in those processes.
        if not workers or error.errno is None:
            raise
        raise DeviceError(
            f"the processes of --workers {workers} can't be started ({error.strerror}); make room in /dev/shm and in "
            "memory, allow more open files (ulimit -n), or train with --workers 0"
        ) from error


@contextmanager
def lost_workers_explained(workers: int) -> Iterator[None]:
    """Turn the death of a process that reads ahead into a `WorkerError`; torch raises it at any line of this one."""
    try:
        yield
    except RuntimeError as error:
        if not workers or not str(error).startswith("DataLoader worker (pid"):
            raise
        what = str(error).splitlines()[0].strip().rstrip(".")
        raise WorkerError(
            f"{what}: one of --workers {workers}, perhaps killed as memory was full; give fewer --workers, and resume "
            "with --resume"
        ) from error


class _Told(Dataset[Sample | GroundedSegError]):
    """A data set that gives its errors: torch would put the traceback of the other process into their words."""

    def __init__(self, dataset: QuestionDataset) -> None:
        self._dataset = dataset

    def set_epoch(self, epoch: int) -> None:
        self._dataset.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> Sample | GroundedSegError:
        try:
            return self._dataset[index]
        except GroundedSegError as error:
            return error


class _Sending:
    """Puts samples together for the way to another process; of an error among them only that one is sent."""

    def __init__(self, collate: _Collate) -> None:
        self._collate = collate

    def __call__(self, samples: Sequence[Any]) -> "_Sent | GroundedSegError":
        failed = next((one for one in samples if isinstance(one, GroundedSegError)), None)
        if failed is not None:
            return failed
        return _Sent({name: values.numpy() for name, values in self._collate(samples).items()})


class _Sent:
    """A batch as arrays, which go through a pipe as they are."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> None:
        self._arrays = arrays

    def tensors(self) -> Batch:
        """The batch itself; no value is copied."""
        return {name: torch.from_numpy(values) for name, values in self._arrays.items()}

    def pin_memory(self) -> Batch:
        """The batch in pinned memory; the loader's thread calls it."""
        return {name: values.pin_memory() for name, values in self.tensors().items()}
