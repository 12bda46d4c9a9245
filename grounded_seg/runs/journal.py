"""`results.jsonl`: one line per image, written as the run proceeds, and all that `annotations.json` is built from.

A lock beside it is the run's: two runs can't write one journal, and the system lifts the lock of a process that died.
What can't be written raises `OutputError`.
"""

import errno
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import InputError, UsageError
from grounded_seg.files import Lock, as_output_error, whole_file
from grounded_seg.text.documents import json_of

LOCK_NAME = ".lock"

_LOG = logging.getLogger(__name__)
_BLOCK_BYTES = 1 << 20
_SKIPPED, _AGAIN = b'"status": "skipped"', b'"error": "ImageAccessError"'
"""In a line of `text_of`; within a value, such quotes would stand behind backslashes."""

_SYNC_S = 1.0
"""At most so much of what was reported done is lost when the power fails; a crash of the process loses nothing."""


def in_use(path: Path) -> str:
    """The message for a journal that another run writes."""
    return f"another run is writing {path}; wait for its end, or name another folder with --output"


class Journal:
    """The journal of a run, locked against other runs from the moment that it is there; for a `with` statement."""

    def __init__(self, path: Path) -> None:
        """Lock the journal if there is one, unless another run is writing it; nothing else is changed."""
        self.path = path
        self._file: FileIO | None = None
        self._lock: Lock | None = None
        self._replacement: _Replacement | None = None
        self._synced = time.monotonic()
        if os.path.lexists(path):
            self._open()

    @property
    def has_lines(self) -> bool:
        """Whether an earlier run wrote anything into it."""
        return self._file is not None and os.fstat(self._file.fileno()).st_size > 0

    def make(self) -> None:
        """Make and lock the journal if it isn't there, unless another run has made it meanwhile."""
        if self._file is None:
            self._open()
            if self.has_lines:
                raise UsageError(f"another run has just written {self.path}; name another folder with --output")

    def empty(self) -> None:
        """Take all lines out."""
        with as_output_error(self.path):
            self._opened.truncate(0)

    def recovered_lines(self) -> Iterator[JournalLine]:
        """Read the lines that an earlier run wrote whole; what it left behind them is cut off at the end."""
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
            # A whole journal isn't even touched.
            if os.fstat(self._opened.fileno()).st_size > n_bytes:
                self._opened.truncate(n_bytes)

    def replace_lines(self, n_lines: int) -> None:
        """Let `put` replace some of the `n_lines` there are: a new journal takes the name of this one in the end."""
        with as_output_error(self.path):
            self._replacement = _Replacement(self.path, n_lines)

    def put(self, index: int, line: JournalLine) -> None:
        """Write the line of the image at an index, higher with each call: in place of its old one, or at the end."""
        if self._replacement is not None and index < self._replacement.n_lines:
            with as_output_error(self.path):
                self._replacement.put(index, _encoded(line))
            return
        self._finish_replacement()
        self.append(line)

    def append(self, line: JournalLine) -> None:
        """Add one line, whole or not at all; it reads back as soon as this returns."""
        rest = _encoded(line)
        file = self._opened
        with as_output_error(self.path):
            self._check_is_there(file)
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

    def _check_is_there(self, file: FileIO) -> None:
        """Refuse to write on into a file that was moved or removed: the pictures would no more be beside it."""
        try:
            is_same = os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))  # noqa: PTH116
        except FileNotFoundError:
            is_same = False
        if not is_same:
            raise FileNotFoundError(errno.ENOENT, "it was moved or removed meanwhile", str(self.path))

    def sync(self) -> None:
        """Have the system put all lines onto the disk."""
        self._finish_replacement()
        with as_output_error(self.path):
            os.fsync(self._opened.fileno())
        self._synced = time.monotonic()

    @property
    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} isn't open: make() comes first")
        return self._file

    def _open(self) -> None:
        if self._lock is None:
            self._lock = Lock(self.path.with_name(LOCK_NAME), in_use(self.path))
        with as_output_error(self.path):
            # Without Python's buffer, what was written outlives a crash of this process.
            self._file = FileIO(self.path, "a+")

    def _finish_replacement(self) -> None:
        if self._replacement is not None:
            with as_output_error(self.path):
                self._replacement.finish()
            self._replacement = None
            self._opened.close()
            self._open()

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._replacement is not None:
            self._replacement.discard()
        if self._file is not None:
            self._file.close()
        if self._lock is not None:
            self._lock.release()


