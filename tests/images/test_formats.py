"""HEIC and AVIF are read as any other image, upright once, and PNGs with much metadata too."""

import io
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pillow_heif
import pytest
from paths import ROOT

from grounded_seg.errors import ImageError
from grounded_seg.images.formats import container_of
from grounded_seg.images.read import read_image, read_or_skip, upright_size
from grounded_seg.records import ImageSize, ImageSkipped

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
PATTERN = np.array([[RED, GREEN, BLUE], [WHITE, (0, 0, 0), (255, 255, 0)]], dtype=np.uint8)
BIG = PIL.Image.fromarray(PATTERN.repeat(32, axis=0).repeat(32, axis=1))
TURNS: dict[int, Any] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.swapaxes(0, 1),
    6: lambda p: p.swapaxes(0, 1)[:, ::-1],
    7: lambda p: p.swapaxes(0, 1)[::-1, ::-1],
    8: lambda p: p.swapaxes(0, 1)[::-1],
}
KINDS = ["HEIF", "AVIF"]


def turned(orientation: int) -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    pillow_heif.register_heif_opener()
    full = {"HEIF": {"chroma": 444}, "AVIF": {"subsampling": "4:4:4"}}
    image.save(buffer, kind, **{"quality": 95} | full[kind] | options)
    return buffer.getvalue()


def written(folder: Path, content: bytes) -> Path:
    # The name says nothing, so that the content alone decides.
    path = folder / "content"
    path.write_bytes(content)
    return path


def shows(path: Path, expected: Any) -> bool:
    image = read_image(path)
    centres = image.pixels[16::32, 16::32].astype(int)
    assert upright_size(path) == image.size == ImageSize(32 * expected.shape[1], 32 * expected.shape[0])
    return bool(np.abs(centres - expected).max() <= 12)


def with_orientation_in_exif(content: bytes, orientation: int) -> bytes:
    """Change what the EXIF block says, and nothing else."""
    entry = b"\x01\x12\0\x03\0\0\0\x01\0"
    at = content.index(entry) + len(entry)
    return content[:at] + bytes([orientation]) + content[at + 1 :]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_file_is_turned_once(tmp_path: Path, orientation: int) -> None:
    # It then stands in both, the EXIF block and the container.
    content = encoded(BIG, "HEIF", exif=turned(orientation))
    assert (b"irot" in content or b"imir" in content) == (orientation != 1)
    assert shows(written(tmp_path, content), TURNS[orientation](PATTERN))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_avif_file_is_turned_once(tmp_path: Path, orientation: int) -> None:
    content = encoded(BIG, "AVIF", exif=turned(orientation))
    assert (b"irot" in content or b"imir" in content) == (orientation != 1)
    assert shows(written(tmp_path, content), TURNS[orientation](PATTERN))


@pytest.mark.parametrize("container", [1, 6])
def test_the_container_is_believed_where_exif_says_something_else(tmp_path: Path, container: int) -> None:
    content = encoded(BIG, "HEIF", exif=turned(container))
    for other in (3, 8):
        path = written(tmp_path, with_orientation_in_exif(content, other))
        assert shows(path, TURNS[container](PATTERN))
    about = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"/></x:xmpmeta>'
    content = encoded(BIG, "AVIF", exif=turned(container), xmp=about)
    assert shows(written(tmp_path, content), TURNS[container](PATTERN))


@pytest.mark.parametrize("kind", KINDS)
def test_transparent_parts_become_white_and_grey_stays_grey(tmp_path: Path, kind: str) -> None:
    rgba = BIG.convert("RGBA")
    rgba.putalpha(PIL.Image.new("L", BIG.size, 0))
    rgba.paste((255, 0, 0, 255), (0, 0, 32, 64))
    pixels = read_image(written(tmp_path, encoded(rgba, kind))).pixels
    assert np.abs(pixels[8::32, 8::32].astype(int) - [[RED, WHITE, WHITE]] * 2).max() <= 12
    grey = PIL.Image.new("L", (64, 32), 100)
    assert np.abs(read_image(written(tmp_path, encoded(grey, kind))).pixels.astype(int) - 100).max() <= 3


def test_ten_bits_of_heic_become_eight(tmp_path: Path) -> None:
    deep, content = np.asarray(BIG).astype(np.uint16) * 257, io.BytesIO()
    pillow_heif.encode("RGB;16", BIG.size, deep.tobytes(), content, quality=95, chroma=444)
    assert pillow_heif.open_heif(io.BytesIO(content.getvalue())).info["bit_depth"] == 10
    assert shows(written(tmp_path, content.getvalue()), PATTERN)


def test_the_main_picture_of_several_is_taken(tmp_path: Path) -> None:
    file, content = pillow_heif.from_pillow(PIL.Image.new("RGB", (64, 64), GREEN)), io.BytesIO()
    file.add_from_pillow(PIL.Image.new("RGB", (64, 32), RED))
    file.save(content, primary_index=1)
    image = read_image(written(tmp_path, content.getvalue()))
    assert image.size == ImageSize(64, 32)
    assert np.abs(image.pixels[16, 16].astype(int) - RED).max() <= 12


