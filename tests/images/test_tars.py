"""Images in tars: named, grouped and read where they stand, whatever else a tar holds."""

import gzip
import io
import random
import tarfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from buckets import Bucket, Web, picture

from grounded_seg.errors import GroundedSegError, ImageError, InputError
from grounded_seg.images import tars
from grounded_seg.images.find import find_images
from grounded_seg.images.found import FoundImages
from grounded_seg.images.given import given_from
from grounded_seg.images.read import read_image, read_or_skip
from grounded_seg.images.remote import storage
from grounded_seg.records import Address, ImageSkipped, TarMember


def tar_of(members: Iterable[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=form) as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return content.getvalue()


def numbered(n_images: int, width: int = 40) -> bytes:
    """A tar of images that grow by a pixel, each with a text, as webdataset has them."""
    pairs = [(f"{at:03}.png", picture(width + at)) for at in range(n_images)]
    return tar_of(member for name, data in pairs for member in ((name, data), (f"{name[:-3]}txt", b"a text")))


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, n_images in enumerate((3, 2, 4)):
        (tmp_path / f"s-{number:03}.tar").write_bytes(numbered(n_images, 40 + 10 * number))
    return tmp_path


def found(*texts: str) -> FoundImages:
    return find_images([given_from(text) for text in texts])


def widths(images: FoundImages) -> list[int]:
    return [read_image(images.location(index)).width for index in range(len(images.file_names))]


@pytest.mark.parametrize("text", ["s-{000..002}.tar", "s-*.tar", "s-00{0,1,2}.tar"])
def test_each_tar_is_a_group_of_its_own(shards: Path, text: str) -> None:
    images = found(text)
    assert images.file_names[:4] == ("s-000.tar/000.png", "s-000.tar/001.png", "s-000.tar/002.png", "s-001.tar/000.png")
    assert images.group_starts == (0, 3, 5)
    assert widths(images) == [40, 41, 42, 50, 51, 60, 61, 62, 63]
    assert str(images.location(3)) == "s-001.tar/000.png"


def test_images_between_tars_are_groups_too(shards: Path) -> None:
    for name in ("a.png", "s-000.tarred.png", "z.png"):
        (shards / name).write_bytes(picture(7))
    images = found("s-000.tar", "s-001.tar", "*.png")
    assert images.file_names[0] == "a.png"
    assert images.file_names[4] == "s-000.tarred.png"
    assert images.group_starts == (0, 1, 4, 5, 7)
    assert widths(images) == [7, 40, 41, 42, 7, 50, 51, 7]
    kept = images.only([name for name in images.file_names if not name.startswith(("s-000.tar/", "z"))])
    assert (kept.group_starts, widths(kept)) == ((0, 1, 2), [7, 7, 50, 51])


def test_a_folder_beside_a_tar_keeps_its_images_and_tars_are_named_themselves(shards: Path) -> None:
    (shards / "a.png").write_bytes(picture())
    (shards / "z.tar.gz").write_bytes(b"")
    assert found(".").file_names == found("*").file_names == ("a.png",)
    (shards / "a.png").unlink()
    with pytest.raises(InputError, match=r"tars are named themselves, as in 'FOLDER/\*\.tar'"):
        found(".")


def test_a_tar_of_a_bucket_is_read_by_ranges(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(2):
        bucket.put(f"t/s-{number:03}.tar", numbered(3, 40 + 10 * number))
    images = found(f"{bucket.url}/t/s-{{000..001}}.tar")
    assert (str(images.root), images.group_starts) == (f"{bucket.url}/t", (0, 3))
    asked: list[int] = []
    read_range = storage.read_range

    def counted(address: Address, start: int, n_bytes: int) -> bytes:
        asked.append(n_bytes)
        return read_range(address, start, n_bytes)

    monkeypatch.setattr(storage, "read_range", counted)
    assert widths(images) == [40, 41, 42, 50, 51, 52]
    # Each image alone, and nothing else of its tar.
    members = [images.location(index) for index in range(6)]
    assert asked == [one.n_bytes for one in members if isinstance(one, TarMember)]
    assert found(f"{bucket.url}/t/*.tar").file_names == images.file_names


def test_a_tar_of_the_web_needs_a_server_that_sends_parts(web: Web) -> None:
    web.pages = {"/s.tar": numbered(3)}
    images = found(f"{web.url}/s.tar?sig=secret")
    assert images.file_names == ("s.tar/000.png", "s.tar/001.png", "s.tar/002.png")
    assert widths(images) == [40, 41, 42]
    assert "secret" not in str(images.location(0))
    web.knows_ranges = False
    skipped = read_or_skip(images.location(1))
    assert isinstance(skipped, ImageSkipped)
    assert "can't send a part" in skipped.reason


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_names_within_a_tar_stay_within_it(tmp_path: Path, form: int) -> None:
    deep = "/".join(["folder" * 5] * 4)
    members = ["../up.png", "/etc/abs.png", "./d/here.png", "ü.png", f"{deep}/long.png", "x/../../y.png"]
    (tmp_path / "t.tar").write_bytes(tar_of(((name, picture()) for name in members), form))
    images = found(str(tmp_path / "t.tar"))
    assert set(images.file_names) == {
        "t.tar/%2E%2E/up.png", "t.tar/etc/abs.png", "t.tar/d/here.png", "t.tar/ü.png", f"t.tar/{deep}/long.png",
        "t.tar/x/%2E%2E/%2E%2E/y.png",
    }  # fmt: skip
    assert widths(images) == [40] * len(members)


def test_links_devices_and_folders_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "t.tar", "w") as tar:
        kinds = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE)
        for number, kind in enumerate(kinds):
            info = tarfile.TarInfo(f"{number}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("real.png")
        info.size = len(picture())
        tar.addfile(info, io.BytesIO(picture()))
    assert found(str(tmp_path / "t.tar")).file_names == ("t.tar/real.png",)


def test_of_two_members_of_one_name_the_later_one_counts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.tar").write_bytes(tar_of([("a.png", picture(41)), ("b.png", picture(42)), ("a.png", picture(43))]))
    images = found(str(tmp_path / "t.tar"))
    assert (images.file_names, widths(images)) == (("t.tar/a.png", "t.tar/b.png"), [43, 42])
    assert "1 images of tars have the name of a later one" in caplog.text


@pytest.mark.parametrize("n_bytes", [1024 + 20, 1024 + 512 + 40])
def test_a_tar_that_is_cut_off_gives_what_is_whole_and_stands_for_the_rest(tmp_path: Path, n_bytes: int) -> None:
    whole = tar_of([("a.png", picture()), ("b.png", picture(300))])
    assert len(picture()) < 512
    (tmp_path / "t.tar").write_bytes(whole[:n_bytes])
    images = found(str(tmp_path / "t.tar"))
    assert (images.file_names, images.group_starts) == (("t.tar", "t.tar/a.png"), (0, 1))
    skipped = read_or_skip(images.location(0))
    assert isinstance(skipped, ImageSkipped)
    assert "is damaged or cut off" in skipped.reason
    assert "behind the first 1 are lost" in skipped.reason
    assert read_image(images.location(1)).width == 40


def test_a_tar_that_shrank_since_it_was_listed_is_told(shards: Path) -> None:
    images = found("s-000.tar")
    whole = (shards / "s-000.tar").read_bytes()
    (shards / "s-000.tar").write_bytes(whole[:520])
    with pytest.raises(ImageError, match="cut off: its tar has changed"):
        read_image(images.location(0))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("t.tar.gz", b"", "is compressed, so no image in it has a position"),
        ("t.tgz", b"", "is compressed, so"),
        ("t.tar", gzip.compress(tar_of([("a.png", b"1")])), "compressed by gzip"),
        ("t.tar", b"no tar at all" * 100, "is damaged or cut off (invalid header), no image"),
        ("t.tar", b"", "is damaged or cut off (empty file)"),
        ("t.tar", tar_of([("a.txt", b"1")]), "no images in"),
    ],
    ids=lambda value: "" if isinstance(value, bytes) else value,
)
def test_what_is_no_tar_of_images_is_one_line(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as raised:
        found(str(tmp_path / name))
    assert says in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_bad_tar_among_good_ones_is_skipped_with_its_reason(shards: Path) -> None:
    (shards / "s-001.tar").write_bytes(b"junk" * 500)
    (shards / "list").write_text("s-000.tar\ns-001.tar\ngone.tar\n")
    images = found("@list")
    assert images.file_names[:2] == ("gone.tar", "s-000.tar/000.png")
    reasons = [one.reason for at in range(5) if isinstance(one := read_or_skip(images.location(at)), ImageSkipped)]
    assert ["No such file" in one or "invalid header" in one for one in reasons] == [True, True]


def test_a_header_that_claims_much_takes_no_memory(tmp_path: Path) -> None:
    content = bytearray(tar_of([("a" * 200 + ".png", picture())]))
    assert content[156:157] == b"x"
    with (tmp_path / "t.tar").open("wb") as file:
        # The extended header claims 4 GB, and the file is as large, though empty.
        content[124:136] = b"%011o\0" % (4 << 30)
        content[148:156] = b" " * 8
        content[148:156] = b"%06o\0 " % sum(content[:512])
        file.write(content)
        file.truncate(5 << 30)
    with pytest.raises(InputError, match="a header of 4294967296 bytes"):
        found(str(tmp_path / "t.tar"))


def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path) -> None:
    chance = random.Random(0)  # noqa: S311  (reproducible is the point)
    whole = tar_of([(f"{name * 60}.png", picture()) for name in "abc"], tarfile.GNU_FORMAT)
    n_damaged = 0
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path = tmp_path / "t.tar"
        path.write_bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
        try:
            listed = tars.images_of_tar(path)
        except GroundedSegError:
            continue
        n_damaged += listed.damage is not None
        assert all(0 <= at <= len(whole) for at in listed.offsets)
    assert n_damaged > 50
