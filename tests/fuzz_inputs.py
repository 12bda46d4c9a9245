"""Inputs that a reader has never seen: good files with a few edits, by their grammar or byte by byte.

A text is edited at its values, entries and lines, so that most of what comes out is still JSON, YAML or TOML and gets
past the parser; some are then cut off or written in another encoding. Hypothesis draws the edits, and shrinks them.
"""

import codecs
import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

DEEP = 4000
_HERE = "HERE"
_OTHER_KINDS = (None, True, -1, 0.5, 10**30, "", "x", "\ud800", [], [1], {}, {"x": 1})
HOSTILE_JSON = (
    *(
        "null",
        "true",
        "-1",
        "0",
        "1",
        "2",
        "-0.0",
        "0.5",
        "1e999",
        "-1e999",
        "NaN",
        "Infinity",
        "1e-320",
        "3.0000000001",
    ),
    *("1e15", "2147483648", "9223372036854775808", "-9223372036854775809", "1" * 5000, f"1e{'9' * 400}", "01", "1_000"),
    *(
        '""',
        '" "',
        '"0"',
        '"7"',
        '"1e3"',
        '"nan"',
        '"null"',
        '"car"',
        '"red car"',
        '"~"',
        '"C:\\\\x.png"',
        '"."',
        '".."',
    ),
    *('"../../x.png"', '"/etc/passwd"', '"/dev/zero"', '"a/\\u0000b.png"', '"\\u001b[31mred\\u0007"', '"\\u202ex.png"'),
    *(
        '"\\ud800"',
        '"\\udfff\\ud800"',
        f'"{"x" * 300}.png"',
        f'"{"x" * 70_000}"',
        '"line\\nbreak\\r"',
        '"megatron.evil"',
    ),
    *("[]", "{}", "[[]]", "[0]", "[1, 2, 3, 4]", "[0, 0, 0, 0]", '[1, 2, "3", null]', "[1e300, 1e300, 1e308, 1e308]"),
    *("[-1, -1, -1, -1]", '{"size": [30, 40], "counts": "a"}', '{"size": [99999999, 99999999], "counts": [0]}'),
    *('{"counts": [1, 2], "size": [1]}', '{"": 1}', '{"a": 1, "a": 2}', "[" * DEEP + "]" * DEEP, "[" * DEEP),
    *('{"a":' * DEEP + "1" + "}" * DEEP, f"[{', '.join(['1'] * 3000)}]", "'single'", "//comment", "", "}", "]"),
)
HOSTILE_YAML = (
    *HOSTILE_JSON[:40],
    *("~", "no", "on", "0x10", "1_000", "2024-01-01", "1:30", ".nan", ".inf", "!!python/object:os.system x", "!!int x"),
    *(
        "&a [*a]",
        "*a",
        "&a [x, x]",
        "- x",
        "? x",
        "|",
        ">",
        "%YAML 9.9",
        "'",
        '"\\U00110000"',
        "\t",
        "<<: *a",
        "@x",
        "`x`",
    ),
    *("[" * 300 + "]" * 300, "{" * 300, "&a [1,1]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]"),
    *("!!binary x", "!!set {x}", "!!timestamp 9999-99-99", "--- x", "...", "\x07", "\ufeff", "\x85", "1e999999999"),
)
HOSTILE_WORDS = (
    *("0", "1", "-1", "0.5", "1.02", "1e999", "nan", "inf", "-0", "99999999999999999999", "1,2", "0x1", "x", "", " "),
    *(
        "1 " * 2000,
        "0.5 0.5",
        "\x00",
        "\x1b[2J",
        "\u202e",
        "é",
        "../x.png",
        "/",
        ".",
        "*",
        "\t",
        "x" * 5000,
        "1_0",
        "\u0661",
    ),
    *("<OD>", "<loc_0>", "<loc_1000>", "car<loc_1><loc_2><loc_3><loc_4>", "<loc_1><loc_1>", "#", ";", "\ud7ff"),
)
HOSTILE_BYTES = (
    *(b"\0", b"\xff", b"\x80", b"\x7f", b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"),
    *(
        b"\x80\0\0\0",
        b"\0\0\0\x80",
        b"\0\x01",
        b"\x01\0",
        b"\xff\xff",
        b"\0\0\x40\0",
        b"\xff" * 8,
        b"\0" * 64,
        b"(",
        b".",
    ),
    *(
        b"]",
        b"}",
        b'"',
        b"\n",
        b"cos\nsystem\n(S'x'\ntR.",
        b"c__builtin__\neval\n",
        b"\x1b[31m",
        b"../",
        b"\xed\xa0\x80",
    ),
    *(
        b"9" * 30,
        b"-1",
        b"IHDR",
        b"IDAT",
        b"IEND",
        b"acTL",
        b"iCCP",
        b"\xff\xd9",
        b"\xff\xda",
        b"Exif\0\0",
        b"ftypavif",
    ),
)


@dataclass(frozen=True)
class Span:
    """A part of a text that one edit is about."""

    start: int
    end: int


Grammar = Callable[[str], tuple[Span, ...]]


@lru_cache(maxsize=256)
def json_spans(text: str) -> tuple[Span, ...]:
    """Values, keys and entries of a JSON text, or of one on each line."""
    found: list[Span] = []
    place = 0
    while (start := _next(text, place)) < len(text):
        place = _scan(text, start, found)
    return tuple(found)


def _next(text: str, place: int) -> int:
    while place < len(text) and text[place] in " \t\r\n,:":
        place += 1
    return place


def _scan(text: str, start: int, found: list[Span]) -> int:
    """Note a value that begins here, and all that is in it; gives its end."""
    if text[start] not in "[{":
        _, end = json.JSONDecoder().raw_decode(text, start)
        found.append(Span(start, end))
        return end
    is_object, place = text[start] == "{", start + 1
    while (place := _next(text, place)) < len(text) and text[place] not in "]}":
        entry = place
        if is_object:
            _, end = json.JSONDecoder().raw_decode(text, place)
            found.append(Span(place, end))
            place = _next(text, end)
        place = _scan(text, place, found)
        if is_object:
            found.append(Span(entry, place))
    found.append(Span(start, place + 1))
    return place + 1


@lru_cache(maxsize=256)
def line_spans(text: str) -> tuple[Span, ...]:
    """Lines of a YAML or TOML text, and what stands behind their `:`, `=` or `-`, and words between brackets."""
    found = [Span(*one.span()) for one in re.finditer(r"[^\n]+\n?", text)]
    found += [Span(*one.span(1)) for one in re.finditer(r"(?:[:=]|^\s*-)[ \t]*([^\n]+)", text, re.MULTILINE)]
    found += [Span(*one.span()) for one in re.finditer(r"[^\s\[\]{}:=,#]+", text)]
    return tuple(found)


@lru_cache(maxsize=256)
def word_spans(text: str) -> tuple[Span, ...]:
    """Lines and words."""
    found = [Span(*one.span()) for one in re.finditer(r"[^\n]+\n?", text)]
    found += [Span(*one.span()) for one in re.finditer(r"[^\s<>]+", text)]
    return tuple(found)


_TEXT_EDITS = ("replace", "replace", "replace", "remove", "twice", "swap")
_WRAPPINGS = (*("as it is",) * 12, "cut off", "mark", "utf-16", "utf-32", "latin-1", "zero", "twice", "crlf")


def _edited(text: str, spans: Sequence[Span], edits: Sequence[tuple[str, int, int, str]]) -> str:
    """Make the edits from the last place to the first, so that the places before stay right."""
    for edit, place, other, hostile in sorted(edits, key=lambda one: -spans[one[1] % len(spans)].start):
        span, from_elsewhere = spans[place % len(spans)], spans[other % len(spans)]
        part = text[span.start : span.end]
        new = {
            "replace": hostile,
            "remove": "",
            "twice": f"{part}, {part}" if "\n" not in part else part * 2,
            "swap": text[from_elsewhere.start : from_elsewhere.end],
        }[edit]
        text = text[: span.start] + new + text[span.end :]
    return text


def _wrapped(text: str, how: str, place: int) -> bytes:
    content = text.encode("utf-8", errors="surrogatepass")
    match how:
        case "cut off":
            return content[: place % (len(content) + 1)]
        case "mark":
            return codecs.BOM_UTF8 + content
        case "utf-16" | "utf-32":
            return text.encode(how, errors="surrogatepass")
        case "latin-1":
            return content + b'"\xe9\xff'
        case "zero":
            at = place % (len(content) + 1)
            return content[:at] + b"\0" + content[at:]
        case "twice":
            return content * 2
        case "crlf":
            return content.replace(b"\n", b"\r\n")
    return content


def texts(seeds: Sequence[str], grammar: Grammar, hostile: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Good texts with up to four edits."""
    places = st.integers(0, 1 << 16)
    edit = st.tuples(st.sampled_from(_TEXT_EDITS), places, places, st.sampled_from(hostile))

    def build(seed: str, edits: list[tuple[str, int, int, str]], how: str, place: int) -> bytes:
        return _wrapped(_edited(seed, grammar(seed), edits), how, place)

    edits = st.lists(edit, max_size=4)
    return st.builds(build, st.sampled_from(seeds), edits, st.sampled_from(_WRAPPINGS), places)


_BYTE_EDITS = ("write", "write", "write", "insert", "remove", "repeat", "cut off", "splice")
_HEADER_BYTES = 200


def _mutated(content: bytes, edits: Sequence[tuple[str, int, int, bytes]], other: bytes) -> bytes:
    for edit, place, length, hostile in edits:
        at = place % (len(content) + 1)
        end = at + 1 + length % 64
        match edit:
            case "write":
                content = content[:at] + hostile + content[at + len(hostile) :]
            case "insert":
                content = content[:at] + hostile + content[at:]
            case "remove":
                content = content[:at] + content[end:]
            case "repeat":
                content = content[:end] + content[at:]
            case "cut off":
                content = content[:at]
            case "splice":
                content = content[:at] + other[at:]
    return content


def byte_strings(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Good files with up to six edits of their bytes, half of these in what is likely the header."""
    places = st.one_of(st.integers(0, _HEADER_BYTES), st.integers(0, 1 << 20))
    bytes_written = st.one_of(st.sampled_from(HOSTILE_BYTES), st.binary(min_size=1, max_size=4))
    edit = st.tuples(st.sampled_from(_BYTE_EDITS), places, st.integers(0, 1 << 12), bytes_written)
    return st.builds(_mutated, st.sampled_from(seeds), st.lists(edit, max_size=6), st.sampled_from(seeds))


def json_texts(*seeds: str) -> st.SearchStrategy[bytes]:
    return texts(seeds, json_spans, HOSTILE_JSON)


def yaml_texts(*seeds: str) -> st.SearchStrategy[bytes]:
    return texts(seeds, line_spans, HOSTILE_YAML)


def word_texts(*seeds: str) -> st.SearchStrategy[bytes]:
    return texts(seeds, word_spans, HOSTILE_WORDS)


def one_fault_each(text: str) -> Iterator[bytes]:
    """A JSON document, or lines of such, with one fault: each value in turn taken away, or of another kind.

    Of a list the first two entries stand for all.
    """
    rows = _Rows(text)
    for place in rows.places():
        if len(place) > 1:
            yield rows.without(place)
        for other in _OTHER_KINDS:
            yield rows.with_value(place, json.dumps(other))


def one_hostile_each(text: str) -> Iterator[bytes]:
    """The same with each hostile value in turn in each place, whatever stood there."""
    rows = _Rows(text)
    for place in rows.places():
        for hostile in HOSTILE_JSON:
            yield rows.with_value(place, hostile)


class _Rows:
    """One JSON document or lines of such, and the places of all values in them."""

    def __init__(self, text: str) -> None:
        try:
            self._rows, self._gap = [json.loads(text)], ""
        except ValueError:
            self._rows, self._gap = [json.loads(line) for line in text.splitlines()], "\n"

    def places(self) -> Iterator[tuple[Any, ...]]:
        """Row and keys of each value, outer ones first."""
        return ((number, *place) for number, row in enumerate(self._rows) for place in _places(row))

    def without(self, place: tuple[Any, ...]) -> bytes:
        """The text without a value."""
        rows, holder = self._copied(place)
        del holder[place[-1]]
        return self._text(rows).encode()

    def with_value(self, place: tuple[Any, ...], value: str) -> bytes:
        """The text with another value, as it is to stand there."""
        rows, holder = self._copied(place)
        holder[place[-1]] = _HERE
        before, _, after = self._text(rows).partition(json.dumps(_HERE))
        return (before + value + after).encode()

    def _copied(self, place: tuple[Any, ...]) -> tuple[list[Any], Any]:
        rows = holder = copy.deepcopy(self._rows)
        for key in place[:-1]:
            holder = holder[key]
        return rows, holder

    def _text(self, rows: list[Any]) -> str:
        return self._gap.join(json.dumps(row) for row in rows) + self._gap


def _places(value: Any) -> Iterator[tuple[Any, ...]]:
    """Where values are in a document, outer ones first."""
    yield ()
    inner = value.items() if isinstance(value, dict) else enumerate(value[:2]) if isinstance(value, list) else ()
    for key, one in inner:
        for place in _places(one):
            yield (key, *place)
