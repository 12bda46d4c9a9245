"""Images: what each kind of file becomes, and what is said of files that can't be read."""

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import TiffImagePlugin

from grounded_seg.errors import ImageError
from grounded_seg.images.formats import only_own_limit
from grounded_seg.images.read import read_image, upright_size
from grounded_seg.records import ImageSize

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
# Six colours, none twice, so that every turn and flip of it is another picture.
PATTERN = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (255, 255, 0)]], dtype=np.uint8)
# How each format keeps its colours best.
FAITHFUL: dict[str, dict[str, Any]] = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95, "subsampling": 0}}
# An EXIF block that holds one thing, orientation 6.
TURNED = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"


def bytes_of(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


# --- reading -------------------------------------------------------------------------------------------------------


def read_bytes(folder: Path, content: bytes) -> npt.NDArray[np.uint8]:
    # The name says nothing, so that the content alone decides.
    path = folder / "content"
    path.write_bytes(content)
    return read_image(path).pixels


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF", "JPEG"])
def test_every_format_is_read(tmp_path: Path, kind: str) -> None:
    big = PATTERN.repeat(16, axis=0).repeat(16, axis=1)
    pixels = read_bytes(tmp_path, bytes_of(PIL.Image.fromarray(big), kind, **FAITHFUL.get(kind, {})))
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.flags.owndata or pixels.base is not None
    assert np.abs(pixels.astype(int) - big).max() <= (12 if kind == "JPEG" else 0)


def test_the_record_says_where_and_how_large(tmp_path: Path) -> None:
    PIL.Image.fromarray(PATTERN).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.path == tmp_path / "a.png"
    assert image.size == ImageSize(width=3, height=2)


# What a viewer does with each orientation, written down by hand: where the stored rows and columns go.
TURNS: dict[int, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[::-1],
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    image = PIL.Image.fromarray(PATTERN.repeat(8, axis=0).repeat(8, axis=1))
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    pixels = read_bytes(tmp_path, bytes_of(image, kind, exif=exif, **FAITHFUL.get(kind, {})))
    expected = TURNS[orientation](PATTERN)
    centres = pixels[4::8, 4::8].astype(int)
    assert centres.shape == expected.shape
    assert np.abs(centres - expected).max() <= 30
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_the_size_without_decoding_is_that_of_the_decoded_image(tmp_path: Path, kind: str, orientation: int) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "content"
    path.write_bytes(bytes_of(PIL.Image.new("RGB", (40, 20)), kind, exif=exif))
    assert upright_size(path) == read_image(path).size
    assert upright_size(path) == (ImageSize(20, 40) if orientation in (6, 8) else ImageSize(40, 20))


@pytest.mark.parametrize(
    "block", [b"Exif\0\0garbage", b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abcd", b"Exif\0\0"]
)
def test_a_damaged_exif_block_costs_the_rotation_not_the_image(tmp_path: Path, block: bytes) -> None:
    pixels = read_bytes(tmp_path, bytes_of(PIL.Image.new("RGB", (9, 5), RED), "JPEG", exif=block))
    assert pixels.shape == (5, 9, 3)


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(np.array([[0, 100, 255]], dtype=np.uint8))
    assert read_bytes(tmp_path, bytes_of(grey, "PNG")).tolist() == [[[0] * 3, [100] * 3, [255] * 3]]
    assert read_bytes(tmp_path, bytes_of(grey.convert("1", dither=PIL.Image.Dither.NONE), "PNG")).tolist() == [
        [[0] * 3, [0] * 3, [255] * 3]
    ]


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_its_tones(tmp_path: Path, kind: str) -> None:
    levels = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    pixels = read_bytes(tmp_path, bytes_of(PIL.Image.fromarray(levels), kind))
    assert pixels[0, :, 0].tolist() == [0, 1, 100, 255]
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_sixteen_bit_big_endian(tmp_path: Path) -> None:
    image = PIL.Image.frombytes("I;16B", (2, 1), struct.pack(">HH", 25700, 65535))
    assert read_bytes(tmp_path, bytes_of(image, "TIFF"))[0, :, 0].tolist() == [100, 255]


@pytest.mark.parametrize(
    ("levels", "grey"),
    [
        (np.array([[0, 25700, 65535]], dtype=np.int32), [0, 100, 255]),
        (np.array([[-100, -60, 100]], dtype=np.int32), [0, 51, 255]),
        (np.array([[0, 200_000, 1_000_000]], dtype=np.int32), [0, 51, 255]),
        (np.array([[0.0, 0.2, 1.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[10.0, 30.0, 110.0]], dtype=np.float32), [0, 51, 255]),
        (np.array([[300.0, np.nan, 500.0, np.inf]], dtype=np.float32), [0, 0, 255, 0]),
        (np.array([[7.0, 7.0]], dtype=np.float32), [0, 0]),
        (np.array([[np.nan, np.nan]], dtype=np.float32), [0, 0]),
    ],
)
def test_whole_and_real_numbers_become_tones(tmp_path: Path, levels: npt.NDArray[np.generic], grey: list[int]) -> None:
    assert read_bytes(tmp_path, bytes_of(PIL.Image.fromarray(levels), "TIFF"))[0, :, 0].tolist() == grey


def test_sixteen_bit_rgb_keeps_its_high_bytes(tmp_path: Path) -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header, row = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0), b"\0" + struct.pack(">HHH", 65535, 0x8000, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row)) + chunk(b"IEND", b"")
    assert read_bytes(tmp_path, png).tolist() == [[[255, 128, 0]]]


def test_transparent_parts_become_white(tmp_path: Path) -> None:
    rgba = np.array([[(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 128)]], dtype=np.uint8)
    assert read_bytes(tmp_path, bytes_of(PIL.Image.fromarray(rgba), "PNG")).tolist() == [[[*RED], [*WHITE], [127] * 3]]
    grey_alpha = PIL.Image.fromarray(np.array([[(50, 255), (50, 0)]], dtype=np.uint8), mode="LA")
    assert read_bytes(tmp_path, bytes_of(grey_alpha, "PNG")).tolist() == [[[50] * 3, [*WHITE]]]


def palette_image() -> PIL.Image.Image:
    image = PIL.Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), mode="L").convert("P")
    image.putpalette([*RED, *GREEN, *BLUE])
    return image


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_and_without_transparency(tmp_path: Path, kind: str) -> None:
    assert read_bytes(tmp_path, bytes_of(palette_image(), kind)).tolist() == [[[*RED], [*GREEN], [*BLUE]]]
    transparent = bytes_of(palette_image(), kind, transparency=1)
    assert read_bytes(tmp_path, transparent).tolist() == [[[*RED], [*WHITE], [*BLUE]]]


