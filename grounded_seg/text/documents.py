"""JSON and TOML from outside, read within limits; YAML is read in `yaml_nodes`, within the same ones.

A document that is nested deeper, has longer numbers or is larger than anything useful would end in errors or minutes of
work somewhere behind the reader: here it is one error that says what and where. Every reader of the package comes here.
"""

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from grounded_seg.text.printable import safe_text

MOST_DEPTH = 100
"""Lists and objects in each other."""
MOST_DIGITS = 100
"""Of a number; a hash written as one has 78."""
MOST_BYTES = 64 << 20
"""Of a document whose reader gives no other limit; a tokenizer has a few million."""
_MOST_SHOWN = 60

_MARK = b"\xef\xbb\xbf"
_BRACKETS = b'[]{}"'
_NO_BRACKETS = bytes(set(range(256)) - set(_BRACKETS))
_STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_TEXTS = re.compile(rb'"[^"]*"')
_DIGITS_AS_ZERO = bytes(ord("0") if ord("0") <= one <= ord("9") else one for one in range(256))
_LONG_NUMBER = b"0" * (MOST_DIGITS + 1)
_LARGE_POWERS = (b"e000", b"E000", b"e+000", b"E+000")
_KEY_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')"""
_LONG_KEY = re.compile(rf"^[ \t]*\[{{0,2}}[ \t]*{_KEY_PART}(?:[ \t]*\.[ \t]*{_KEY_PART}){{{MOST_DEPTH}}}", re.MULTILINE)


class DocumentError(ValueError):
    """A text can't be read as a document; the message says what is wrong and where in the text, not which file."""


class JsonSyntaxError(DocumentError):
    """It is no JSON from some place on, as a text that is cut off is at its end."""


class TooDeepError(DocumentError):
    """It has lists and objects in each other beyond the limit."""

    def __init__(self, most: int = MOST_DEPTH) -> None:
        super().__init__(f"it is nested more than {most} deep")


def unique_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object of JSON's keys and values; a `DocumentError` if a key is there twice."""
    read = dict(items)
    if len(read) < len(items):
        keys = [key for key, _ in items]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DocumentError(f"the key {safe_text(twice, most=_MOST_SHOWN)!r} is there twice in one object")
    return read


def json_of(
    text: str | bytes,
    *,
    most_depth: int = MOST_DEPTH,
    object_of: Callable[[list[tuple[str, Any]]], Any] | None = unique_keys,
    is_finite: bool = True,
) -> Any:
    """Parse JSON strictly: no NaN, no infinite number, no key twice.

    Args:
        text: The document; bytes are UTF-8 with or without a byte order mark.
        most_depth: Lists and objects in each other.
        object_of: What is made of an object's keys and values. With None a dict, in which the last of equal keys
            counts: for lines and files that are read in millions.
        is_finite: Refuse NaN and infinite numbers; the figures of a training may be such.

    Raises:
        DocumentError: If it is no JSON, or beyond a limit.
    """
    raw = check_limits(text, most_depth)
    hooks: dict[str, Any] = {"parse_int": _int_of, "parse_float": _float_of} if _has_odd_numbers(raw) else {}
    if is_finite:
        hooks["parse_constant"] = _refuse_constant
    else:
        hooks.pop("parse_float", None)
    content = _decoded(raw) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    # The values take memory enough.
    del raw
    try:
        return json.loads(content, object_pairs_hook=object_of, **hooks)
    except json.JSONDecodeError as error:
        raise JsonSyntaxError(f"line {error.lineno}, column {error.colno}: this is not JSON ({error.msg})") from error
    except RecursionError as error:
        raise TooDeepError(most_depth) from error


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise DocumentError(f"line {line}: byte {error.start} is not UTF-8") from error


def check_limits(text: str | bytes, most_depth: int = MOST_DEPTH) -> bytes:
    """Refuse JSON that is nested too deeply, before a parser sees it; its bytes in UTF-8, without a byte order mark.

    Raises:
        TooDeepError: If it is.
    """
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    raw = raw.removeprefix(_MARK)
    if _is_deeper(raw, most_depth):
        raise TooDeepError(most_depth)
    return raw


