"""`results.jsonl`: one line per image, written as the run goes, and all that `annotations.json` is built from.

Its lock is the run's: two runs can't write one journal, and the system lifts the lock of a process that died.
"""

import json
import logging
import os
import sys
import time
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from types import TracebackType

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import as_output_error

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_LOG = logging.getLogger(__name__)

_SYNC_S = 1.0
"""At most so much of what was reported done is lost when the power fails; a crash of the process loses nothing."""


class Journal:
    """The journal of a run, locked against other runs from the moment that it is there; for a `with` statement."""

    def __init__(self, path: Path) -> None:
        """Lock the journal if there is one; nothing is changed.

        Raises:
            UsageError: If another run is writing it.
            OutputError: If it can't be opened.
        """
        self.path = path
        self._file: FileIO | None = None
        self._synced = time.monotonic()
        if os.path.lexists(path):
            self._open()

    @property
    def has_lines(self) -> bool:
        """Whether an earlier run wrote anything into it."""
        return self._file is not None and os.fstat(self._file.fileno()).st_size > 0

    def make(self) -> None:
        """Make and lock the journal if it isn't there; its folder has to be.

        Raises:
            UsageError: If another run has begun since this journal was found missing.
            OutputError: If it can't be written.
        """
        if self._file is None:
            self._open()
            if self.has_lines:
                raise UsageError(f"another run has just written {self.path}; name another folder with --output")

    def empty(self) -> None:
        """Take all lines out.

        Raises:
            OutputError: If it can't be written.
        """
        with as_output_error(self.path):
            self._opened.truncate(0)

    def recovered_lines(self) -> Iterator[JournalLine]:
        """Read the lines that an earlier run wrote whole; what it left behind them is cut off at the end.

        Raises:
            OutputError: If the journal can't be read or changed.
        """
        n_bytes = 0
        with as_output_error(self.path):
            with self.path.open("rb") as lines:
                for text in lines:
                    line = _parsed(text)
                    if line is None:
                        if text.endswith(b"\n"):
                            _LOG.warning("%s is damaged; what follows byte %d is done again", self.path, n_bytes)
                        break
                    n_bytes += len(text)
                    yield line
            self._opened.truncate(n_bytes)

    def append(self, line: JournalLine) -> None:
        """Add one line, whole or not at all; it reads back as soon as this returns.

        Raises:
            OutputError: If it can't be written.
        """
        rest = f"{text_of(line)}\n".encode("ascii")
        file = self._opened
        with as_output_error(self.path):
            n_bytes = os.fstat(file.fileno()).st_size
            try:
                # One call as a rule; the system may take less, as on a disk that is about to be full.
                while rest:
                    rest = rest[file.write(rest) or 0 :]
            except OSError:
                file.truncate(n_bytes)
                raise
            if time.monotonic() > self._synced + _SYNC_S:
                self.sync()

    def sync(self) -> None:
        """Have the system put all lines onto the disk.

        Raises:
            OutputError: If it can't.
        """
        with as_output_error(self.path):
            os.fsync(self._opened.fileno())
        self._synced = time.monotonic()

    @property
    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} isn't open: make() comes first")
        return self._file

    def _open(self) -> None:
        with as_output_error(self.path):
            # Without Python's buffer, what was written outlives a crash of this process.
            file = FileIO(self.path, "a+")
        try:
            lock(file)
        except BlockingIOError as error:
            file.close()
            raise UsageError(
                f"another run is writing {self.path}; wait for its end, or name another folder with --output"
            ) from error
        except OSError as error:
            _LOG.warning("%s can't be locked (%s); see to it that no other run writes there", self.path, error.strerror)
        self._file = file

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()


def text_of(line: JournalLine) -> str:
    """Write a line as it stands in the journal: JSON in ASCII, so that no reader's encoding can garble it."""
    return json.dumps(line, allow_nan=False)


def read_lines(path: Path) -> Iterator[JournalLine]:
    """Read a journal line by line, so that one of any length fits into memory.

    Raises:
        InputError: If it can't be read, or a line is damaged; says which.
    """
    try:
        with path.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                line = _parsed(text)
                if line is None:
                    raise InputError(
                        f"{path}:{number}: this line is damaged; run --resume on that folder does anew what follows"
                    )
                yield line
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check that it is a file, and the disk") from error


def _parsed(text: bytes) -> JournalLine | None:
    """Read one line; None if it isn't whole, or lacks what every line has."""
    if not text.endswith(b"\n"):
        return None
    try:
        line: JournalLine = json.loads(text)
        has_all = line.keys() >= JournalLine.__required_keys__ and isinstance(line["file_name"], str)
        # What is needed to build the COCO file; looking at every key of every instance would take its time.
        are_whole = all(isinstance(one["attributes"]["prompt"], str) for one in line["instances"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return line if has_all and are_whole else None


def lock(file: FileIO) -> None:
    """Lock a file for this process, until it is closed or the process dies.

    Raises:
        BlockingIOError: If another process holds the lock.
        OSError: If the file system knows no locks.
    """
    if sys.platform == "win32":
        # Others can't read what is locked there, so it is a byte far behind the end.
        file.seek(1 << 62)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except PermissionError as error:
            raise BlockingIOError(error.errno, error.strerror) from error
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