@pytest.mark.parametrize("kind", KINDS)
def test_damage_and_size_are_told_as_of_any_other(tmp_path: Path, kind: str) -> None:
    content = encoded(BIG, kind)
    with pytest.raises(ImageError, match=r"damaged \(.+\); copy it again"):
        read_image(written(tmp_path, content[: len(content) // 2]))
    with pytest.raises(ImageError, match="96 x 64 px, the limit is 6143 pixels"):
        read_image(written(tmp_path, content), max_pixels=6143)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_bytes_give_an_image_or_one_clear_error(tmp_path: Path, kind: str) -> None:
    content, generator = encoded(BIG, kind, exif=turned(6)), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(content)
        for at in generator.random(generator.integers(1, 6)) ** 2:
            damaged[int(at * len(damaged))] = generator.integers(256)
        keep = generator.integers(1, len(damaged)) if generator.random() < 0.5 else len(damaged)
        outcome = read_or_skip(written(tmp_path, bytes(damaged[:keep])), max_pixels=1_000_000)
        if isinstance(outcome, ImageSkipped):
            assert "\n" not in outcome.reason
        else:
            assert outcome.pixels.shape == (outcome.height, outcome.width, 3)


def test_threads_read_alike(tmp_path: Path) -> None:
    paths = []
    for kind in KINDS:
        paths.append(tmp_path / kind)
        paths[-1].write_bytes(encoded(BIG, kind))
    first = [read_image(path).pixels for path in paths]
    with ThreadPoolExecutor(8) as threads:
        for path, pixels in zip(paths * 10, threads.map(lambda one: read_image(one).pixels, paths * 10), strict=True):
            assert np.array_equal(pixels, first[paths.index(path)])


def test_brands_tell_the_two_apart() -> None:
    def start(main: bytes, *others: bytes) -> bytes:
        brands = main + b"\0\0\0\0" + b"".join(others)
        return (8 + len(brands)).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x08metaavif"

    assert container_of(start(b"heic", b"mif1")) == "HEIF"
    assert container_of(start(b"mif1", b"heic")) == "HEIF"
    assert container_of(start(b"mif1", b"miaf", b"avif")) == "AVIF"
    assert container_of(start(b"avis", b"msf1")) == "AVIF"
    assert container_of(start(b"isom", b"mp42")) is None
    assert container_of(b"\xff\xd8\xff\xe0") is None


def test_the_library_of_heic_is_loaded_with_the_first_such_file_only(tmp_path: Path) -> None:
    BIG.save(tmp_path / "a.png")
    written(tmp_path, encoded(BIG, "HEIF"))
    program = (
        "import sys\nfrom pathlib import Path\nfrom grounded_seg.images.read import read_image\n"
        f"read_image(Path({str(tmp_path / 'a.png')!r}))\n"
        "assert not {'pillow_heif', 'PIL.ImageCms'} & sys.modules.keys()\n"
        f"read_image(Path({str(tmp_path / 'content')!r}))\nassert 'pillow_heif' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


# --- metadata ------------------------------------------------------------------------------------------------------


def png_with(chunk: bytes, body: bytes) -> bytes:
    buffer = io.BytesIO()
    BIG.save(buffer, "PNG")
    content = buffer.getvalue()
    extra = len(body).to_bytes(4, "big") + chunk + body + zlib.crc32(chunk + body).to_bytes(4, "big")
    # After the header of 33 bytes.
    return content[:33] + extra + content[33:]


@pytest.mark.parametrize("n_bytes", [2_000_000, 16_000_000])
@pytest.mark.parametrize(
    ("chunk", "head"),
    [(b"tEXt", b"Comment\0"), (b"zTXt", b"Comment\0\0"), (b"iTXt", b"Comment\0\1\0\0\0"), (b"iCCP", b"profile\0\0")],
)
def test_a_png_with_large_metadata_is_read(tmp_path: Path, n_bytes: int, chunk: bytes, head: bytes) -> None:
    body = b"x" * n_bytes
    content = png_with(chunk, head + (body if chunk == b"tEXt" else zlib.compress(body)))
    limit = PIL.PngImagePlugin.MAX_TEXT_CHUNK
    assert shows(written(tmp_path, content), PATTERN)
    assert limit == PIL.PngImagePlugin.MAX_TEXT_CHUNK


def test_metadata_without_end_is_refused_for_what_it_is(tmp_path: Path) -> None:
    packed = zlib.compress(b"x" * 200_000_000)
    with pytest.raises(ImageError, match="holds too much metadata; save it again without comments"):
        read_image(written(tmp_path, png_with(b"zTXt", b"Comment\0\0" + packed)))


@pytest.mark.parametrize("kind", KINDS)
def test_pillows_own_limit_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    path = written(tmp_path, encoded(BIG, kind))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 96 * 64 // 2 - 1)
    for read in (read_image, upright_size):
        with pytest.raises(ImageError):
            read(path)
    with pytest.raises(ImageError, match=f"the limit is {96 * 64 - 2} pixels"):
        read_image(path)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 96 * 64 // 2)
    assert read_image(path).size == ImageSize(96, 64)
