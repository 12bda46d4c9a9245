"""Colours: every embedded profile becomes sRGB, and levels of 10 or 12 bits are told."""

import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image
import pillow_heif
import pytest
from icc_profiles import ADOBE_RGB, DISPLAY_P3, SRGB, cmyk_profile, grey_profile, rgb_profile
from PIL import ImageCms

from grounded_seg.images.read import read_image

COLOURS = np.array([[(200, 100, 50), (10, 120, 90), (128, 128, 128), (255, 255, 255)]], dtype=np.uint8)
ADOBE = rgb_profile(ADOBE_RGB, 563 / 256)
P3 = rgb_profile(DISPLAY_P3, None)
FAITHFUL: dict[str, dict[str, Any]] = {
    "WEBP": {"lossless": True},
    "JPEG": {"quality": 98, "subsampling": 0},
    "AVIF": {"quality": 100, "subsampling": "4:4:4"},
    "HEIF": {"quality": -1, "chroma": 444, "matrix_coefficients": 0},
}


def saved(path: Path, image: PIL.Image.Image, kind: str, **options: Any) -> Path:
    encoded = io.BytesIO()
    if kind == "HEIF":
        pillow_heif.from_pillow(image).save(encoded, **options)
    else:
        image.save(encoded, kind, **options)
    path.write_bytes(encoded.getvalue())
    return path


def by_hand(rgb: npt.NDArray[np.uint8], primaries: tuple[tuple[float, float, float], ...], gamma: float | None) -> Any:
    """The way through XYZ under D50, clipped to what sRGB has."""
    levels = rgb / 255
    curve = np.where(levels <= 0.04045, levels / 12.92, ((levels + 0.055) / 1.055) ** 2.4)
    linear = curve if gamma is None else levels**gamma
    shown = np.clip(linear @ np.array(primaries) @ np.linalg.inv(np.array(SRGB)), 0, 1)
    return 255 * np.where(shown <= 0.0031308, shown * 12.92, 1.055 * shown ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG", "AVIF", "HEIF"])
@pytest.mark.parametrize(
    ("profile", "primaries", "gamma"), [(ADOBE, ADOBE_RGB, 563 / 256), (P3, DISPLAY_P3, None)], ids=["Adobe RGB", "P3"]
)
def test_the_colours_of_a_profile_become_those_of_srgb(
    tmp_path: Path, kind: str, profile: bytes, primaries: Any, gamma: float | None
) -> None:
    image = PIL.Image.fromarray(COLOURS.repeat(16, axis=0).repeat(16, axis=1))
    path = saved(tmp_path / "a", image, kind, icc_profile=profile, **FAITHFUL.get(kind, {}))
    pixels = read_image(path).pixels[8, 8::16].astype(float)
    assert np.abs(pixels - by_hand(COLOURS[0], primaries, gamma)).max() <= (1.5 if kind in ("PNG", "TIFF") else 4)
    # The profile does move colours: unconverted, they would be these.
    assert np.abs(pixels - COLOURS[0]).max() > 10


def test_the_colours_are_those_of_little_cms(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    path = saved(tmp_path / "a.png", image, "PNG", icc_profile=P3)
    source = ImageCms.ImageCmsProfile(io.BytesIO(P3))
    expected = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert np.array_equal(read_image(path).pixels, np.asarray(expected))


@pytest.mark.parametrize(
    "profile",
    [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), rgb_profile(SRGB, None)],
    ids=["Little CMS", "by hand"],
)
def test_a_profile_of_srgb_changes_no_byte(tmp_path: Path, profile: bytes) -> None:
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    path = saved(tmp_path / "a.png", image, "PNG", icc_profile=profile)
    assert np.array_equal(read_image(path).pixels, np.asarray(image))


def test_a_grey_profile_brightens_grey(tmp_path: Path) -> None:
    grey = PIL.Image.fromarray(np.array([[0, 64, 128, 255]], dtype=np.uint8))
    path = saved(tmp_path / "a.png", grey, "PNG", icc_profile=grey_profile(1.0))
    expected = by_hand(np.asarray(grey).repeat(3).reshape(-1, 3), SRGB, 1.0)
    assert np.abs(read_image(path).pixels[0] - expected).max() <= 1.5
    deep = PIL.Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    saved(path, deep, "PNG", icc_profile=grey_profile(1.0))
    assert np.abs(read_image(path).pixels[0] - expected).max() <= 1.5
    saved(path, grey, "PNG", icc_profile=grey_profile(None))
    assert read_image(path).pixels[0, :, 0].tolist() == [0, 64, 128, 255]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_ink_becomes_the_colour_that_its_profile_says(tmp_path: Path, kind: str) -> None:
    ink = PIL.Image.new("CMYK", (32, 16), (0, 0, 0, 0))
    ink.paste((255, 0, 0, 0), (16, 0, 32, 16))
    pixels = read_image(saved(tmp_path / "a", ink, kind, icc_profile=cmyk_profile())).pixels
    assert np.abs(pixels[8, 4].astype(int) - 255).max() <= 3
    # CIE L* 40, a* -30, b* 20 in sRGB.
    assert np.abs(pixels[8, 28].astype(int) - (48, 106, 60)).max() <= 6


def test_transparent_parts_are_white_whatever_the_profile(tmp_path: Path) -> None:
    rgba = np.dstack([COLOURS, np.array([[255, 0, 255, 128]], dtype=np.uint8)])
    path = saved(tmp_path / "a.png", PIL.Image.fromarray(rgba), "PNG", icc_profile=ADOBE)
    pixels = read_image(path).pixels[0].astype(float)
    expected = by_hand(COLOURS[0], ADOBE_RGB, 563 / 256)
    assert np.abs(pixels[[0, 2]] - expected[[0, 2]]).max() <= 1.5
    assert pixels[1].tolist() == [255, 255, 255]
    palette = PIL.Image.fromarray(COLOURS).quantize(4)
    saved(path, palette, "PNG", icc_profile=ADOBE)
    assert np.abs(read_image(path).pixels[0] - expected).max() <= 1.5
    grey = PIL.Image.fromarray(np.array([[(64, 255), (64, 0)]], dtype=np.uint8), mode="LA")
    saved(path, grey, "PNG", icc_profile=grey_profile(1.0))
    assert read_image(path).pixels[0, :, 0].tolist() == [137, 255]


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        (b"x" * 2_000_000, "no known kind of pixels"),
        (ADOBE[:200], "cannot"),
        (grey_profile(1.0), "for L pixels, and these are RGB"),
        (ADOBE[:16] + b"HSV " + ADOBE[20:], "no known kind of pixels"),
    ],
    ids=["2 MB of nothing", "cut off", "of grey", "of another kind"],
)
def test_a_profile_that_cannot_be_used_is_ignored_with_a_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, profile: bytes, reason: str
) -> None:
    path = saved(tmp_path / "a.png", PIL.Image.fromarray(COLOURS), "PNG", icc_profile=profile)
    with caplog.at_level(logging.INFO):
        assert np.array_equal(read_image(path).pixels, COLOURS)
    assert reason in caplog.text
    assert "it is read as sRGB; other images may be like it" in caplog.text


