"""From logits to pixels: the pixels of the official upsampling, computed only where they can be a mask's."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from mask_logits import SIDE, SIZES, SQUARE, official, placed, random_logits

from grounded_seg.records import ImageSize
from grounded_seg.segment import resize
from grounded_seg.segment.resize import (
    axes_straight,
    axes_through_square,
    bilinear_taps,
    regions_from_logits,
)


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.width}x{size.height}")
def test_pixels_are_those_of_the_official_upsampling(size: ImageSize, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resize, "STRIP_PIXELS", 1000)
    logits = random_logits(4)
    expected = official(logits, size)
    assert 0.05 < expected.mean() < 0.95
    regions = list(regions_from_logits(logits, *axes_through_square(SIDE, SQUARE, size)))
    assert [np.array_equal(placed(region, size), mask) for region, mask in zip(regions, expected, strict=True)] == (
        [True] * 4
    )


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.width}x{size.height}")
def test_straight_to_the_image_is_one_resize(size: ImageSize) -> None:
    logits = random_logits(3)
    full = F.interpolate(logits[:, None], (size.height, size.width), mode="bilinear", align_corners=False)
    regions = regions_from_logits(logits, *axes_straight(SIDE, size))
    for region, mask in zip(regions, full[:, 0] > 0, strict=True):
        assert np.array_equal(placed(region, size), mask.numpy())


def test_a_small_mask_takes_a_small_region() -> None:
    size = ImageSize(4 * SIDE, 4 * SIDE)
    logits = torch.full((1, SIDE, SIDE), -1.0)
    logits[0, 10, 20] = 1
    [region] = regions_from_logits(logits, *axes_through_square(SIDE, SQUARE, size))
    assert region is not None
    # The cell covers columns 80 to 84 and rows 40 to 44, the filter reaches two pixels further, the next resize one.
    assert np.array_equal(placed(region, size), official(logits, size)[0])
    assert region.mask.shape[0] <= 12
    assert (region.left, region.top) == (77, 37)
    assert region.mask.flags.f_contiguous


def test_masks_without_pixels_have_no_region() -> None:
    size = ImageSize(200, 100)
    logits = torch.full((3, SIDE, SIDE), -1.0)
    # Positive only in the padding below the image, and so little that no pixel gets over the threshold.
    logits[1, SIDE // 2 + 4 :] = 5
    logits[2, 3, 3] = 1e-6
    assert list(regions_from_logits(logits, *axes_through_square(SIDE, SQUARE, size))) == [None, None, None]
    assert not official(logits, size).any()
    assert list(regions_from_logits(logits[:0], *axes_through_square(SIDE, SQUARE, size))) == []


def test_a_mask_over_everything_is_one_region() -> None:
    size = ImageSize(31, 17)
    [region] = regions_from_logits(torch.ones(1, SIDE, SIDE), *axes_through_square(SIDE, SQUARE, size))
    assert region is not None
    assert (region.left, region.top, region.mask.shape, region.mask.all()) == (0, 0, (17, 31), True)


@pytest.mark.parametrize(("n_in", "n_out"), [(1, 5), (7, 7), (64, 1000), (1000, 64), (5, 1)])
def test_taps_resize_a_line_as_torch_does(n_in: int, n_out: int) -> None:
    line = torch.randn(n_in, generator=torch.Generator().manual_seed(2))
    taps = bilinear_taps(n_in, n_out)
    mixed = line[taps.first] * (1 - torch.from_numpy(taps.weight)) + line[taps.second] * torch.from_numpy(taps.weight)
    expected = F.interpolate(line[None, None], n_out, mode="linear", align_corners=False)[0, 0]
    assert torch.allclose(mixed, expected, atol=1e-5)