def json_in(path: Path, *, most_bytes: int = MOST_BYTES, is_finite: bool = True) -> Any:
    """Parse a file of JSON in UTF-8, whose keys are unique; for `is_finite` see `json_of`.

    Raises:
        OSError: If it can't be read.
        DocumentError: If it isn't a file, is no JSON, or beyond a limit.
    """
    # A pipe or a device may have no end.
    if os.path.exists(path) and not os.path.isdir(path) and not os.path.isfile(path):
        raise DocumentError("it is a pipe or a device, not a file")
    return json_of(limited_bytes(path, most_bytes), is_finite=is_finite)


def limited_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """All bytes of a file of at most so many.

    Raises:
        OSError: If it can't be read.
        DocumentError: If it is larger.
    """
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise DocumentError(f"it has more than {most_bytes} bytes")
    return content


def toml_of(text: str) -> dict[str, Any]:
    """Parse TOML.

    Raises:
        DocumentError: If it is none, or beyond a limit.
    """
    if _LONG_KEY.search(text):
        raise TooDeepError
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DocumentError(f"this is not TOML ({safe_text(str(error))})") from error
    except RecursionError as error:
        raise TooDeepError from error
    except (ValueError, OverflowError) as error:
        # Python makes no number of thousands of digits, and no date in month 13.
        raise DocumentError(str(error).partition(";")[0]) from error
    check_values(content)
    return content


def check_values(content: Any) -> None:
    """Refuse numbers that aren't finite or too long, and what is nested too deeply, in what was parsed already.

    Raises:
        DocumentError: If there is any.
    """
    waiting: list[Iterator[Any]] = [iter((content,))]
    while waiting:
        value = next(waiting[-1], waiting)
        if value is waiting:
            waiting.pop()
        elif isinstance(value, dict | list):
            if len(waiting) > MOST_DEPTH:
                raise TooDeepError
            waiting.append(iter(value.values() if isinstance(value, dict) else value))
        elif isinstance(value, int) and value.bit_length() > MOST_DIGITS * 3.33:
            raise DocumentError(f"a number has more than {MOST_DIGITS} digits")
        elif isinstance(value, float) and not math.isfinite(value):
            raise DocumentError(f"{value} stands where a number belongs")


def _is_deeper(raw: bytes, most: int) -> bool:
    """Whether JSON is nested deeper, up to the first error in it, without parsing it."""
    if raw.count(b"[") + raw.count(b"{") <= most:
        return False
    if b"\\" in raw:
        raw = raw.replace(b"\\\\", b"").replace(b'\\"', b"")
    steps = _TEXTS.sub(b"", raw.translate(None, _NO_BRACKETS))
    return max(accumulate(_STEPS.get(one, 0) for one in steps), default=0) > most


def _has_odd_numbers(raw: bytes) -> bool:
    """Whether numbers have to be looked at one by one, as some may be too large or too long; most texts have none."""
    zeros = raw.translate(_DIGITS_AS_ZERO)
    return _LONG_NUMBER in zeros or any(power in zeros for power in _LARGE_POWERS)


def _int_of(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise DocumentError(f"a number has more than {MOST_DIGITS} digits")
    return int(digits)


def _float_of(digits: str) -> float:
    value = float(digits)
    if len(digits) > 2 * MOST_DIGITS or not math.isfinite(value):
        raise DocumentError(f"the number {safe_text(digits, most=_MOST_SHOWN)} is too large or too long")
    return value


def _refuse_constant(name: str) -> Any:
    raise DocumentError(f"{name} stands where a number belongs")


def reason_of(error: Exception) -> str:
    """Why a document has not the form that it should have, in words, from the error that reading it ended with.

    >>> reason_of(KeyError("data_set"))
    "'data_set' is missing"
    """
    if isinstance(error, KeyError):
        return f"{error} is missing"
    # A type's name says nothing to somebody who edits a file.
    return str(error) if isinstance(error, ValueError) else "a part of it is not of the right kind"