def test_a_profile_of_srgb_on_grey_pixels_needs_no_note(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    grey = PIL.Image.fromarray(np.array([[0, 64]], dtype=np.uint8))
    with caplog.at_level(logging.INFO):
        path = saved(tmp_path / "a.png", grey, "PNG", icc_profile=rgb_profile(SRGB, None))
        assert read_image(path).pixels[0, :, 0].tolist() == [0, 64]
    assert caplog.text == ""


# --- 10 and 12 bits ------------------------------------------------------------------------------------------------


def png16(samples: npt.NDArray[np.uint16]) -> bytes:
    """A PNG of 16 bits: (height, width) is grey, (height, width, 3) RGB."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 0 if samples.ndim == 2 else 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("kind", "highest", "bits", "factor"),
    [
        *((kind, *case) for kind in ("grey PNG", "RGB PNG", "TIFF") for case in ((1023, 10, 64), (4095, 12, 16))),
        ("grey PNG", 2000, 12, 16),
        # Of such colours Pillow would keep nothing.
        ("TIFF", 255, 8, 256),
    ],
)
def test_few_bits_in_sixteen_are_told_and_scaled_by_the_rule(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, highest: int, bits: int, factor: int
) -> None:
    levels, path = np.array([[0, highest]], dtype=np.uint16), tmp_path / "a"
    if kind == "TIFF":
        saved(path, PIL.Image.fromarray(levels), "TIFF")
    else:
        path.write_bytes(png16(levels if kind == "grey PNG" else np.stack([levels // 2, levels, levels], axis=-1)))
    with caplog.at_level(logging.INFO):
        pixels = read_image(path).pixels
    assert pixels.max() in (highest // 256, round(highest / 257))
    [record] = caplog.records
    assert f"levels of {bits} bits in a file of 16" in record.message
    assert f"multiply them by {factor} " in record.message
    assert record.__dict__["once"]


@pytest.mark.parametrize("levels", [[[0, 0]], [[0, 4096]], [[0, 65535]]])
def test_black_and_sixteen_bits_in_sixteen_are_no_note(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, levels: list[list[int]]
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(png16(np.array(levels, dtype=np.uint16)))
    with caplog.at_level(logging.INFO):
        read_image(path)
    assert caplog.text == ""


def test_a_tiff_that_says_twelve_bits_has_its_white_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    # Two levels of 12 bits, 4095 and 0x800, in three bytes.
    entries = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 110), (277, 1), (278, 1), (279, 3)]
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    content = b"II*\0" + struct.pack("<IH", 8, len(entries)) + directory + b"\0" * 4
    (tmp_path / "a.tif").write_bytes(
        content.ljust(122, b"\0").replace(struct.pack("<I", 110), struct.pack("<I", 122)) + bytes([0xFF, 0xF8, 0x00])
    )
    with caplog.at_level(logging.INFO):
        assert read_image(tmp_path / "a.tif").pixels[0, :, 0].tolist() == [255, 128]
    assert caplog.text == ""
