"""`review.jsonl` as a file: an event a line, on the disk before it is answered, found again by its number.

One process writes at a time; any may read meanwhile.
"""

import os
import secrets
from array import array
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.files import Lock, as_output_error, whole_file
from grounded_seg.review.decisions import DamagedLineError, Event, event_from

LOCK_NAME = ".review.lock"
_INSTEAD = "the folder of a copy of the run"


class DecisionsFile:
    """The opened file; memory holds 20 bytes of an event."""

    def __init__(self, path: Path, *, write: bool) -> None:
        """Open it, and lock it to write; it is made then where there is none.

        Raises:
            InputError: If there is none to read, or it can't be read.
            UsageError: If another process writes it.
            OutputError: If it can't be made or written.
        """
        self.path = path
        self._lock: Lock | None = None
        # Of each event: position in the file, number of the line, and id.
        self._offsets, self._lines, self._ids = array("Q"), array("I"), array("Q")
        self._last_time = datetime.min.replace(tzinfo=UTC)
        if write:
            in_use = f"another process is writing {path}; decide on its page, or wait for its end"
            self._lock = Lock(path.with_name(LOCK_NAME), in_use, _INSTEAD)
        try:
            self._file = self._opened(write=write)
        except BaseException:
            self._release()
            raise

    def close(self) -> None:
        """Close the file and give up its lock."""
        self._file.close()
        self._release()

    def __len__(self) -> int:
        return len(self._offsets)

    def load(self, notes: Notes) -> Iterator[Event]:
        """Read all events, each once; to be called first, and to the end.

        A last line that was left unfinished is passed over, and cut off where the file is open to write.

        Raises:
            InputError: If another line is damaged; says which.
        """
        seen: set[int] = set()
        offset = 0
        for n_lines, text in enumerate(self._texts(), start=1):
            event = self._event_or_none(text, n_lines, notes)
            if event is not None and int(event.id, 16) in seen:
                notes.add("lines that stand there twice were read once", f"{self.path}:{n_lines}")
            elif event is not None:
                seen.add(int(event.id, 16))
                self._keep(offset, n_lines, event)
                yield event
            elif text.strip():
                self._cut_off(offset)
                return
            offset += len(text)
            if not text.endswith(b"\n"):
                self._write(offset, b"\n")

    def append(self, event: Event, reviewer: str | None) -> Event:
        """Write an event whole or not at all, and give it with its id and time; it is on the disk then."""
        # A clock that was set back mustn't change the order.
        self._last_time = max(self._last_time, datetime.now(UTC))
        event = event.at(self._last_time, secrets.token_hex(8), reviewer)
        text = event.text().encode("ascii")
        # What reads back is what holds.
        event = event_from(text)
        with as_output_error(self.path, _INSTEAD):
            offset = self._file.seek(0, os.SEEK_END)
        self._write(offset, text + b"\n")
        self._keep(offset, self._lines[-1] + 1 if self._lines else 1, event)
        return event

    def event(self, number: int) -> Event:
        """Read an event again, by its number from 0."""
        try:
            self._file.seek(self._offsets[number])
            return event_from(self._file.readline())
        except OSError as error:
            raise self._unreadable(error) from error
        except DamagedLineError as error:
            raise InputError(f"{self.place(number)}: the file was changed meanwhile; start again") from error

    def number(self, event_id: str) -> int | None:
        """Number of an event from 0; None where there is no such."""
        try:
            return self._ids.index(int(event_id, 16))
        except ValueError:
            return None

    def place(self, number: int) -> str:
        """File and line of an event, for messages."""
        return f"{self.path}:{self._lines[number]}"

    def _opened(self, *, write: bool) -> FileIO:
        if write:
            with as_output_error(self.path, _INSTEAD):
                if not self.path.exists():
                    with whole_file(self.path):
                        pass
                # Without Python's buffer, what was written outlives a crash of this process.
                return FileIO(self.path, "a+")
        try:
            return FileIO(self.path, "r")
        except FileNotFoundError as error:
            raise InputError(
                f"{self.path} isn't there: nothing was decided; decide with `grounded-seg view {self.path.parent}`"
            ) from error
        except OSError as error:
            raise self._unreadable(error) from error

    def _texts(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as lines:
                yield from lines
        except OSError as error:
            raise self._unreadable(error) from error

    def _event_or_none(self, text: bytes, n_lines: int, notes: Notes) -> Event | None:
        """Read a line; None for an empty one, and for the last if it isn't whole."""
        if not text.strip():
            return None
        try:
            return event_from(text)
        except DamagedLineError as error:
            place = f"{self.path}:{n_lines}"
            if text.endswith(b"\n"):
                raise InputError(
                    f"{place}: this line is damaged ({error}); correct it, or take it out to lose its decision"
                ) from error
            notes.add("the last line is cut off and was left out: its decision wasn't answered", place)
            return None

    def _keep(self, offset: int, n_lines: int, event: Event) -> None:
        self._offsets.append(offset)
        self._lines.append(n_lines)
        self._ids.append(int(event.id, 16))
        self._last_time = max(self._last_time, event.when)

    def _cut_off(self, offset: int) -> None:
        if self._lock is not None:
            with as_output_error(self.path, _INSTEAD):
                self._file.truncate(offset)

    def _write(self, offset: int, text: bytes) -> None:
        """Write at the end, whole or not at all, where the file is open to write."""
        if self._lock is None:
            return
        with as_output_error(self.path, _INSTEAD):
            try:
                # One call as a rule; the system may take less, as on a disk that is about to be full.
                while text:
                    text = text[self._file.write(text) or 0 :]
                os.fsync(self._file.fileno())
            except OSError:
                with suppress(OSError):
                    self._file.truncate(offset)
                raise

    def _unreadable(self, error: OSError) -> InputError:
        return InputError(f"{self.path} can't be read ({error.strerror}); check that it is a file, and the disk")

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
