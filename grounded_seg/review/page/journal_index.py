"""An index of a run's journal: where each line begins, and what is filtered and sorted by, as columns.

The lines themselves stay on disk: memory grows by some 30 bytes an instance and by an image's name. The index is made
anew for each process, as that takes seconds, and nothing is written beside the run.
"""

import json
import os
from array import array
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields
from enum import IntFlag
from io import FileIO
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import InputError
from grounded_seg.text.documents import json_of

Floats: TypeAlias = npt.NDArray[np.float64]
Indices: TypeAlias = npt.NDArray[np.int64]
Numbers: TypeAlias = npt.NDArray[np.int32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

_BLOCK_BYTES = 1 << 22
_BORDER_PX = 1.0
"""A box that ends this near to the image's edge touches it: the detector's boxes are half a bin off."""


class Flag(IntFlag):
    """What is worth a look about an instance."""

    LEAVES_BOX = 1
    TOUCHES_BORDER = 2
    HAS_MASK = 4


class _Attributes(msgspec.Struct):
    prompt: str
    mask_score: float | None = None
    leaves_box: bool = False


class _Instance(msgspec.Struct):
    bbox: tuple[float, float, float, float]
    score: float
    attributes: _Attributes
    segmentation: msgspec.Raw


class _Line(msgspec.Struct):
    """The part of a journal's line that the columns hold; all else is passed over unread."""

    file_name: str
    status: str
    width: int | None
    height: int | None
    instances: list[_Instance]


_decode = msgspec.json.Decoder(_Line).decode


@dataclass(frozen=True, eq=False)
class Columns:
    """n images in the order of the journal, and their m instances in the order of the lines."""

    start: Indices
    """Position of an image's line in the journal, and after the last one its end, (n + 1,)."""
    first: Indices
    """Number of an image's first instance, and after the last image how many there are, (n + 1,)."""
    skipped: Bytes
    """1 for an image that was skipped, (n,)."""
    name_start: Indices
    """Position of an image's name in `names`, and after the last one the end, (n + 1,)."""
    names: bytes
    """All names in UTF-8, each with a zero byte behind it."""
    image: Numbers
    """Index of an instance's image, (m,)."""
    prompt: Numbers
    """Index of its prompt, (m,)."""
    score: Floats
    """(m,)"""
    mask_score: Floats
    """(m,), NaN where there is none."""
    flags: Bytes
    """See `Flag`, (m,)."""

    @property
    def n_images(self) -> int:
        """Number of images, the skipped ones too."""
        return len(self.skipped)

    @property
    def n_instances(self) -> int:
        """Number of instances of all images."""
        return len(self.image)

    def instances_of(self, image: int) -> slice:
        """Rows of an image's instances."""
        return slice(int(self.first[image]), int(self.first[image + 1]))

    def name(self, image: int) -> str:
        """File name of an image."""
        part = self.names[int(self.name_start[image]) : int(self.name_start[image + 1]) - 1]
        return part.decode("utf-8", "surrogatepass")

    def find(self, name: str) -> int | None:
        """Index of the image of a name; None where there is none."""
        text = name.encode("utf-8", "surrogatepass") + b"\0"
        if self.names.startswith(text):
            return 0
        at = self.names.find(b"\0" + text)
        return None if at < 0 else int(np.searchsorted(self.name_start, at + 1))


class JournalIndex(AbstractContextManager["JournalIndex"]):
    """The index of one journal, which may still be written; for a `with` statement, and for one thread at a time."""

    def __init__(self, path: Path, prompts: Sequence[str]) -> None:
        """Begin with no line; `prompts` are the run's, in the order of their numbers."""
        self.path = path
        self.prompts = list(prompts)
        self.columns = _empty()
        self._file: FileIO | None = None

    def update(self) -> bool:
        """Take in what was written since; tells whether all has begun anew, as the run's lines were replaced.

        Raises:
            InputError: If the journal can't be read, or a line is damaged; says which.
        """
        try:
            is_new = self._reopened()
            if is_new:
                self.columns = _empty()
            parts = [self.columns]
            n_images = self.columns.n_images
            for position, lines in self._new_lines():
                parts.append(self._rows(lines, position, n_images))
                n_images += len(lines)
            if len(parts) > 1:
                self.columns = _joined(parts)
        except OSError as error:
            raise InputError(f"{self.path} can't be read ({error.strerror}); check the run's folder") from error
        return is_new

    def line(self, image: int) -> JournalLine:
        """Read the whole line of an image."""
        columns, file = self.columns, self._opened
        start, end = int(columns.start[image]), int(columns.start[image + 1])
        line: JournalLine = json_of(os.pread(file.fileno(), end - start, start), object_of=None)
        return line

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def _opened(self) -> FileIO:
        if self._file is None:
            raise ValueError(f"{self.path} isn't open: update() comes first")
        return self._file

    def _reopened(self) -> bool:
        """Open the journal if it is another file than before, or was cut off; tells whether it was read before."""
        had = self._file is not None
        if self._file is not None:
            before, now = os.fstat(self._file.fileno()), self.path.stat()
            is_same = (before.st_dev, before.st_ino) == (now.st_dev, now.st_ino)
            if is_same and now.st_size >= int(self.columns.start[-1]):
                return False
            self._file.close()
        self._file = FileIO(self.path, "r")
        return had

    def _new_lines(self) -> Iterator[tuple[int, list[bytes]]]:
        """Give whole lines from the end of the last one that was read, some at once, and where they begin."""
        position, rest = int(self.columns.start[-1]), b""
        while block := os.pread(self._opened.fileno(), _BLOCK_BYTES, position + len(rest)):
            text = rest + block
            *whole, rest = text.split(b"\n")
            if whole:
                yield position, whole
            position += len(text) - len(rest)

    def _rows(self, lines: Sequence[bytes], position: int, n_before: int) -> Columns:
        """Make the columns of some lines that begin at a position of the journal, behind so many others."""
        numbers = {prompt: number for number, prompt in enumerate(self.prompts)}
        starts, firsts, skipped, names = array("q", [position]), array("q", [0]), array("B"), []
        image, prompt, score, mask_score, flags = array("i"), array("i"), array("d"), array("d"), array("B")
        for number, text in enumerate(lines):
            try:
                line = _line_of(text)
            except (msgspec.DecodeError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise InputError(
                    f"{self.path}:{n_before + number + 1}: this line is damaged ({error}); the command that wrote it "
                    "repeats what follows, with --resume"
                ) from error
            position += len(text) + 1
            starts.append(position)
            names.append(line.file_name.encode("utf-8", "surrogatepass"))
            skipped.append(line.status == "skipped")
            for one in line.instances:
                image.append(n_before + number)
                attributes = one.attributes
                if attributes.prompt not in numbers:
                    numbers[attributes.prompt] = len(numbers)
                    self.prompts.append(attributes.prompt)
                prompt.append(numbers[attributes.prompt])
                score.append(one.score)
                mask_score.append(np.nan if attributes.mask_score is None else attributes.mask_score)
                flags.append(_flags_of(one, line.width or 0, line.height or 0))
            firsts.append(len(image))
        return Columns(
            start=_column(starts),
            first=_column(firsts),
            skipped=_column(skipped),
            name_start=np.cumsum([0, *(len(name) + 1 for name in names)], dtype=np.int64),
            names=b"".join(name + b"\0" for name in names),
            image=_column(image),
            prompt=_column(prompt),
            score=_column(score),
            mask_score=_column(mask_score),
            flags=_column(flags),
        )


def _column(values: "array[Any]") -> npt.NDArray[Any]:
    return np.frombuffer(values, values.typecode)


def _line_of(text: bytes) -> _Line:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError):
        # A name that is no text has half characters, which msgspec refuses and the journal may hold.
        plain: JournalLine = json_of(text, object_of=None)
        line = _decode(json.dumps(plain, ensure_ascii=False).encode("utf-8", "replace"))
        line.file_name = plain["file_name"]
        for one, given in zip(line.instances, plain["instances"], strict=True):
            one.attributes.prompt = given["attributes"]["prompt"]
        return line


def _flags_of(one: _Instance, width: int, height: int) -> int:
    x, y, w, h = one.bbox
    touches = min(x, y) < _BORDER_PX or x + w > width - _BORDER_PX or y + h > height - _BORDER_PX
    has_mask = bytes(one.segmentation)[:1] == b"{"
    return Flag.LEAVES_BOX * one.attributes.leaves_box | Flag.TOUCHES_BORDER * touches | Flag.HAS_MASK * has_mask


def _empty() -> Columns:
    zero = np.zeros(1, np.int64)
    none = np.zeros(0)
    whole, small = none.astype(np.int32), none.astype(np.uint8)
    return Columns(zero, zero, small, zero, b"", whole, whole, none, none, small)


def _joined(parts: Sequence[Columns]) -> Columns:
    """Put the rows of parts behind each other."""
    instances = np.cumsum([one.n_instances for one in parts])
    letters = np.cumsum([len(one.names) for one in parts])
    heads = {
        "start": [one.start[:-1] for one in parts[:-1]] + [parts[-1].start],
        "first": _moved([one.first for one in parts], instances),
        "name_start": _moved([one.name_start for one in parts], letters),
    }
    columns: dict[str, Any] = {
        one.name: np.concatenate(heads.get(one.name) or [getattr(part, one.name) for part in parts])
        for one in fields(Columns)
        if one.name != "names"
    }
    return Columns(names=b"".join(part.names for part in parts), **columns)


def _moved(starts: Sequence[Indices], ends: Indices) -> list[Indices]:
    """Count each part's starts from those before; the end of a part is the start of the next."""
    moved = [one[:-1] + end - one[-1] for one, end in zip(starts, ends, strict=True)]
    return [*moved, ends[-1:]]
