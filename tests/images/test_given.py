"""What a PATH of the command line names: lists in the encodings that shells write, patterns, addresses."""

import codecs
import errno
import io
import logging
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from paths import CASES

from grounded_seg.errors import ImageError, InputError
from grounded_seg.images.find import find_images
from grounded_seg.images.given import PathList, PathPattern, given_from
from grounded_seg.images.read import read_image, read_or_skip
from grounded_seg.records import ImageSkipped

needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"the inputs are not at {CASES}")


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def listed(folder: Path, content: bytes) -> list[str]:
    (folder / "list").write_bytes(content)
    return list(PathList(folder / "list").paths())


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(InputError) as raised:
        listed(folder, content)
    message = str(raised.value)
    assert str(folder / "list") in message
    assert "\n" not in message
    return message


# --- lists ---------------------------------------------------------------------------------------------------------


@needs_cases
@pytest.mark.parametrize("name", ["utf16.txt", "utf8-bom.txt"])
def test_a_list_as_some_shells_write_it_gives_its_two_paths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(Path("one/a.jpg"), Path("two/a.jpg"), Path("three/a.jpg"))
    given = PathList(CASES / "lists" / name)
    assert list(given.paths()) == ["one/a.jpg", "two/a.jpg"]
    found = find_images([given])
    assert (found.root, found.file_names) == (tmp_path, ("one/a.jpg", "two/a.jpg"))


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF8])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, mark: bytes, end: str) -> None:
    encoding = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be", codecs.BOM_UTF8: "utf-8"}[mark]
    paths = ["/a/ü.jpg", "b", "图/片 \U0001f600.png"]
    assert listed(tmp_path, mark + end.join(["", *paths, ""]).encode(encoding)) == paths


def test_letters_at_the_border_of_two_blocks_stay_whole(tmp_path: Path) -> None:
    paths = [f"{number:03}/\U0001f600" * 20 for number in range(2000)]
    assert listed(tmp_path, "\n".join(paths).encode("utf-16")) == paths