def test_palette_with_half_transparent_entries(tmp_path: Path) -> None:
    png = bytes_of(palette_image(), "PNG", transparency=bytes([255, 128, 0]))
    assert read_bytes(tmp_path, png).tolist() == [[[*RED], [127, 255, 127], [*WHITE]]]


def test_a_named_transparent_colour(tmp_path: Path) -> None:
    rgb = PIL.Image.fromarray(PATTERN)
    pixels = read_bytes(tmp_path, bytes_of(rgb, "PNG", transparency=RED))
    assert pixels[0].tolist() == [[*WHITE], [*GREEN], [*BLUE]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(tmp_path: Path, kind: str) -> None:
    ink = PIL.Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(read_bytes(tmp_path, bytes_of(ink, kind)).astype(int) - RED).max() <= 3


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_the_first_frame_is_taken(tmp_path: Path, kind: str) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED, BLUE)]
    pixels = read_bytes(
        tmp_path, bytes_of(frames[0], kind, save_all=True, append_images=frames[1:], **FAITHFUL.get(kind, {}))
    )
    assert np.abs(pixels.astype(int) - GREEN).max() == 0


def test_a_phone_photo_with_several_pictures_gives_the_first(tmp_path: Path) -> None:
    frames = [PIL.Image.new("RGB", (8, 8), colour) for colour in (GREEN, RED)]
    pixels = read_bytes(tmp_path, bytes_of(frames[0], "MPO", save_all=True, append_images=frames[1:]))
    assert np.abs(pixels.astype(int) - GREEN).max() <= 3


def test_reading_leaves_the_array_free_to_change(tmp_path: Path) -> None:
    pixels = read_bytes(tmp_path, bytes_of(PIL.Image.new("L", (4, 4)), "PNG"))
    pixels[0, 0] = 7
    assert pixels[0, 1].tolist() == [0, 0, 0]


# --- what can't be read --------------------------------------------------------------------------------------------


