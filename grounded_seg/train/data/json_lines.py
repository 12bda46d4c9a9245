"""In which line of a JSON file the entries of a list stand, for messages about one of them."""

import json
import re
from pathlib import Path

_PLACE = re.compile(r"\b(images|annotations|categories)\[(\d+)\]")
_CONSTANT = re.compile(r"(?:NaN|-?Infinity)\b")
_TEXT_OR_CONSTANT = re.compile(rf'"(?:[^"\\]|\\.)*"|({_CONSTANT.pattern})')
_SPACE = re.compile(r"[ \t\r\n]*")


def with_line(path: Path, place: str) -> str:
    """Put the line in front of a place as `annotations[3]`; the file alone where the place can't be found.

    Args:
        path: A JSON file that was read without a fault, but for a NaN in it.
        place: Text that holds such a place, or begins with the constant that is no number.
    """
    if _CONSTANT.match(place):
        text = path.read_text(encoding="utf-8-sig")
        first = next((found for found in _TEXT_OR_CONSTANT.finditer(text) if found[1]), None)
        return f"{path}:{text.count(chr(10), 0, first.start()) + 1}: {place}" if first else f"{path}: {place}"
    found = _PLACE.search(place)
    lines = lines_of(path, found[1]) if found else []
    number = int(found[2]) if found else 0
    return f"{path}:{lines[number]}: {place}" if number < len(lines) else f"{path}: {place}"


def lines_of(path: Path, key: str) -> list[int]:
    """Give the line, from 1, in which each entry of a list at the top of a JSON object starts; none without one."""
    text = path.read_text(encoding="utf-8-sig")
    decoder = json.JSONDecoder()
    place = _after_space(text, 0)
    try:
        while text[place] in "{,":
            name, place = decoder.raw_decode(text, _after_space(text, place + 1))
            # Over the colon.
            place = _after_space(text, _after_space(text, place) + 1)
            if name == key and text[place] == "[":
                return _entry_lines(text, place, decoder)
            _, place = decoder.raw_decode(text, place)
            place = _after_space(text, place)
    except (ValueError, IndexError):
        return []
    return []


def _entry_lines(text: str, place: int, decoder: json.JSONDecoder) -> list[int]:
    lines: list[int] = []
    line, counted_to = 1, 0
    while text[place] in "[,":
        place = _after_space(text, place + 1)
        if text[place] == "]":
            break
        line, counted_to = line + text.count("\n", counted_to, place), place
        lines.append(line)
        _, place = decoder.raw_decode(text, place)
        place = _after_space(text, place)
    return lines


def _after_space(text: str, place: int) -> int:
    match = _SPACE.match(text, place)
    return match.end() if match else place
