"""Addresses as texts: which are read, what they show, and the names that images get."""

import pickle
from pathlib import Path

import pytest

from grounded_seg.errors import InputError
from grounded_seg.images.given import PathList, given_from
from grounded_seg.images.parquet_list import ParquetColumn
from grounded_seg.images.remote.addresses import (
    AddressPattern,
    Braces,
    address_from,
    common_address,
    names_of,
    safe_name,
)
from grounded_seg.records import Address, TarMember

SIGNED = "https://user:secret@host.org/a/b.jpg?X-Amz-Signature=abc&X-Amz-Credential=def"


@pytest.mark.parametrize(
    ("text", "given"),
    [
        ("s3://bucket/a//b.jpg", Address("s3://bucket/a//b.jpg")),
        ("S3://Bucket/A", Address("s3://Bucket/A")),
        ("gs://b/*.png", AddressPattern("gs://b/*.png")),
        ("az://b/a[1].png", AddressPattern("az://b/a[1].png")),
        ("https://host/a.jpg?w=1", Address("https://host/a.jpg?w=1")),
        ("s3://b/s-{00..09}.tar", Braces("s3://b/s-{00..09}.tar")),
        ("s-{a,b}.tar", Braces("s-{a,b}.tar")),
        ("@s3://b/list.txt", PathList(Address("s3://b/list.txt"))),
        ("@list.parquet:url", ParquetColumn(Path("list.parquet"), "url")),
        ("@gs://b/list.parquet:url", ParquetColumn(Address("gs://b/list.parquet"), "url")),
        ("@list.parquet", ParquetColumn(Path("list.parquet"), None)),
        ("@list.txt", PathList(Path("list.txt"))),
    ],
)
def test_what_a_text_names(text: str, given: object) -> None:
    assert given_from(text) == given


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ftp://host/a.jpg", "'ftp://host/a.jpg' is an address that isn't read; give one of s3://"),
        ("s3://key:secret@bucket/a.jpg", "holds a password before 'bucket'"),
        ("s3:///a.jpg", "names no bucket"),
        ("https:///a.jpg", "names no host"),
    ],
)
def test_other_addresses_are_one_line(text: str, says: str) -> None:
    with pytest.raises(InputError) as raised:
        given_from(text)
    assert says in str(raised.value)
    assert "secret" not in str(raised.value)


def test_what_is_shown_of_an_address_signs_nothing() -> None:
    address = address_from(SIGNED)
    assert address is not None
    assert str(address) == "https://host.org/a/b.jpg"
    assert address.name == "b.jpg"
    assert "abc" not in repr(address)
    assert address.url == SIGNED
    # A question mark may be part of a key.
    assert str(Address("s3://b/what?.jpg")) == "s3://b/what?.jpg"


def test_a_location_is_pickled_whole_and_is_no_path() -> None:
    for one in (Address(SIGNED), TarMember(Address("s3://b/c.tar"), "d.png", 512, 9)):
        again = pickle.loads(pickle.dumps(one))  # noqa: S301  (made here)
        assert again == one
        with pytest.raises(TypeError):
            Path(again)
    assert pickle.loads(pickle.dumps(Address(SIGNED))).url == SIGNED  # noqa: S301


def test_names_start_from_the_folder_that_all_share() -> None:
    assert common_address(["s3://b/x/y", "s3://b/x/z"]) == Address("s3://b/x")
    assert common_address(["s3://b/xy", "s3://b/xz"]) == Address("s3://b")
    assert common_address(["https://one/a", "https://two/a"]) == Address("https://")
    assert names_of(["https://one/a/1.jpg", "https://two/a/1.jpg"], Address("https://"))[0] == [
        "one/a/1.jpg",
        "two/a/1.jpg",
    ]
    with pytest.raises(InputError, match="different kinds of storage"):
        common_address(["s3://b/x", "gs://b/x"])


def test_names_have_no_queries_and_different_images_different_names() -> None:
    root = Address("https://h")
    signed = [f"https://h/a.jpg?X-Amz-Signature={number}" for number in range(2)]
    names, elsewhere = names_of([*signed, "https://h/b.jpg"], root)
    # The same image, signed twice: one name, with an address that is whole.
    assert sorted(set(names)) == ["a.jpg", "b.jpg"]
    assert elsewhere == {"a.jpg": signed[1]}
    names, elsewhere = names_of(["https://h/i?id=1&sig=x", "https://h/i?id=2&sig=x", "https://h/i.png?id=1"], root)
    assert len(set(names)) == 3
    assert all("id" not in name and "?" not in name for name in names)
    assert names_of(["https://h/i?id=1&sig=other", "https://h/i?id=2"], root)[0] == names[:2]
    assert set(elsewhere.values()) == {"https://h/i?id=1&sig=x", "https://h/i?id=2&sig=x", "https://h/i.png?id=1"}


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg", "a//b.jpg", "a/../../b.jpg", "./a.jpg", "a\0b.jpg", "a/"])
def test_a_name_stays_within_its_folder(name: str) -> None:
    safe = safe_name(name)
    assert safe != name
    assert (Path("/out") / safe).resolve().is_relative_to("/out")
    assert {"", ".", ".."}.isdisjoint(safe.split("/"))
    assert "\0" not in safe
    assert names_of([f"s3://b/{name}"], Address("s3://b")) == ([safe], {safe: f"s3://b/{name}"})


def test_braces_stand_for_several() -> None:
    assert list(Braces("s-{098..101}.tar").texts()) == ["s-098.tar", "s-099.tar", "s-100.tar", "s-101.tar"]
    assert list(Braces("{1..2}-{a,b}").texts()) == ["1-a", "1-b", "2-a", "2-b"]
    for text in ("{5..4}", "{0..99999999999999999999}", "{0..9999}{0..9999}"):
        with pytest.raises(InputError, match="check its braces"):
            list(Braces(text).texts())


@pytest.mark.parametrize(
    ("pattern", "matching", "other"),
    [
        ("s3://b/a/*.png", ["s3://b/a/1.png"], ["s3://b/a/c/1.png", "s3://b/a/1.jpg", "s3://b/a/.1.png"]),
        ("s3://b/**/1.png", ["s3://b/1.png", "s3://b/x/y/1.png"], ["s3://b/x/2.png"]),
        ("s3://b/x?/**", ["s3://b/x1/1.png", "s3://b/x1/y/1.png"], ["s3://b/x/1.png"]),
        ("s3://b/[ab].png", ["s3://b/a.png"], ["s3://b/c.png"]),
    ],
)
def test_patterns_match_as_on_disk(pattern: str, matching: list[str], other: list[str]) -> None:
    made = AddressPattern(pattern)
    assert all(map(made.matches, matching))
    assert not any(map(made.matches, other))