def noise(kind: str, **options: Any) -> bytes:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    return bytes_of(image, kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
def test_a_truncated_file_is_an_error(tmp_path: Path, kind: str) -> None:
    whole = noise(kind)
    with pytest.raises(ImageError, match=r"damaged|no image"):
        read_bytes(tmp_path, whole[: len(whole) // 2])


def message_of(path: Path, **options: int) -> str:
    with pytest.raises(ImageError) as raised:
        read_image(path, **options)
    message = str(raised.value)
    assert repr(str(path)) in message
    assert "\n" not in message
    assert ";" in message, "what to do next is missing"
    return message


def test_each_kind_of_unreadable_file_has_its_own_reason(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("Dear diary")
    (tmp_path / "cut.jpg").write_bytes(noise("JPEG")[:2000])
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    os.mkfifo(tmp_path / "pipe.png")
    reasons = {
        "empty.png": "empty (0 bytes)",
        "text.jpg": "no image in a known format",
        "cut.jpg": "damaged (image file is truncated",
        "link.png": "a link to a file that isn't there",
        "loop.png": "can't be reached",
        "pipe.png": "a pipe or a device",
        "missing.png": "no file is at",
        "": "is a folder",
    }
    for name, reason in reasons.items():
        assert reason in message_of(tmp_path / name)


def test_a_line_break_in_a_name_stays_one_line(tmp_path: Path) -> None:
    message_of(tmp_path / "a\nb.png")


def test_a_file_without_read_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(noise("PNG"))

    # Not by chmod: root reads everything.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(PIL.Image, "open", refuse)
    assert "permissions" in message_of(path)


def test_a_postscript_file_is_not_handed_to_an_interpreter(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(bytes_of(PIL.Image.new("RGB", (4, 4)), "EPS"))
    assert "no image in a known format" in message_of(tmp_path / "a.jpg")


def test_too_large_is_refused_before_decoding(tmp_path: Path) -> None:
    # Cut after the header: decoding would complain of truncation instead.
    (tmp_path / "a.png").write_bytes(noise("PNG")[:60])
    assert "64 x 64 px, the limit is 4095 pixels" in message_of(tmp_path / "a.png", max_pixels=4095)
    assert "damaged" in message_of(tmp_path / "a.png", max_pixels=4096)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2000)
    (tmp_path / "a.png").write_bytes(noise("PNG"))
    assert "the limit is 4000 pixels" in message_of(tmp_path / "a.png")
    # Between once and twice the limit Pillow only warns, and an image that may be read is read.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4000)
    assert read_image(tmp_path / "a.png").width == 64


@pytest.mark.parametrize("name", ["a\0.png", "a\ud800.png"])
def test_a_path_that_no_file_can_have_is_an_error_of_the_image(name: str) -> None:
    assert "no file can be at" in message_of(Path(name))


def test_libtiff_writes_no_lines_of_its_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(noise("TIFF", compression="tiff_adobe_deflate"))
    middle = slice(len(content) // 2, len(content) // 2 + 40)
    content[middle] = bytes(byte ^ 0x55 for byte in content[middle])
    (tmp_path / "a.tif").write_bytes(content)
    assert "its TIFF is damaged" in message_of(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""
    # To a program around us Pillow is as it was.
    with PIL.Image.open(tmp_path / "a.tif") as opened, pytest.raises(OSError, match="decoder error"):
        opened.load()
    assert "Decoding error" in capfd.readouterr().err


def test_our_own_limit_may_be_the_only_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 1000)
    (tmp_path / "a.png").write_bytes(noise("PNG"))
    with only_own_limit():
        assert read_image(tmp_path / "a.png", max_pixels=64 * 64).width == 64
        assert "64 x 64 px, the limit is 4095 pixels" in message_of(tmp_path / "a.png", max_pixels=4095)
    assert PIL.Image.MAX_IMAGE_PIXELS == 1000


def test_too_little_memory_is_told_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    (tmp_path / "a.png").write_bytes(noise("PNG"))
    monkeypatch.setattr(PIL.Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    assert "memory" in message_of(tmp_path / "a.png")


# --- damage and warnings -------------------------------------------------------------------------------------------

SAMPLES = {kind: noise(kind) for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")} | {
    "JPEG+EXIF": bytes_of(PIL.Image.new("RGB", (9, 5), RED), "JPEG", exif=TURNED),
    "palette": bytes_of(palette_image(), "PNG", transparency=bytes([255, 128, 0])),
    "LZW": bytes_of(PIL.Image.new("RGB", (9, 5), RED), "TIFF", compression="tiff_lzw"),
}


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(SAMPLES)),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
    keep=st.floats(0.05, 1),
)
@example(kind="PNG", changes=[], keep=0.1)
def test_damaged_bytes_give_an_image_or_one_clear_error(
    tmp_path: Path, kind: str, changes: list[tuple[float, int]], keep: float
) -> None:
    content = bytearray(SAMPLES[kind])
    for place, value in changes:
        # Squared: the headers, where the traps are, lie at the start.
        content[int(place**2 * len(content))] = value
    path = tmp_path / "damaged"
    path.write_bytes(content[: max(1, int(keep * len(content)))])
    try:
        image = read_image(path, max_pixels=1_000_000)
    except ImageError as error:
        message = str(error)
        assert "\n" not in message
    else:
        assert image.pixels.shape == (image.height, image.width, 3)


def test_pillow_warnings_stay_inside(tmp_path: Path) -> None:
    # The last tag points far beyond the file: Pillow warns and reads on. Warnings are errors in these tests.
    exif = TiffImagePlugin.ImageFileDirectory_v2()
    exif[33432] = "a copyright long enough to be stored by offset"
    content = bytearray(bytes_of(PIL.Image.new("RGB", (2, 1), RED), "TIFF", tiffinfo=exif))
    where = content.index(struct.pack("<HH", 33432, 2))
    content[where + 4 : where + 8] = struct.pack("<I", 1 << 20)
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="larger than file|Truncated|Corrupt"), PIL.Image.open(path) as opened:
        opened.load()
    assert read_image(path).pixels.tolist() == [[[*RED], [*RED]]]


def test_reading_in_threads_leaves_the_warning_filters_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(noise("PNG"))
    before = list(warnings.filters)
    threads = [threading.Thread(target=lambda: [read_image(path) for _ in range(20)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
