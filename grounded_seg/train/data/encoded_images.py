"""Which images' features are kept already: told by the training to all processes that read images for it."""

from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import torch

from grounded_seg.errors import DeviceError

Stamp: TypeAlias = tuple[int, int]
"""An image's file as it was read: time of its last change in ns, and bytes."""


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file now; None if it can't be had any more."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size


class EncodedImages:
    """A number for each image that always looks the same, and whether its features are kept.

    What is marked in one process is seen in all that this was copied to: its marks lie in shared memory.
    """

    def __init__(self, images: Iterable[Path], *, is_shared: bool = True) -> None:
        """Number the images, each once; none is marked as kept.

        `is_shared` may be off where no other process reads images.

        Raises:
            DeviceError: If there is no room in shared memory.
        """
        self._numbers = {str(path): number for number, path in enumerate(dict.fromkeys(images))}
        self._stamps = torch.zeros(len(self._numbers), 2, dtype=torch.int64)
        if not is_shared:
            return
        try:
            self._stamps.share_memory_()  # type: ignore[no-untyped-call]
        except (OSError, RuntimeError) as error:
            raise DeviceError(
                f"shared memory can't be had ({error}); make room in /dev/shm, or train with --workers 0"
            ) from error

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, path: Path) -> int:
        """An image's number; -1 for an image that isn't among these."""
        return self._numbers.get(str(path), -1)

    def mark(self, number: int, stamp: Stamp) -> None:
        """Say that the features of an image are kept, computed from the file with this stamp."""
        self._stamps[number] = torch.tensor(stamp)

    def unmark(self, number: int) -> None:
        """Take a mark back: the features aren't kept any more."""
        self._stamps[number] = 0

    def is_kept(self, number: int, stamp: Stamp | None) -> bool:
        """Whether an image need not be read: it is marked, and its file hasn't changed since; or is gone (None)."""
        if number < 0:
            return False
        time, n_bytes = self._stamps[number].tolist()
        return n_bytes > 0 and stamp in (None, (time, n_bytes))
