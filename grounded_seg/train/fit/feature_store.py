"""Features of images, kept in memory up to a limit, then in a file that nobody else sees and that goes by itself."""

import errno
import logging
import os
import shutil
import tempfile
from contextlib import suppress
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from grounded_seg.device.hardware import memory_bytes
from grounded_seg.errors import OutputError

_LOG = logging.getLogger(__name__)
_MEMORY_SHARE = 4
"""A quarter of the memory, all processes of a machine together."""
_UNKNOWN_MEMORY = 4 << 30
"""Where the system doesn't tell its memory."""
_RESERVE_BYTES = 1 << 30
"""Left free on the disk, for checkpoints."""


def memory_for_features() -> int:
    """Bytes of features that this process may keep in memory."""
    n_processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return (memory_bytes() or _UNKNOWN_MEMORY) // _MEMORY_SHARE // n_processes


class FeatureStore:
    """Tensors of one shape and dtype by number.

    The file has no name on Linux and macOS, and Windows removes it when it is closed: nothing is left of it, however
    the process ends.
    """

    def __init__(self, folder: Path, memory_limit: int, *, keeps: bool = True) -> None:
        """Begin with none.

        Args:
            folder: Where the file is made if it is needed; the next folder above, where it isn't there yet.
            memory_limit: Bytes to keep in memory.
            keeps: False for a store that has no room for anything.
        """
        self._folder, self._memory_left = folder, memory_limit if keeps else 0
        self._in_memory: dict[int, torch.Tensor] = {}
        self._offsets: dict[int, int] = {}
        self._file: FileIO | None = None
        self._shape, self._dtype, self._n_bytes = torch.Size(), torch.float32, 0
        self._is_full = not keeps

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def __contains__(self, number: int) -> bool:
        return number in self._in_memory or number in self._offsets

    @property
    def n_in_file(self) -> int:
        """How many of the tensors are in the file."""
        return len(self._offsets)

    def close(self) -> None:
        """Give memory and file back."""
        self._in_memory, self._offsets, self._is_full = {}, {}, True
        if self._file is not None:
            # A full disk of the network may say so only now.
            with suppress(OSError):
                self._file.close()

    def put(self, number: int, features: torch.Tensor) -> bool:
        """Keep a tensor, in memory or in the file; tell whether there was room.

        An older one of the same number is overwritten. If that fails halfway it is gone, and the others stay. The first
        time that there is no room, the log says so.

        Args:
            number: Of the image.
            features: Contiguous, on the CPU.
        """
        self._shape, self._dtype, self._n_bytes = features.shape, features.dtype, features.nbytes
        if number in self._in_memory or (number not in self._offsets and features.nbytes <= self._memory_left):
            self._memory_left -= 0 if number in self._in_memory else features.nbytes
            self._in_memory[number] = features
            return True
        if self._is_full:
            return False
        offset = self._offsets.get(number, len(self._offsets) * features.nbytes)
        try:
            self._write(offset, features)
        except OSError as error:
            self._is_full = True
            # An older one may be half overwritten.
            self._offsets.pop(number, None)
            _LOG.warning(
                "image features that don't fit into memory can't be kept in %s (%s); they are computed each time, or "
                "make room and resume",
                self._existing_folder(),
                error.strerror or error,
            )
            return False
        self._offsets[number] = offset
        return True

    def get(self, number: int) -> torch.Tensor:
        """A tensor that is kept; `OutputError` if it isn't any more, or the file can't be read."""
        if number in self._in_memory:
            return self._in_memory[number]
        if number not in self._offsets:
            raise OutputError(
                "an image changed while its features were kept, and there was no room for the new ones in "
                f"{self._existing_folder()}; make room, and resume with --resume"
            )
        read = bytearray(self._n_bytes)
        try:
            self._read(self._offsets[number], memoryview(read))
        except OSError as error:
            raise OutputError(
                f"image features can't be read back from {self._existing_folder()} ({error.strerror or error}); check "
                "the disk, and resume with --resume, or with --resume --no-cache-features"
            ) from error
        return torch.frombuffer(read, dtype=self._dtype).view(self._shape)

    def _write(self, offset: int, features: torch.Tensor) -> None:
        folder = self._existing_folder()
        if shutil.disk_usage(folder).free < features.nbytes + _RESERVE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._file is None:
            # Without a buffer: what is written is on the disk, or refused.
            self._file = tempfile.TemporaryFile(dir=folder, buffering=0)  # noqa: SIM115, `close` does
        self._file.seek(offset)
        # As bytes, since numpy has no bfloat16.
        left = features.reshape(-1).view(torch.uint8).numpy().data
        while left:
            left = left[self._file.write(left) :]

    def _read(self, offset: int, room: memoryview) -> None:
        if self._file is None:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        self._file.seek(offset)
        while room:
            n_read = self._file.readinto(room)
            if not n_read:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            room = room[n_read:]

    def _existing_folder(self) -> Path:
        return next(path for path in (self._folder, *self._folder.absolute().parents) if path.is_dir())
