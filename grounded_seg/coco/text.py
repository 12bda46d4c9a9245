"""The text of a COCO file as a document: strict for reading, forgiving for the check, which lists what is wrong."""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from grounded_seg.coco.check.rules import Fault
from grounded_seg.coco.entries import nested_too_deeply, section_twice
from grounded_seg.coco.schema import SECTIONS
from grounded_seg.coco.sections import MOST_DEPTH
from grounded_seg.errors import InputError
from grounded_seg.text.decoding import mark_and_encoding, read_content, read_text, whole_characters
from grounded_seg.text.documents import DocumentError, TooDeepError, check_limits, json_of

_HALF_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
_STRING_OR_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


def read_json(path: Path) -> Any:
    """JSON document of a file, with or without a byte order mark."""
    text = read_text(path)
    if not text.strip():
        raise InputError(f"{path} is empty; export it again")
    try:
        return _document(text, path)
    except TooDeepError as error:
        raise nested_too_deeply(path) from error
    except DocumentError as error:
        if isinstance(found := error.__cause__, json.JSONDecodeError):
            what = f"{found.lineno}:{found.colno}: this is not JSON ({found.msg}); export it again"
            if found.msg == "Extra data":
                what = (
                    f"{found.lineno}: more text follows after the end of the JSON; delete it, or export the file again"
                )
            raise InputError(f"{path}:{what}") from error
        raise InputError(f"{path}: {error}; replace it by a number") from error


def _document(text: str, path: Path) -> Any:
    """Parse a text; refuse one in which a section is there twice."""
    perhaps_twice = [name for name in SECTIONS if text.count(f'"{name}"') > 1]
    if not perhaps_twice:
        return json_of(text, most_depth=MOST_DEPTH, object_of=None)
    keys: list[str] = []

    def object_of(items: list[tuple[str, Any]]) -> dict[str, Any]:
        # The outermost object is the last one.
        keys[:] = [key for key, _ in items]
        return dict(items)

    document = json_of(text, most_depth=MOST_DEPTH, object_of=object_of)
    for name in perhaps_twice:
        if isinstance(document, dict) and keys.count(name) > 1:
            raise section_twice(path, name)
    return document


def parse_file(path: Path) -> tuple[Any, list[Fault]]:
    """Document of a file as far as it can be read, None where it can't, and what is wrong with its text."""
    content = read_content(path)
    faults: list[Fault] = []
    text = _text_of(content, path, faults)
    if text is None:
        return None, faults
    document = _parse(text, faults)
    if _HALF_ESCAPE.search(text):
        faults += _half_faults(document, "")
    return document, faults


def _text_of(content: bytes, path: Path, faults: list[Fault]) -> str | None:
    """Decode a file, also where its encoding is a fault; None where no encoding fits."""
    try:
        mark, encoding = mark_and_encoding(content, path)
    except InputError as error:
        faults.append(Fault("not-utf8", "line 1", str(error).removeprefix(f"{path} ")))
        return None
    if encoding != "utf-8":
        faults.append(Fault("not-utf8", "line 1", "the file is UTF-16; save it as UTF-8"))
    elif mark:
        faults.append(Fault("byte-order-mark", "line 1, column 1", "a byte order mark stands before the JSON"))
    content = content[len(mark) :]
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            return None
        line = content.count(b"\n", 0, error.start) + 1
        faults.append(Fault("not-utf8", f"line {line}", f"byte {error.start} is not UTF-8"))
        # Every byte is a letter in it, and the syntax of JSON is the same.
        return content.decode("latin-1")


def _parse(text: str, faults: list[Fault]) -> Any:
    decoder = _Decoder()
    try:
        check_limits(text, MOST_DEPTH)
        document, end = decoder.raw_decode(text, len(text) - len(text.lstrip()))
    except json.JSONDecodeError as error:
        faults.append(Fault("not-json", f"line {error.lineno}, column {error.colno}", error.msg))
        return _parse_leniently(text)
    except (RecursionError, ValueError) as error:
        # Python reads no whole number of thousands of digits.
        is_deep = isinstance(error, RecursionError | TooDeepError)
        message = "it is nested too deeply" if is_deep else str(error).partition(";")[0]
        faults.append(Fault("not-json", "line 1, column 1", message))
        return None
    if decoder.has_met_odd:
        faults += _odd_faults(document, "")
    if rest := text[end:].lstrip():
        line = text.count("\n", 0, len(text) - len(rest)) + 1
        faults.append(Fault("trailing-data", f"line {line}", f"after the end of the JSON follows {rest[:20]!r}"))
    return document


class _Doubled(dict[str, Any]):
    """Object in which a key stands more than once; the last one counts."""

    counts: Counter[str]


class _Decoder(json.JSONDecoder):
    """Decoder that marks what JSON forbids and Python allows; the places are looked up only if there is any."""

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object, parse_constant=self._constant)
        self.has_met_odd = False

    def _object(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        read = dict(items)
        if len(read) == len(items):
            return read
        self.has_met_odd = True
        doubled = _Doubled(read)
        doubled.counts = Counter(key for key, _ in items)
        return doubled

    def _constant(self, name: str) -> float:
        self.has_met_odd = True
        return float(name)


def _odd_faults(value: Any, place: str) -> Iterator[Fault]:
    """Find the keys that are double, and what is no number."""
    if isinstance(value, dict):
        for key, n in value.counts.items() if isinstance(value, _Doubled) else ():
            if n > 1:
                yield Fault("duplicate-key", place or "$", f"it has {n} keys {key!r}; the last one counts")
        for key, one in value.items():
            yield from _odd_faults(one, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _odd_faults(one, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault("not-a-number", place or "$", f"{value} is no JSON, and no number")


def _half_faults(value: Any, place: str) -> Iterator[Fault]:
    """Find the texts that hold half a character, which JSON's escapes can spell and no file can hold."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _half_faults(key, place or "$")
            yield from _half_faults(one, f"{place}.{key}".lstrip("."))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _half_faults(one, f"{place}[{index}]")
    elif isinstance(value, str):
        try:
            whole_characters(value)
        except ValueError as error:
            yield Fault("half-surrogate", ascii(place).strip("'"), str(error))


def _parse_leniently(text: str) -> Any:
    """Read text with commas before closing brackets, or in Python's own form; None if it is neither."""
    with suppress(ValueError):
        return json_of(
            _STRING_OR_LAST_COMMA.sub(lambda found: found[1] or "", text),
            most_depth=MOST_DEPTH,
            object_of=None,
            is_finite=False,
        )
    try:
        # Python has more types than JSON: tuples become lists, and what JSON can't say is neither.
        return json_of(
            json.dumps(ast.literal_eval(text.strip())), most_depth=MOST_DEPTH, object_of=None, is_finite=False
        )
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        # A TypeError is a list in the place of a key.
        return None