def test_a_long_list_in_utf16_takes_little_memory(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("photos/camera-1/0001.jpeg\n" * 200_000, encoding="utf-16")
    tracemalloc.start()
    n_paths = sum(1 for _ in PathList(tmp_path / "list").paths())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert n_paths == 200_000
    assert peak < 2_000_000


def test_utf16_without_its_mark_is_refused_before_the_disk_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: list[str] = []
    monkeypatch.setattr(os, "scandir", lambda folder: searched.append(str(folder)))
    for text in ("one/a.jpg\ntwo/a.jpg\n", "/a\n", "图/片.jpg\n", "/"):
        for encoding in ("utf-16-le", "utf-16-be"):
            (tmp_path / "list").write_bytes(text.encode(encoding))
            with pytest.raises(InputError, match="UTF-16 without a byte order mark"):
                find_images([PathList(tmp_path / "list")])
    assert searched == []


def test_utf32_damaged_utf16_and_stray_zero_bytes_are_refused(tmp_path: Path) -> None:
    assert "UTF-32" in refused(tmp_path, "a.jpg\n".encode("utf-32"))
    assert "damaged UTF-16" in refused(tmp_path, "a.jpg\n".encode("utf-16")[:-1])
    assert "damaged UTF-16" in refused(tmp_path, codecs.BOM_UTF16_LE + b"a\0\0\xd8b\0")
    assert "line 10001 holds a zero byte" in refused(tmp_path, b"0123456789\n" * 10_000 + b"a.jp\0g\n")
    assert "line 1 holds a zero byte" in refused(tmp_path, "a\0b\n".encode("utf-16"))


def test_names_that_end_with_zero_bytes_are_longer_than_one_byte(tmp_path: Path) -> None:
    # `find . -print0` begins with the folder itself.
    assert listed(tmp_path, b".\0./a.jpg\0\0./b\nc.jpg\0") == [".", "./a.jpg", "./b\nc.jpg"]
    assert "write './b'" in refused(tmp_path, b"photos/a.jpg\0b\0photos/c.jpg\0")


def test_bytes_that_are_no_utf8_stay_names_as_the_system_has_them(tmp_path: Path) -> None:
    assert listed(tmp_path, b"caf\xe9.jpg\n") == ["caf\udce9.jpg"]
    assert listed(tmp_path, codecs.BOM_UTF8 + b"caf\xe9.jpg\0b.jpg\0") == ["caf\udce9.jpg", "b.jpg"]


@pytest.mark.parametrize("text", ["@-", "@/dev/stdin"])
def test_the_standard_input_may_be_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    touch(tmp_path / "a.jpg", tmp_path / "b.jpg")
    content = f"{tmp_path / 'a.jpg'}\n{tmp_path / 'b.jpg'}\n".encode("utf-16")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    given = given_from(text)
    assert find_images([given]).file_names == ("a.jpg", "b.jpg")
    assert not sys.stdin.closed


def test_a_list_of_other_addresses_is_refused_with_the_whole_address(tmp_path: Path) -> None:
    (tmp_path / "list").write_text("ftp://example.org//a.jpg\n")
    with pytest.raises(InputError, match=r"'ftp://example.org//a.jpg' is an address that isn't read"):
        find_images([PathList(tmp_path / "list")])


# --- addresses and patterns ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["ftp://example.org/a.jpg", "hdfs://bucket//a.jpg", "sftp://b/*.png", "FTP://x/y"])
def test_another_address_is_refused_in_one_line_that_shows_all_of_it(address: str) -> None:
    with pytest.raises(InputError) as raised:
        given_from(address)
    assert f"'{address}'" in str(raised.value)
    assert "isn't read; give one of s3://" in str(raised.value)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    names = ("1.png", "2.png", "3.jpg", "notes.txt", ".hidden.png", "sub/4.png", "sub/deep/5.png", ".hid/6.png")
    touch(*(Path("photos") / name for name in names))
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("photos/*.png", ["1.png", "2.png"]),
        ("photos/?.*", ["1.png", "2.png", "3.jpg"]),
        ("photos/[12].png", ["1.png", "2.png"]),
        ("photos/**/*.png", ["1.png", "2.png", "sub/4.png", "sub/deep/5.png"]),
        ("photos/**/**/deep/*.png", ["5.png"]),
        ("photos/s*/*.png", ["4.png"]),
        ("*/.hidden.*", [".hidden.png"]),
        ("photos/.*.png", [".hidden.png"]),
        ("photos/*", ["1.png", "2.png", "3.jpg", "sub/4.png", "sub/deep/5.png"]),
        ("phot*", ["1.png", "2.png", "3.jpg", ".hid/6.png", ".hidden.png", "sub/4.png", "sub/deep/5.png"]),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_pattern_in_quotes_names_what_it_matches(
    photos: Path, pattern: str, names: list[str], absolute: bool
) -> None:
    given = given_from(f"{photos.parent}/{pattern}" if absolute else pattern)
    assert isinstance(given, PathPattern)
    assert find_images([given]).file_names == tuple(sorted(names))


def test_a_file_of_that_very_name_is_no_pattern(photos: Path) -> None:
    touch(photos / "a[1].png")
    assert given_from("photos/a[1].png") == Path("photos/a[1].png")
    assert given_from("photos/b[1].png") == PathPattern("photos/b[1].png")


def test_a_pattern_without_a_match_or_without_an_image_is_an_error(photos: Path) -> None:
    with pytest.raises(InputError, match=r"no file or folder matches 'photos/\*\.tif'"):
        find_images([given_from("photos/*.tif")])
    with pytest.raises(InputError, match=r"no images in 'photos/\*\.txt'; looked for files ending in"):
        find_images([given_from("photos/*.txt")])


def test_a_pattern_follows_no_circle_of_links(photos: Path) -> None:
    (photos / "sub" / "back").symlink_to(photos, target_is_directory=True)
    (photos / "itself").symlink_to(photos / "itself")
    assert len(find_images([given_from("photos/**/*.png")]).file_names) == 4


@pytest.mark.parametrize("pattern", ["p/**/*", "p/**", "p/**/q*/*", "p/**/*.png"])
def test_a_link_to_a_parent_is_no_second_way_to_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.chdir(tmp_path)
    touch(Path("p/q/a.png"))
    Path("p/q/up").symlink_to("..", target_is_directory=True)
    found = find_images([given_from(pattern)])
    assert [found.path(name).absolute() for name in found.file_names] == [Path("p/q/a.png").absolute()]


def test_a_link_to_a_folder_matches_before_two_stars_and_where_it_is_named(photos: Path) -> None:
    (photos.parent / "linked").symlink_to(photos / "sub", target_is_directory=True)
    assert find_images([given_from("l*/*.png")]).file_names == ("4.png",)
    assert find_images([given_from("l*/**/*.png")]).file_names == ("4.png", "deep/5.png")
    assert find_images([given_from("**/linked/*.png")]).file_names == ("4.png",)


@pytest.mark.parametrize("pattern", ["photos/**/*.png", "photos/*", "photos/s*/*.png", "photos/sub*"])
@pytest.mark.parametrize("absolute", [False, True])
def test_a_folder_that_cannot_be_listed_does_not_end_a_pattern(
    photos: Path, monkeypatch: pytest.MonkeyPatch, pattern: str, absolute: bool
) -> None:
    touch(photos / "subtle" / "7.png")
    real = os.scandir

    def scandir(folder: str) -> object:
        if str(folder).endswith("subtle"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    found = find_images([given_from(f"{photos.parent}/{pattern}" if absolute else pattern)])
    assert found.path("subtle").name in found.file_names
    assert any(name.endswith("4.png") for name in found.file_names)
    skipped = read_or_skip(found.path("subtle"))
    assert isinstance(skipped, ImageSkipped)
    assert "can't be listed (Permission denied)" in skipped.reason
    # Where nothing else matches, and where it is named, too.
    assert find_images([given_from("photos/subt*")]).file_names == ("subtle",)
    with pytest.raises(InputError, match=r"'photos/subtle/?' can't be listed \(Permission denied\)"):
        find_images([given_from("photos/subtle/*.png")])


def test_a_pattern_that_no_path_can_match_matches_nothing(photos: Path) -> None:
    with pytest.raises(InputError, match="no file or folder matches"):
        find_images([given_from("photos\0/*.png")])


def test_the_pictures_of_a_run_match_only_where_the_pattern_names_them(
    photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(photos / "out" / "overlays" / "1.png", photos / "out" / "overlays" / "2.png")
    (photos / "out" / "run.json").write_text('{"prompts": {}, "paths": [], "images": {}}')
    with caplog.at_level(logging.INFO):
        assert find_images([given_from("photos/o*/**/*.png"), Path("photos/1.png")]).file_names == ("1.png",)
    assert "left out 1 folders with the pictures of earlier runs, such as 'photos/out/overlays'" in caplog.text
    assert find_images([given_from("photos/out/overlays/*.png")]).file_names == ("1.png", "2.png")


def test_an_empty_list_is_called_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match=r"^the standard input is empty; give one path a line$"):
        find_images([given_from("@-")])


@pytest.mark.parametrize(
    ("written", "advice"),
    [
        ('"{0}"', "take the quotes off"),
        ("'{0}'", "take the quotes off"),
        ("{0} ", "take the blank at its end off"),
        ("{0}x", "check the path"),
        ('"', "check the path"),
    ],
)
def test_quotes_and_blanks_around_a_path_are_named(tmp_path: Path, written: str, advice: str) -> None:
    touch(tmp_path / "photos" / "a.jpg", tmp_path / "b.jpg")
    text = written.format(tmp_path / "photos" / "a.jpg")
    with pytest.raises(InputError, match=f"; {advice}$"):
        find_images([Path(text)])
    # In a list it is skipped, with the reason that it has as an image; alone in the list, and beside others.
    for others in ("", f"{tmp_path / 'b.jpg'}\n"):
        (tmp_path / "list").write_text(f"{others}{text}\n")
        found = find_images([PathList(tmp_path / "list")])
        [skipped] = [one for name in found.file_names if not (one := found.path(name)).exists()]
        with pytest.raises(ImageError, match=f"; {advice}$"):
            read_image(skipped)
