"""Text from outside: UTF-8 with and without a mark, UTF-16 by its mark, everything else refused by name."""

import codecs
from pathlib import Path

import PIL.Image
import pytest

from grounded_seg.errors import InputError
from grounded_seg.text.decoding import decode_text, read_text

TEXT = '{"name": "café"}\n'


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        codecs.BOM_UTF8 + TEXT.encode(),
        codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"),
        codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    ],
    ids=["utf-8", "utf-8 with mark", "utf-16 le", "utf-16 be"],
)
def test_the_same_text_comes_out_of_each_encoding(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    assert read_text(path) == TEXT


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (TEXT.encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (TEXT.encode("utf-16-be"), "UTF-16 without a byte order mark"),
        (codecs.BOM_UTF32_LE + TEXT.encode("utf-32-le"), "UTF-32"),
        (b"abc\xff", "byte 3 is not UTF-8"),
        (codecs.BOM_UTF16_LE + b"a\0b", "byte 4 is not UTF-16"),
    ],
)
def test_other_bytes_are_refused_by_name(content: bytes, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        decode_text(content, Path("labels.txt"))
    assert str(refused.value).startswith("labels.txt")
    assert "save the file as UTF-8" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"a", b"\0", b"one\0two\0"])
def test_names_between_zero_bytes_are_utf8(content: bytes) -> None:
    assert decode_text(content, Path("x")) == content.decode()


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file is at"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(InputError, match="can't be read"):
        read_text(tmp_path)


@pytest.mark.parametrize(
    "first",
    [
        "GIF80s/frame.png",
        "GIF89a/frame.png",
        "abc/ftyp.png",
        "abcdftypheic.png",
        "RIFF/tmpWEBP/a.png",
        "%PDF-1.4/a.png",
    ],
)
@pytest.mark.parametrize("end", ["\n", "\0"])
def test_a_list_may_begin_with_the_letters_of_a_picture(first: str, end: str) -> None:
    assert decode_text(f"{first}{end}b.png{end}".encode(), Path("list")) == f"{first}{end}b.png{end}"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_called_one(kind: str, tmp_path: Path) -> None:
    PIL.Image.new("RGB", (640, 480), "red").save(tmp_path / "a", kind)
    with pytest.raises(InputError, match="is a picture"):
        read_text(tmp_path / "a")


@pytest.mark.parametrize("name", ["a\0.json", "a\ud800.json"])
def test_a_path_that_no_file_can_have_is_told(name: str) -> None:
    with pytest.raises(InputError, match="no file can be at"):
        read_text(Path(name))
