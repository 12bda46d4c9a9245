"""Sections of a COCO file of any size, record by record in one pass. The home of ijson."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from grounded_seg.coco.entries import nested_too_deeply, section_twice
from grounded_seg.coco.schema import SECTIONS
from grounded_seg.errors import InputError
from grounded_seg.text.decoding import mark_and_encoding

_START_BYTES = 4096
MOST_DEPTH = 500
"""Of lists and objects in each other; json, which writes the records again, takes hardly twice as many."""
_HALF_PAIR = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
)
_PAIR_BYTES = 12


class FastParserError(Exception):
    """The file may hold what the fast parser can't give; read it with `exact`.

    That is half of a pair of surrogates, or a whole number beyond 64 bits.
    """


def records_of(path: Path, *, exact: bool = False) -> Iterator[tuple[str, Any]]:
    """Records of the three sections one by one, and other sections whole, in the order of the file.

    A section of the three begins with a record of its own, which is None.

    Args:
        path: The file: UTF-8 with or without a byte order mark, or UTF-16 with one.
        exact: Take the slow parser, which keeps halves of pairs and has no largest number.

    Raises:
        InputError: If it can't be read, is no JSON or is nested too deeply, or if one of the sections is there twice.
        FastParserError: If only the slow parser can read it, unless `exact`.
    """
    parser = ijson.get_backend("python") if exact else ijson
    try:
        with path.open("rb") as file:
            content = _Utf8(file, path, is_checked=not exact)
            yield from _records(parser.basic_parse(content, use_float=True), path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check the path") from error
    except (ijson.JSONError, ValueError) as error:
        if not exact and "integer overflow" in str(error):
            raise FastParserError from error
        # The fast parser's words for bytes that are no text.
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise InputError(f"{path}: some of its bytes are not UTF-8; save the file as UTF-8") from error
        if isinstance(error, ValueError):
            # Python makes no number of thousands of digits.
            raise InputError(f"{path}: {str(error).partition(';')[0]}; replace it by a number") from error
        raise InputError(
            f"{path}: it is no JSON ({' '.join(str(error).split())}); `grounded-seg validate {path} --fix OUT` lists "
            "and repairs what is wrong"
        ) from error


def _records(events: Iterator[tuple[str, Any]], path: Path) -> Iterator[tuple[str, Any]]:
    builder, is_listed = None, False
    section: str | None = None
    seen: set[str] = set()
    for event, value, before, depth in _with_depth(events, path):
        if builder is None:
            if before == 1 and event == "map_key":
                section = str(value)
                if section in seen:
                    raise section_twice(path, section)
                seen |= {section} & set(SECTIONS)
                continue
            if section is None or depth < before:
                continue
            if section in SECTIONS and before == 1:
                is_listed = event == "start_array"
                if is_listed:
                    yield section, None
                continue
            if section in SECTIONS and not (is_listed and before == 2):
                continue
            builder, base = ijson.ObjectBuilder(), before
        builder.event(event, value)
        if depth == base and section is not None:
            yield section, builder.value
            builder = None


def _with_depth(events: Iterator[tuple[str, Any]], path: Path) -> Iterator[tuple[str, Any, int, int]]:
    """Add in how many lists and objects an event stands, before and after it.

    The parser's own prefixes say so too, but those of a file that is nested 100,000 deep would fill the memory.
    """
    depth = 0
    for event, value in events:
        before = depth
        if event in ("start_map", "start_array"):
            depth += 1
            if depth > MOST_DEPTH:
                raise nested_too_deeply(path)
        elif event in ("end_map", "end_array"):
            depth -= 1
        yield event, value, before, depth


class _Utf8:
    """Opened file whose bytes are UTF-8 without a byte order mark, as the parser reads it."""

    def __init__(self, file: IO[bytes], path: Path, *, is_checked: bool) -> None:
        self._file = file
        start = file.read(_START_BYTES)
        mark, encoding = mark_and_encoding(start, path)
        self._start = start[len(mark) :]
        self._decoder = None if encoding == "utf-8" else codecs.getincrementaldecoder(encoding)()
        self._is_checked = is_checked
        self._last = b""

    def read(self, n_bytes: int = -1) -> bytes:
        """About so many bytes; none at the end of the file."""
        if not n_bytes:
            return b""
        raw = self._start or self._file.read(n_bytes)
        self._start = b""
        content = raw if self._decoder is None else self._decoder.decode(raw, final=not raw).encode("utf-8")
        if raw and not content:
            # A letter was cut.
            return self.read(n_bytes)
        if self._is_checked:
            self._check(content)
        return content

    def _check(self, raw: bytes) -> None:
        """Look for halves of pairs, of which the last bytes may have to wait for the next ones."""
        looked_at = self._last + raw
        first = max(len(self._last) - _PAIR_BYTES, 0)
        end = len(looked_at) - (_PAIR_BYTES if raw else 0)
        if any(first <= found.start() < end for found in _HALF_PAIR.finditer(looked_at)):
            raise FastParserError
        self._last = looked_at[-2 * _PAIR_BYTES :]
