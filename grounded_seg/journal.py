"""`results.jsonl`: one line per image, written as the run goes, and all that `annotations.json` is built from."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from grounded_seg.coco.schema import JournalLine
from grounded_seg.run_folder import as_output_error


class Journal:
    """The journal of a run that is going on."""

    def __init__(self, path: Path) -> None:
        """Start an empty journal.

        Raises:
            OutputError: If it can't be written.
        """
        with as_output_error():
            # Without Python's buffer, what was written outlives a crash of this process.
            self._file = path.open("wb", buffering=0)

    def append(self, line: JournalLine) -> None:
        """Add one line, which reads back as soon as this returns.

        Raises:
            OutputError: If it can't be written.
        """
        rest = f"{text_of(line)}\n".encode("ascii")
        with as_output_error():
            # One call as a rule; the system may take less, as on a disk that is about to be full.
            while rest:
                rest = rest[self._file.write(rest) :]

    def __enter__(self) -> "Journal":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()


def text_of(line: JournalLine) -> str:
    """Write a line as it stands in the journal: JSON in ASCII, so that no reader's encoding can garble it."""
    return json.dumps(line, allow_nan=False)


def read_lines(path: Path) -> Iterator[JournalLine]:
    """Read a journal line by line, so that one of any length fits into memory."""
    with path.open(encoding="ascii") as lines:
        yield from map(json.loads, lines)
