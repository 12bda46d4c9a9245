"""Images in each form that a Python caller may have: the same pixels, or a refusal with the remedy."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from fakes import painted

from grounded_seg.errors import ImageError, InputError, UsageError
from grounded_seg.images.in_memory import image_from, image_or_skip, is_one_image
from grounded_seg.images.read import read_image
from grounded_seg.records import Image, ImageSkipped

PIXELS = painted(40, 30, red=(2, 3, 12, 9))
TURNED = 6


def as_png(**more: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(PIXELS).save(file, "PNG", **more)
    return file.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        Image(Path("a"), PIXELS),
        as_png(),
        bytearray(as_png()),
        memoryview(as_png()),
        PIL.Image.fromarray(PIXELS),
        PIXELS,
        PIXELS[:, ::-1][:, ::-1],
        np.asfortranarray(PIXELS),
        np.dstack([PIXELS, np.full((30, 40), 255, np.uint8)]),
        torch.from_numpy(PIXELS.copy()),
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1),
        torch.from_numpy(PIXELS.copy()).permute(2, 0, 1).contiguous(),
    ],
    ids=lambda given: type(given).__name__,
)
def test_each_form_gives_the_same_pixels(given: Any) -> None:
    image = image_from(given)
    assert np.array_equal(image.pixels, PIXELS)
    assert image.pixels.dtype == np.uint8
    assert is_one_image(given)


def test_text_and_paths_are_read_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(as_png())
    for given in (path, str(path)):
        assert image_from(given).path == path
        assert np.array_equal(image_from(given).pixels, PIXELS)
    with pytest.raises(ImageError, match=r"no file is at 'red\.png'"):
        image_from("red.png")
    with pytest.raises(InputError, match=r"https://host/a//b\.png"):
        image_from("https://host/a//b.png")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 255]], np.uint8), [[0, 0, 0], [255, 255, 255]]),
        (np.array([[[7], [9]]], np.uint8), [[7, 7, 7], [9, 9, 9]]),
        (np.array([[[10, 20, 30, 0], [10, 20, 30, 255]]], np.uint8), [[255, 255, 255], [10, 20, 30]]),
        (torch.tensor([[0, 255]], dtype=torch.uint8), [[0, 0, 0], [255, 255, 255]]),
        (torch.tensor([[[7, 9]]], dtype=torch.uint8), [[7, 7, 7], [9, 9, 9]]),
    ],
)
def test_grey_and_transparent_pixels(values: Any, expected: list[list[int]]) -> None:
    assert image_from(values).pixels.tolist() == [expected]


def test_the_rotation_of_a_pillow_image_and_of_bytes_is_applied(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[0x0112] = TURNED
    content = as_png(exif=exif)
    path = tmp_path / "turned.png"
    path.write_bytes(content)
    upright = read_image(path).pixels
    assert upright.shape == (40, 30, 3)
    assert np.array_equal(image_from(content).pixels, upright)
    with PIL.Image.open(path) as opened:
        image = image_from(opened)
        assert np.array_equal(image.pixels, upright)
        assert image.path == path
        # It stays the caller's, open and as it was.
        assert opened.size == (40, 30)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "CMYK", "I;16", "F"])
def test_pillow_images_of_any_mode(mode: str) -> None:
    assert image_from(PIL.Image.new(mode, (4, 3))).pixels.shape == (3, 4, 3)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (PIXELS / 255, "float64.*round"),
        (PIXELS.astype(np.float32), "float32"),
        (PIXELS.astype(np.uint16), "uint16.*257"),
        (PIXELS.astype(np.int64), "int64"),
        (PIXELS > 3, "bool"),
        (torch.zeros(3, 8, 8), "float32.*round"),
        (torch.zeros(3, 8, 8, dtype=torch.bfloat16), "bfloat16"),
        (np.zeros((4, 4, 2), np.uint8), r"array of 4 x 4 x 2; give \(height, width, 3\) .* for RGBA$"),
        (np.moveaxis(PIXELS, 2, 0), r"3 x 30 x 40.*transpose\(1, 2, 0\)"),
        (PIXELS[None], r"1 x 30 x 40 x 3.*list\(images\)"),
        (PIXELS[0, 0], "array of 3;"),
        (PIXELS[:, :, :2], "30 x 40 x 2"),
        (torch.zeros(3, 8, 3, dtype=torch.uint8), r"3 x 8 x 3.*permute"),
        (torch.zeros(8, 8, 8, dtype=torch.uint8), "8 x 8 x 8"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "list"),
        ([PIXELS, PIXELS], r"type list.*batch\(\)"),
        (3, "type int"),
        (None, "type NoneType"),
    ],
)
def test_what_could_be_misread_is_refused_with_the_remedy(given: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        image_from(given)


def test_damaged_bytes_and_no_pixels_are_errors_of_the_image() -> None:
    for given in (b"", b"no image", as_png()[:60], np.zeros((0, 5, 3), np.uint8)):
        with pytest.raises(ImageError, match="image"):
            image_from(given)
        skipped = image_or_skip(given, "image-2")
        assert isinstance(skipped, ImageSkipped)
        assert "image-2" in skipped.reason
    with pytest.raises(ImageError, match="is 0 x 5 px, without a pixel"):
        image_from(PIL.Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "JPEG"])
def test_a_pillow_image_that_was_closed_is_told_as_such(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    PIL.Image.fromarray(PIXELS).save(path, kind)
    with PIL.Image.open(path) as left:
        pass
    closed = PIL.Image.open(path)
    closed.close()
    loaded = PIL.Image.open(path)
    loaded.load()
    loaded.close()
    with path.open("rb") as file:
        without_file = PIL.Image.open(file)
    for given in (left, closed, loaded, without_file):
        with pytest.raises(ImageError, match=r"is a Pillow image that was closed; give it inside its `with` block"):
            image_from(given)
        assert isinstance(image_or_skip(given, "image-2"), ImageSkipped)
    with PIL.Image.open(path) as kept:
        kept.load()
    assert image_from(kept).size == image_from(path).size


def test_a_list_is_no_single_image() -> None:
    assert not is_one_image([PIXELS])
    assert not is_one_image(iter([PIXELS]))
