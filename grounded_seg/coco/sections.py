"""Sections of a COCO file of any size, record by record in one pass. The home of ijson."""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import ijson

from grounded_seg.errors import InputError
from grounded_seg.text.decoding import mark_and_encoding

SECTIONS = ("categories", "images", "annotations")
_START_BYTES = 4096
_HALF_PAIR = re.compile(
    rb"\\u[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F])"
)
_PAIR_BYTES = 12


class HalfPairError(Exception):
    """The file may hold half of a pair of surrogates, which the fast parser can't give; read it with `exact`."""


def records_of(path: Path, *, exact: bool = False) -> Iterator[tuple[str, Any]]:
    """Records of the three sections one by one, and other sections whole, in the order of the file.

    A section of the three begins with a record of its own, which is None.

    Args:
        path: The file: UTF-8 with or without a byte order mark, or UTF-16 with one.
        exact: Take the slow parser, which keeps halves of pairs.

    Raises:
        InputError: If it can't be read, or is no JSON.
        HalfPairError: If it may hold half of a pair, unless `exact`.
    """
    parser = ijson.get_backend("python") if exact else ijson
    try:
        with path.open("rb") as file:
            yield from _records(parser.parse(_Utf8(file, path, is_checked=not exact), use_float=True))
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check the path") from error
    except (ijson.JSONError, UnicodeDecodeError) as error:
        # The fast parser's words for bytes that are no text.
        if isinstance(error, UnicodeDecodeError) or "UTF8" in str(error):
            raise InputError(f"{path}: some of its bytes are not UTF-8; save the file as UTF-8") from error
        raise InputError(
            f"{path}: it is no JSON ({' '.join(str(error).split())}); `grounded-seg validate {path} --fix OUT` lists "
            "and repairs what is wrong"
        ) from error


def _records(events: Iterator[tuple[str, str, Any]]) -> Iterator[tuple[str, Any]]:
    # One pass over the events, because `ijson.items` finds one section only.
    builder, section, depth = None, "", 0
    for prefix, event, value in events:
        if builder is None:
            if prefix == "" and event == "map_key":
                section = value
            if section in SECTIONS and prefix == section and event == "start_array":
                yield section, None
            starts = prefix == f"{section}.item" if section in SECTIONS else prefix == section != ""
            if not starts or event == "map_key":
                continue
            builder = ijson.ObjectBuilder()
        builder.event(event, value)
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if depth == 0:
            yield section, builder.value
            builder = None


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
        if self._decoder is not None:
            text = self._decoder.decode(raw, final=not raw)
            # A letter may be cut.
            return text.encode("utf-8") if text or not raw else self.read(n_bytes)
        if self._is_checked:
            self._check(raw)
        return raw

    def _check(self, raw: bytes) -> None:
        """Look for halves of pairs, of which the last bytes may have to wait for the next ones."""
        looked_at = self._last + raw
        first = max(len(self._last) - _PAIR_BYTES, 0)
        end = len(looked_at) - (_PAIR_BYTES if raw else 0)
        if any(first <= found.start() < end for found in _HALF_PAIR.finditer(looked_at)):
            raise HalfPairError
        self._last = looked_at[-2 * _PAIR_BYTES :]
