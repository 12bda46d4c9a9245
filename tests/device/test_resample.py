"""Resizing on a device: byte for byte what the libraries of the CPU make."""

import numpy as np
import pytest
import torch
from tiny_sam import CPU, random_image
from torch.nn import functional

from grounded_seg.detect.model.pixels import PixelSettings, pixel_values, resized_there
from grounded_seg.device.resample import PILLOW_BILINEAR, TORCH_BICUBIC, TORCH_BILINEAR, Resampling, resampled, uploaded
from grounded_seg.records import Image, ImageSize
from grounded_seg.segment.resize import resized_pixels, resized_size

SIZES = [
    *(ImageSize(1280, 720), ImageSize(97, 150), ImageSize(768, 768), ImageSize(769, 431)),
    *(ImageSize(4, 3), ImageSize(1600, 3), ImageSize(5, 900), ImageSize(1, 1)),
]


def hard_image(size: ImageSize) -> Image:
    """Noise, and beside it black and white edges, at which a bicubic filter leaves the range of bytes."""
    image = random_image(size)
    pixels = np.where(np.arange(size.width)[None, :, None] * 2 < size.width, image.pixels, (image.pixels > 127) * 255)
    return Image(image.path, pixels.astype(np.uint8))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.width}x{size.height}")
@pytest.mark.parametrize("out", [(768, 768), (96, 64), (31, 500)])
@pytest.mark.parametrize(("mode", "resampling"), [("bicubic", TORCH_BICUBIC), ("bilinear", TORCH_BILINEAR)])
def test_both_filters_are_torchs(size: ImageSize, out: tuple[int, int], mode: str, resampling: Resampling) -> None:
    pixels = hard_image(size).pixels
    expected = functional.interpolate(
        torch.tensor(pixels).permute(2, 0, 1)[None], (out[1], out[0]), mode=mode, antialias=True
    )
    resized = resampled(uploaded(pixels, CPU), *out, resampling)
    assert torch.equal(resized.permute(2, 0, 1), expected[0])


@pytest.mark.parametrize("size", [*SIZES[:-2], ImageSize(300, 590)], ids=lambda size: f"{size.width}x{size.height}")
@pytest.mark.parametrize("side", [1024, 256])
def test_bilinear_is_pillows(size: ImageSize, side: int) -> None:
    pixels, frame = hard_image(size).pixels, resized_size(size, side)
    resized = resampled(uploaded(pixels, CPU), frame.width, frame.height, PILLOW_BILINEAR)
    assert np.array_equal(resized.numpy(), resized_pixels(pixels, frame))


def test_bilinear_is_off_by_one_at_most_where_pillow_goes_down_the_columns_first() -> None:
    size = ImageSize(100, 400)
    pixels, frame = hard_image(size).pixels, resized_size(size, 128)
    resized = resampled(uploaded(pixels, CPU), frame.width, frame.height, PILLOW_BILINEAR).numpy()
    differences = np.abs(resized.astype(int) - resized_pixels(pixels, frame))
    assert differences.max() <= 1
    assert (differences > 0).mean() <= 0.25


@pytest.mark.parametrize("side", [None, 48])
def test_a_batch_of_pixels_is_the_same_from_both_paths(side: int | None) -> None:
    settings = PixelSettings(96, 64, square_side=side)
    images = [hard_image(size) for size in SIZES[:4]]
    mean, deviation = (torch.tensor(values)[:, None, None] * 255 for values in (settings.mean, settings.deviation))
    there = resized_there(images, settings, CPU)
    assert there.dtype is torch.uint8
    assert torch.equal((there.float() - mean) / deviation, pixel_values(images, settings))


def test_a_read_only_array_is_copied_without_a_warning() -> None:
    pixels = random_image(ImageSize(3, 2)).pixels
    pixels.setflags(write=False)
    copied = uploaded(pixels, CPU)
    assert np.array_equal(copied.numpy(), pixels)
