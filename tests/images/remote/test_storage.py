"""Images in storage elsewhere: found, read within bounds, and what its faults become."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import fsspec.registry
import pytest
from buckets import Bucket, Web, picture, s3_environment

from grounded_seg.errors import ImageAccessError, ImageError, InputError, UsageError
from grounded_seg.images import contents
from grounded_seg.images.find import find_images
from grounded_seg.images.given import given_from
from grounded_seg.images.in_memory import image_from
from grounded_seg.images.read import read_image, read_or_skip
from grounded_seg.images.remote import storage
from grounded_seg.records import Address, Image, ImageSkipped

REFUSED = b"<Error><Code>InvalidAccessKeyId</Code><Message>no such key</Message></Error>"
DENIED = b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "PAUSES_S", (0.0, 0.0))


@pytest.fixture
def photos(bucket: Bucket) -> Bucket:
    for key in ("set/b.png", "set/a.PNG", "set/sub/c.png", "set/note.txt", "set/sub/", "set2/d.png", "e.png"):
        bucket.put(key, picture(red=(2, 3, 12, 9)))
    return bucket


def names(*texts: str, recursive: bool = True) -> tuple[str, ...]:
    return find_images([given_from(text) for text in texts], recursive).file_names


def test_a_folder_of_a_bucket_is_listed_as_one_on_disk(photos: Bucket) -> None:
    for text in (f"{photos.url}/set", f"{photos.url}/set/"):
        found = find_images([given_from(text)])
        assert (str(found.root), found.file_names) == (f"{photos.url}/set", ("a.PNG", "b.png", "sub/c.png"))
        assert found.location(2) == Address(f"{photos.url}/set/sub/c.png")
    assert names(f"{photos.url}/set", recursive=False) == ("a.PNG", "b.png")
    assert names(photos.url) == ("e.png", "set/a.PNG", "set/b.png", "set/sub/c.png", "set2/d.png")
    assert names(f"{photos.url}/set", f"{photos.url}/set2") == ("set/a.PNG", "set/b.png", "set/sub/c.png", "set2/d.png")
    assert names(f"{photos.url}/*/*.png") == ("set/b.png", "set2/d.png")
    assert names(f"{photos.url}/set/b.png") == ("b.png",)
    image = read_image(find_images([given_from(f"{photos.url}/set")]).location(0))
    assert (image.size.width, str(image.path)) == (40, f"{photos.url}/set/a.PNG")


def test_a_listing_has_many_pages(bucket: Bucket) -> None:
    wanted = [f"{number:04}.png" for number in range(1, 2050)]
    for name in reversed(wanted):
        bucket.put(f"all/{name}")
    assert names(f"{bucket.url}/all") == tuple(wanted)


def test_pictures_of_an_uploaded_run_are_left_out_unless_named(bucket: Bucket) -> None:
    for key in ("p/a.png", "p/out/results.jsonl", "p/out/overlays/a.png.jpg", "p/masks/b.png"):
        bucket.put(key)
    assert names(f"{bucket.url}/p") == ("a.png", "masks/b.png")
    assert names(f"{bucket.url}/p/out/overlays") == ("a.png.jpg",)


@pytest.mark.parametrize("key", ["a::b.png", "ö #1%20?.png", "a+b=c&d.png", "s3:/x.png", "../up.png", "a//b.png"])
def test_odd_keys_are_read_as_they_are(bucket: Bucket, key: str) -> None:
    bucket.put(f"odd/{key}", picture())
    found = find_images([given_from(f"{bucket.url}/odd/")])
    assert isinstance(read_or_skip(found.location(0)), Image)
    assert str(found.location(0)) == f"{bucket.url}/odd/{key}"


def test_nothing_falls_back_to_files_of_this_disk(
    photos: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    gone = f"{photos.name}/set/gone.png"
    for place in (gone, f"s3:/{gone}", f"memory:/{gone}"):
        path = tmp_path / place
        path.parent.mkdir(parents=True)
        path.write_bytes(picture())
    # Where the address is a path as well, both its slashes taken for one.
    assert Path(f"s3://{gone}").exists()
    with pytest.raises(InputError, match="nothing is at 's3://"):
        names(f"s3://{gone}")
    with pytest.raises(InputError, match="nothing is at 'memory://"):
        names(f"memory://{gone}")
    Path("list").write_text(f"s3://{gone}\n{photos.url}/set/b.png\n")
    found = find_images([given_from("@list")])
    skipped, read = (read_or_skip(found.location(index)) for index in (1, 0))
    assert isinstance(read, Image)
    assert isinstance(skipped, ImageSkipped)
    assert (skipped.error, f"'s3://{gone}'" in skipped.reason) == ("ImageError", True)
    with pytest.raises(InputError, match="give an address as text"):
        find_images([Path(f"s3://{photos.name}/gone")])


def test_memory_is_read_too() -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem().pipe_file("/grounded/a/1.png", picture())
    found = find_images([given_from("memory://grounded")])
    assert (str(found.root), found.file_names) == ("memory://grounded", ("a/1.png",))
    assert read_image(found.location(0)).width == 40
    with pytest.raises(InputError, match="nothing is at"):
        names("memory://nothing")


def test_the_web_is_read_by_single_addresses(web: Web, tmp_path: Path) -> None:
    web.pages = {"/a/1.png": picture(41), "/a/2": picture(42)}
    signed = f"{web.url}/a/1.png?X-Amz-Signature=a%2Fb%2Bc"
    found = find_images([given_from(signed)])
    assert (str(found.root), found.file_names, found.location(0)) == (f"{web.url}/a", ("1.png",), Address(signed))
    assert read_image(found.location(0)).width == 41
    # A signature is of these very letters.
    assert web.asked == ["/a/1.png?X-Amz-Signature=a%2Fb%2Bc"]
    (tmp_path / "list").write_text(f"{signed}\n{web.url}/a/2\n{web.url}/a/gone.png?token=secret\n")
    found = find_images([given_from(f"@{tmp_path / 'list'}")])
    assert found.file_names == ("1.png", "2", "gone.png")
    outcomes = [read_or_skip(found.location(index)) for index in range(3)]
    assert [one.width for one in outcomes if isinstance(one, Image)] == [41, 42]
    assert isinstance(outcomes[2], ImageSkipped)
    assert "secret" not in outcomes[2].reason + repr(outcomes[2])
    assert image_from(f"{web.url}/a/2").width == 42


@pytest.mark.parametrize("status", [401, 403])
def test_a_forbidden_address_of_the_web_is_skipped(web: Web, status: int) -> None:
    web.statuses = [status]
    skipped = read_or_skip(Address(f"{web.url}/a.png"))
    assert isinstance(skipped, ImageSkipped)
    assert (skipped.error, f"HTTP {status}" in skipped.reason) == ("ImageAccessError", True)


def test_a_fault_that_passes_is_asked_again(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    web.pages = {"/1.png": picture()}
    web.statuses = [503, 429]
    with caplog.at_level(logging.INFO):
        assert read_image(Address(f"{web.url}/1.png?key=secret")).width == 40
    assert len(web.asked) == 3
    assert "secret" not in caplog.text
    web.statuses = [503] * 3
    with pytest.raises(ImageAccessError, match="can't be read now"):
        read_image(Address(f"{web.url}/1.png"))
    with pytest.raises(ImageAccessError, match="can't be read now"):
        read_image(Address("http://127.0.0.1:9/1.png"))
    web.statuses = [400]
    before = len(web.asked)
    with pytest.raises(ImageError) as raised:
        read_image(Address(f"{web.url}/1.png"))
    assert (type(raised.value), len(web.asked)) == (ImageError, before + 1)


def test_bytes_are_bounded(photos: Bucket, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    web.pages = {"/large.png": bytes(200_000)}
    large = photos.put("large.png", bytes(200_000))
    empty = photos.put("empty.png")
    monkeypatch.setattr(contents, "_METADATA_BYTES", 1000)
    for url in (large, f"{web.url}/large.png"):
        with pytest.raises(ImageError, match=r"is too large: more than 1400 bytes, .* raise --max-pixels"):
            read_image(Address(url), max_pixels=100)
    with pytest.raises(ImageError, match="is empty"):
        read_image(Address(empty))


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("body", [REFUSED, DENIED], ids=["refused", "denied"])
def test_wrong_credentials_end_the_work_before_it_begins(
    web: Web, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, new_connections: None, body: bytes, listed: bool
) -> None:
    pytest.importorskip("s3fs")
    s3_environment(monkeypatch, web.url)
    web.statuses, web.error_body = [403] * 20, body
    (tmp_path / "list").write_text("s3://private/a.png\ns3://private/b.png\n")
    with pytest.raises(InputError) as raised:
        names(f"@{tmp_path / 'list'}" if listed else "s3://private/photos/")
    assert raised.value.exit_code == 3
    assert not isinstance(raised.value, ImageError)
    assert "credentials" in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "s3://private/" in str(raised.value)


def test_credentials_that_expire_end_the_work_and_a_forbidden_key_is_skipped(
    web: Web, monkeypatch: pytest.MonkeyPatch, new_connections: None
) -> None:
    pytest.importorskip("s3fs")
    s3_environment(monkeypatch, web.url)
    web.statuses, web.error_body = [403], DENIED
    skipped = read_or_skip(Address("s3://private/a.png"))
    assert isinstance(skipped, ImageSkipped)
    assert skipped.error == "ImageAccessError"
    web.statuses, web.error_body = [400], b"<Error><Code>ExpiredToken</Code><Message>expired</Message></Error>"
    with pytest.raises(InputError, match=r"refused or missing \(ExpiredToken") as raised:
        read_or_skip(Address("s3://private/a.png"))
    assert not isinstance(raised.value, ImageError)


def test_a_missing_bucket_is_one_line(photos: Bucket, tmp_path: Path) -> None:
    (tmp_path / "list").write_text("s3://no-such-bucket/a.png\n")
    for text in ("s3://no-such-bucket/", "s3://no-such-bucket/a.png", f"@{tmp_path / 'list'}"):
        with pytest.raises(InputError, match="there is no such bucket") as raised:
            names(text)
        assert not isinstance(raised.value, ImageError)
    with pytest.raises(InputError, match="no such bucket"):
        read_or_skip(Address("s3://no-such-bucket/a.png"))


@pytest.mark.parametrize(
    ("texts", "says"),
    [
        (["{url}/nothing"], "nothing is at"),
        (["{url}/empty/"], "no images in"),
        (["{url}/*.gif"], "no object matches"),
        (["s3://*/a.png"], "a bucket's name can't be a pattern"),
        (["{url}/set", "photo.png"], "some images are on this disk, as 'photo.png'"),
        (["{url}/set", "memory://grounded-photos"], "different kinds of storage"),
    ],
)
def test_what_cannot_be_listed_is_one_line(
    photos: Bucket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, texts: list[str], says: str
) -> None:
    from fsspec.implementations.memory import MemoryFileSystem

    monkeypatch.chdir(tmp_path)
    Path("photo.png").write_bytes(picture())
    MemoryFileSystem().pipe_file("/grounded-photos/1.png", picture())
    with pytest.raises(InputError, match=says):
        names(*(text.format(url=photos.url) for text in texts))


@pytest.mark.parametrize(("text", "package"), [("s3://b/a/", "s3fs"), ("gs://b/a/", "gcsfs"), ("az://b/a/", "adlfs")])
def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, new_connections: None, text: str, package: str
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("s3", "gs", "abfs"):
        monkeypatch.delitem(fsspec.registry._registry, protocol, raising=False)
    with pytest.raises(UsageError, match=rf"needs a package .*{package}.*; install grounded-seg\[cloud\]"):
        names(text)


@pytest.mark.parametrize(
    "made", [lambda: b"a.png\nb.png\n", lambda: "a.png\r\nb.png".encode("utf-16")], ids=["utf-8", "utf-16"]
)
def test_a_list_may_be_elsewhere_too(photos: Bucket, made: Callable[[], bytes]) -> None:
    text = made()
    encoding = "utf-16" if text.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
    lines = [f"{photos.url}/set/{line}" for line in text.decode(encoding).split()]
    photos.put("list.txt", "\n".join(lines).encode(encoding))
    assert names(f"@{photos.url}/list.txt") == ("a.png", "b.png")
