"""What a request names: an image, a folder, a list of these, or a pattern that names match."""

import codecs
import fnmatch
import io
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, TypeAlias

from grounded_seg.errors import InputError
from grounded_seg.images.parquet_list import ParquetColumn, parquet_column_from
from grounded_seg.images.remote.addresses import SCHEMES, AddressPattern, Braces, address_from, has_braces, pattern_from
from grounded_seg.images.remote.storage import RemoteFile
from grounded_seg.records import Address
from grounded_seg.text.decoding import mark_and_encoding

_BLOCK_BYTES = 1 << 16
_STDIN = Path("/dev/stdin")
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LOST_SLASH = re.compile(rf"({'|'.join(SCHEMES)}):/[^/]")
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True)
class PathList:
    """A file that names images and folders, one a line, from the current folder; `@FILE` on the command line.

    It is UTF-8 with or without a byte order mark, or UTF-16 with its mark. Names with line breaks need a list whose
    names end with a zero byte, as `find -print0` writes it. `/dev/stdin` is the standard input.
    """

    file: Path | Address

    def __str__(self) -> str:
        """As it stands on the command line."""
        return f"@{self.file}"

    @property
    def words(self) -> str:
        """What it is called in a sentence."""
        return "the standard input" if self.file == _STDIN else f"list {shown(self.file)}"

    def paths(self) -> Iterator[str]:
        """Read the paths one by one, empty lines left out; from first to last, so that the list may be a pipe.

        Raises:
            InputError: If it can't be read, or its encoding or what ends its names is in doubt.
        """
        try:
            with self._opened() as file:
                first = file.read(_BLOCK_BYTES)
                mark, encoding = mark_and_encoding(first, self.file)
                blocks = _blocks(first[len(mark) :], file.read)
                if encoding != "utf-8":
                    yield from self._lines(_decoded(blocks, encoding, self.file))
                elif b"\0" in first:
                    yield from self._ended_by_zeros(blocks)
                else:
                    # As the system writes names, whose bytes needn't be UTF-8.
                    yield from self._lines(os.fsdecode(line) for line in _split(blocks, b"\n"))
        except OSError as error:
            raise InputError(f"list {shown(self.file)} can't be read ({error.strerror}); check the path") from error

    def _opened(self) -> AbstractContextManager[BinaryIO]:
        if isinstance(self.file, Address):
            return io.BufferedReader(RemoteFile(self.file), _BLOCK_BYTES)
        return nullcontext(sys.stdin.buffer) if self.file == _STDIN and sys.stdin else self.file.open("rb")

    def _lines(self, lines: Iterator[str]) -> Iterator[str]:
        for number, line in enumerate(lines, start=1):
            if "\0" in line:
                raise InputError(
                    f"list {shown(self.file)}: line {number} holds a zero byte, which no path has; end each path with "
                    "one, or none"
                )
            if path := line.removesuffix("\r"):
                yield path

    def _ended_by_zeros(self, blocks: Iterator[bytes]) -> Iterator[str]:
        for path in _split(blocks, b"\0"):
            # `find .` begins with the dot. Any other single letter may be half of a character in UTF-16: where that is
            # the slash, the whole disk would be searched.
            if len(path) == 1 and path != b".":
                letter = os.fsdecode(path)
                raise InputError(
                    f"list {shown(self.file)} has zero bytes around the single byte {letter!r}, as UTF-16 without a "
                    f"byte order mark has; save it as UTF-8, or write {f'./{letter}'!r} if that is a path"
                )
            if path:
                yield os.fsdecode(path)


@dataclass(frozen=True)
class PathPattern:
    """A pattern in quotes, such as 'photos/*.png' or 'photos/**/*.png', that the shell didn't expand."""

    text: str

    def __str__(self) -> str:
        """As it stands on the command line."""
        return self.text

    @property
    def fixed(self) -> str:
        """The folder before the first part with a sign that matches names; the current one is empty."""
        parts = Path(self.text).parts
        n_fixed = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
        return os.path.join("", *parts[:n_fixed])  # noqa: PTH118  (empty rather than a dot)

    def paths(self, unlisted: set[str]) -> Iterator[str]:
        """Files and folders that match, in no particular order, some perhaps twice.

        `*` and `?` match as in a shell, so no hidden names; `**` is any number of folders. From `**` on, links to
        folders match only a part without such signs, so that a link to a parent is no second way to an image.

        Args:
            unlisted: Takes the folders on the way that can't be listed; they are among the matches.

        Raises:
            InputError: If the folder before the first sign can't be listed.
        """
        parts = Path(self.text).parts
        # Twice the same folders would be searched for two of them in a row.
        kept = [part for before, part in pairwise(("", *parts)) if not before == part == "**"]
        is_absolute = bool(Path(self.text).anchor)
        refused: dict[str, str] = {}
        yield from _matches(kept[0] if is_absolute else "", kept[is_absolute:], refused)
        if self.fixed in refused:
            why = refused[self.fixed]
            raise InputError(f"folder {shown(self.fixed)} can't be listed ({why}); check its permissions")
        unlisted.update(refused)
        yield from refused