class _Replacement:
    """A new journal with some lines of the old one replaced."""

    def __init__(self, path: Path, n_lines: int) -> None:
        self.n_lines = n_lines
        self._n_written = 0
        self._stack = ExitStack()
        self._new = self._stack.enter_context(whole_file(path))
        self._old = self._stack.enter_context(path.open("rb"))

    def put(self, index: int, text: bytes) -> None:
        """Copy the old lines before this one, and write this instead of its old one."""
        self._copy(index)
        self._old.readline()
        self._new.write(text)
        self._n_written = index + 1

    def finish(self) -> None:
        """Copy the rest, and take the old journal's name."""
        self._copy(self.n_lines)
        self._stack.close()

    def discard(self) -> None:
        """Leave the old journal as it is."""
        with suppress(_DiscardedError), self._stack:
            raise _DiscardedError

    def _copy(self, n_lines: int) -> None:
        while self._n_written < n_lines:
            self._new.write(self._old.readline())
            self._n_written += 1


class _DiscardedError(Exception):
    """The new journal isn't wanted."""


@dataclass(frozen=True)
class JournalCounts:
    """What a journal holds, as far as that can be told without reading its lines as JSON."""

    n_lines: int
    n_skipped: int
    n_again: int
    """Skipped as their files were out of reach, so that `--resume` asks about them again."""


def count_lines(path: Path) -> JournalCounts:
    """Count the whole lines of a journal, also while it is written; a journal that isn't there yet has none.

    Raises:
        InputError: If it can't be read.
    """
    n_lines = n_skipped = n_again = 0
    rest = b""
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK_BYTES):
                whole, end, rest = (rest + block).rpartition(b"\n")
                n_lines += whole.count(b"\n") + len(end)
                if n_here := whole.count(_SKIPPED):
                    n_skipped += n_here
                    n_again += whole.count(_AGAIN)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check that it is a file, and the disk") from error
    return JournalCounts(n_lines, n_skipped, n_again)


def text_of(line: JournalLine) -> str:
    """Write a line as it stands in the journal: JSON in ASCII, so that no reader's encoding can garble it."""
    return json.dumps(line, allow_nan=False)


def read_lines(path: Path, *, is_written: bool = False) -> Iterator[JournalLine]:
    """Read a journal line by line, so that one of any length fits into memory.

    Of one that a run `is_written` by, or was, a last line that isn't whole yet is left out.

    Raises:
        InputError: If it can't be read, or a line is damaged; says which.
    """
    try:
        with path.open("rb") as lines:
            for number, text in enumerate(lines, start=1):
                line = _parsed(text)
                if line is None:
                    if is_written and not text.endswith(b"\n"):
                        return
                    raise InputError(
                        f"{path}:{number}: this line is damaged; the command that wrote it repeats what follows, with "
                        "--resume"
                    )
                yield line
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check that it is a file, and the disk") from error


def _encoded(line: JournalLine) -> bytes:
    return f"{text_of(line)}\n".encode("ascii")


def _parsed(text: bytes) -> JournalLine | None:
    """Read one line; None if it isn't whole, or lacks what every line has."""
    if not text.endswith(b"\n"):
        return None
    try:
        line: JournalLine = json_of(text, object_of=None)
        # Also a text with half a character, which names no file.
        os.fsencode(line["file_name"])
        has_all = line.keys() >= JournalLine.__required_keys__
        # What is needed to build the COCO file; looking at every key of every instance would take its time.
        are_whole = all(isinstance(one["attributes"]["prompt"], str) for one in line["instances"])
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return line if has_all and are_whole else None
