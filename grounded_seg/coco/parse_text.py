"""From the bytes of a COCO file to its document, past what can be mended on the way."""

import ast
import codecs
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import Any

from grounded_seg.coco.faults import Fault
from grounded_seg.errors import InputError

_STRING_OR_LAST_COMMA = re.compile(r'("(?:\\.|[^"\\])*")|,(?=\s*[}\]])', re.DOTALL)


def parse_file(path: Path) -> tuple[Any, list[Fault]]:
    """Read the document as far as it can be read; None where it can't.

    Raises:
        InputError: If there is no such file, or it may not be read.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}); check the path") from error
    return parse_bytes(content)


def parse_bytes(content: bytes) -> tuple[Any, list[Fault]]:
    """Read a document, and list what was wrong with its text."""
    faults = []
    if content.startswith(codecs.BOM_UTF8):
        faults.append(Fault("byte-order-mark", "line 1, column 1", "a byte order mark stands before the JSON"))
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        faults.append(Fault("not-utf8", f"line {line}", f"byte {error.start} is no UTF-8"))
        # Every byte is a letter in it, and the syntax of JSON is the same.
        text = content.decode("latin-1")
    return _parse(text, faults), faults


def _parse(text: str, faults: list[Fault]) -> Any:
    start = len(text) - len(text.lstrip())
    try:
        document, end = _decoder(faults).raw_decode(text, start)
    except RecursionError:
        faults.append(Fault("not-json", "line 1, column 1", "it is nested too deeply"))
        return None
    except json.JSONDecodeError as error:
        faults.append(Fault("not-json", f"line {error.lineno}, column {error.colno}", error.msg))
        return _parse_leniently(text)
    if text[end:].strip():
        rest = text[end:].lstrip()
        line = text.count("\n", 0, len(text) - len(rest)) + 1
        faults.append(Fault("trailing-data", f"line {line}", f"after the end of the JSON follows {rest[:20]!r}"))
    return document


def _decoder(faults: list[Fault]) -> json.JSONDecoder:
    """Make a decoder that notes what JSON forbids and Python allows."""

    def constant(name: str) -> float:
        faults.append(Fault("not-a-number", "somewhere", f"{name} is no JSON, and no number"))
        return math.nan

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = Counter(key for key, _ in items)
        for key, n in keys.items():
            if n > 1:
                faults.append(
                    Fault("duplicate-key", "somewhere", f"an object has {n} keys {key!r}; the last one counts")
                )
        return dict(items)

    return json.JSONDecoder(object_pairs_hook=pairs, parse_constant=constant)


def _parse_leniently(text: str) -> Any:
    """Read text with commas before closing brackets, or in Python's own form; None if it is neither."""
    try:
        return json.loads(_STRING_OR_LAST_COMMA.sub(lambda found: found[1] or "", text))
    except (json.JSONDecodeError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
