"""Decode the text of files that come from outside: lists, labels, YAML, JSON, settings.

UTF-8 with or without its byte order mark is read, and UTF-16 with its mark. Every reader decodes here, so that a file
means the same to each command.
"""

import codecs
import re
from pathlib import Path

from grounded_seg.errors import InputError

_UTF16_MARKS = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_UTF32_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_LOOKED_AT_BYTES = 4096
_BINARY_STARTS = {
    b"\xff\xd8\xff": "a picture (JPEG)",
    b"\x89PNG\r\n": "a picture (PNG)",
    b"II*\0": "a picture (TIFF)",
    b"MM\0*": "a picture (TIFF)",
    b"PK\x03\x04": "a ZIP archive",
    b"\x1f\x8b": "compressed (gzip)",
}
# A list of paths may begin with these letters too, so more is looked at.
_BINARY_FORMS = {
    # Width and height below 8192 have a control byte each.
    re.compile(rb"GIF8[79]a.[\0-\x1f].[\0-\x1f]", re.DOTALL): "a picture (GIF)",
    re.compile(rb"RIFF....WEBPVP8", re.DOTALL): "a picture (WebP)",
    # The length of this first part is four bytes.
    re.compile(rb"\0\0..ftyp", re.DOTALL): "a picture or a film (HEIC, AVIF, MP4)",
    re.compile(rb"%PDF-\d\.\d\s"): "a PDF",
}
_SURROGATE = re.compile("[\ud800-\udfff]")
_MOST_SHOWN = 60


def read_text(path: Path) -> str:
    """Text of a file, without its byte order mark.

    Raises:
        InputError: If the file can't be read, or is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    return decode_text(read_content(path), path)


def read_content(path: Path) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: If there is none, or it can't be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"no file is at {path}; check the path") from error
    except ValueError as error:
        raise InputError(f"no file can be at {str(path)!r} ({error}); check the path") from error
    except OSError as error:
        raise InputError(
            f"{path} can't be read ({error.strerror}); check that it is a file and its permissions"
        ) from error


def decode_text(content: bytes, path: Path) -> str:
    """Text of a file's whole content, without its byte order mark; messages name the path.

    Raises:
        InputError: If it is neither UTF-8 nor UTF-16 with a byte order mark.
    """
    mark, encoding = mark_and_encoding(content, path)
    try:
        return content[len(mark) :].decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-8" if encoding == "utf-8" else "UTF-16"
        raise InputError(f"{path}: byte {len(mark) + error.start} is not {name}; save the file as UTF-8") from error


def mark_and_encoding(start: bytes, path: object) -> tuple[bytes, str]:
    """Byte order mark that a file begins with, empty for none, and the name of its encoding.

    Args:
        start: The first bytes of the file, some thousands if it has as many.
        path: Where it is, for messages.

    Raises:
        InputError: If it is UTF-16 without a mark, UTF-32, or a picture or an archive.
    """
    if start.startswith(codecs.BOM_UTF8):
        return codecs.BOM_UTF8, "utf-8"
    if (kind := _kind_of_binary(start)) is not None:
        raise InputError(f"{path} is {kind}, not text; check the path")
    if start.startswith(_UTF32_MARKS):
        raise InputError(f"{path} is UTF-32, which is not read; save the file as UTF-8")
    for mark, encoding in _UTF16_MARKS.items():
        if start.startswith(mark):
            return mark, encoding
    if _looks_like_utf16(start[:_LOOKED_AT_BYTES]):
        raise InputError(f"{path} looks like UTF-16 without a byte order mark; save the file as UTF-8")
    return b"", "utf-8"


def whole_characters(text: str) -> str:
    """Text whose surrogate pairs are the characters that they stand for.

    Escapes of JSON and YAML can spell half a character, which no file can hold.

    Raises:
        ValueError: If half of a pair stands alone; the message shows the text in ASCII.
    """
    if not _SURROGATE.search(text):
        return text
    try:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le")
    except UnicodeDecodeError as error:
        shown = ascii(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
        raise ValueError(f"{shown} holds half a character; write the character itself") from error


def _kind_of_binary(start: bytes) -> str | None:
    """What a file is that isn't text, by how it begins; None for what may be text."""
    for first, kind in _BINARY_STARTS.items():
        if start.startswith(first):
            return kind
    return next((kind for form, kind in _BINARY_FORMS.items() if form.match(start)), None)


def _looks_like_utf16(start: bytes) -> bool:
    """Whether nearly every second byte is zero, as in UTF-16 of ASCII letters, and hardly any of the others."""
    pairs = len(start) // 2
    zeros = [start[first : pairs * 2 : 2].count(0) for first in (0, 1)]
    return pairs >= 2 and max(zeros) > 0.7 * pairs and min(zeros) < 0.1 * pairs