Given: TypeAlias = Path | PathList | PathPattern | Address | AddressPattern | Braces | ParquetColumn
"""What a request names: an image, a folder, a tar, a list of these, or a pattern; on disk or in storage elsewhere."""


def given_from(text: str) -> Given:
    """A PATH of the command line; a file whose name begins with @ is `./@NAME`, and `@-` the standard input.

    A text with `*`, `?` or `[`, or with braces as in shard-{000..099}.tar, is a pattern unless a file or folder of that
    very name exists. An address of a kind that is read is one even then.

    Raises:
        InputError: If it is an address of a kind that isn't read.
    """
    if text.startswith("@"):
        return _list_from(text[1:])
    if has_braces(text) and not os.path.lexists(text):
        return Braces(text)
    if (address := address_from(text)) is not None:
        return pattern_from(address)
    if _MAGIC.search(text) and not os.path.lexists(text):
        return PathPattern(text)
    return Path(text)


def _list_from(text: str) -> PathList | ParquetColumn:
    if text == "-":
        return PathList(_STDIN)
    column = None if os.path.lexists(text) and not text.lower().endswith(".parquet") else parquet_column_from(text)
    file = text if column is None else column[0]
    place = address_from(file) or Path(file)
    return PathList(place) if column is None else ParquetColumn(place, column[1])


def refuse_address(text: str, advice: str = "give a path on this disk here") -> None:
    """Refuse an address where a path on this disk is needed."""
    if "://" in text and _ADDRESS.match(text) and not os.path.lexists(text):
        raise InputError(f"{text!r} is an address; {advice}")


def shown(path: object) -> str:
    """Quote a path, so that spaces are seen and a line break in a name doesn't break the message's one line."""
    return repr(str(path))


def advice_about(path: Path | str) -> str:
    """What to do about a path where nothing is: quotes or blanks around it are the usual reasons."""
    text = str(path)
    if _LOST_SLASH.match(text):
        return "give an address as text, as a Path loses one of its slashes"
    for quote in "\"'":
        start = text.find(quote)
        # A list's path may stand behind the folder that all its paths share.
        if text.endswith(quote) and start < len(text) - 1 and os.path.lexists(text[start + 1 : -1]):
            return "take the quotes off"
    if text != text.rstrip() and os.path.lexists(text.rstrip()):
        return "take the blank at its end off"
    return "check the path"


def _blocks(first: bytes, read: Callable[[int], bytes]) -> Iterator[bytes]:
    yield first
    while block := read(_BLOCK_BYTES):
        yield block


def _decoded(blocks: Iterator[bytes], encoding: str, file: Path | Address) -> Iterator[str]:
    """Lines of a text in UTF-16, in little memory."""
    decoder, rest = codecs.getincrementaldecoder(encoding)(), ""
    try:
        for block in blocks:
            *whole, rest = (rest + decoder.decode(block)).split("\n")
            yield from whole
        yield rest + decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise InputError(f"list {shown(file)} is damaged UTF-16 ({error.reason}); save it as UTF-8") from error


def _split(blocks: Iterator[bytes], end: bytes) -> Iterator[bytes]:
    """Cut what a file holds at each `end`, in little memory."""
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(end)
        yield from whole
    yield rest


def _matches(folder: str, parts: Sequence[str], refused: dict[str, str], with_links: bool = True) -> Iterator[str]:
    """Yield the paths below a folder that match the parts of a pattern; the current folder is empty."""
    if not parts:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for below in _with_folders_below(folder, refused):
            yield from _matches(below, rest, refused, with_links=False)
    elif _MAGIC.search(part):
        for entry in _entries(folder, refused):
            place = _joined(folder, entry.name)
            if not _is_like(entry.name, part) or (rest and not os.path.isdir(place)):
                continue
            if with_links or not entry.is_symlink() or not os.path.isdir(place):
                yield from _matches(place, rest, refused, with_links)
    elif os.path.lexists(place := _joined(folder, part)):
        yield from _matches(place, rest, refused, with_links)


def _with_folders_below(folder: str, refused: dict[str, str]) -> Iterator[str]:
    """Yield a folder and all within it, without hidden ones; links to folders aren't followed."""
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        yield folder
        for entry in _entries(folder, refused):
            if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                waiting.append(_joined(folder, entry.name))


def _entries(folder: str, refused: dict[str, str]) -> Iterator["os.DirEntry[str]"]:
    """Yield what is in a folder; nothing of what is none, or can't be listed, as `refused` then says."""
    try:
        with os.scandir(folder or os.curdir) as entries:
            yield from entries
    except (NotADirectoryError, ValueError):
        # The latter of a text that no path can be, such as one with a zero byte.
        return
    except OSError as error:
        refused[folder] = error.strerror or str(error)


def _is_like(name: str, part: str) -> bool:
    return fnmatch.fnmatch(name, part) and (part.startswith(".") or not name.startswith("."))


def _joined(folder: str, name: str) -> str:
    return os.path.join(folder, name)  # noqa: PTH118  (ten million `Path`s take minutes)
