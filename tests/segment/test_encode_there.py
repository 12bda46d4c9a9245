"""Masks that a device encodes itself: the bytes of pycocotools, and the instances of the other path."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mask_logits import SIDE, SIZES, SQUARE, official, placed, random_logits
from pycocotools import mask as coco_mask
from tiny_sam import CPU, random_detections, random_image, random_sam

from grounded_seg.geometry.masks import run_length_from_region
from grounded_seg.records import BoxXyxy, Image, ImageSize
from grounded_seg.segment import encode_there, segmenter
from grounded_seg.segment.encode_there import encoded_masks
from grounded_seg.segment.resize import Region, axes_straight, axes_through_square, regions_from_logits
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter, share_outside
from grounded_seg.settings import SegmentSettings

BOX = (3.5, 2.0, 40.0, 30.5)


def straight_masks(masks: torch.Tensor, boxes_xyxy: list[BoxXyxy] | None = None) -> list[Any]:
    """Boolean masks (n, height, width) through the encoder, by logits of the same size."""
    height, width = masks.shape[1:]
    # Logits have one side for both axes: what lies beyond is cut off.
    side = max(height, width)
    logits = torch.full((len(masks), side, side), -1.0)
    logits[:, :height, :width] = masks.float() * 2 - 1
    axes = (axes_straight(side, ImageSize(side, side))[0],) * 2
    size = ImageSize(width, height)
    return encoded_masks(logits, axes, boxes_xyxy or [(0.0, 0.0, 1.0, 1.0)] * len(masks), size)


def assert_pycocotools(masks: torch.Tensor) -> None:
    for mask, made in zip(masks.numpy(), straight_masks(masks), strict=True):
        if not mask.any():
            assert made is None
            continue
        expected = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert (made.mask.counts, [made.mask.size.height, made.mask.size.width]) == (
            expected["counts"],
            expected["size"],
        )
        assert made.n_pixels == mask.sum()
        assert made.n_inside == mask[0, 0]


@settings(deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 1 << 26]))
def test_run_lengths_are_those_of_pycocotools(height: int, width: int, seed: int, at_a_time: int) -> None:
    rng = np.random.default_rng(seed)
    masks = rng.random((4, height, width)) < rng.choice([0.05, 0.5, 0.95], (4, 1, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encode_there, "VALUES_AT_A_TIME", at_a_time)
        assert_pycocotools(torch.from_numpy(masks))


def test_full_empty_framed_and_large_masks_too() -> None:
    for height, width in ((1, 1), (1, 40), (40, 1), (31, 17), (1500, 1100)):
        full = torch.ones(height, width, dtype=torch.bool)
        frame = full.clone()
        frame[1:-1, 1:-1] = False
        rows = torch.arange(height)[:, None] // 3 % 2 == torch.zeros(width)
        assert_pycocotools(torch.stack([full, ~full, frame, ~frame, rows, ~rows]))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size.width}x{size.height}")
@pytest.mark.parametrize("at_a_time", [1 << 26, 5000])
def test_pixels_and_shares_are_those_of_the_regions(
    size: ImageSize, at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_there, "VALUES_AT_A_TIME", at_a_time)
    logits, axes = random_logits(5), axes_through_square(SIDE, SQUARE, size)
    logits[3] = -1
    boxes = [BOX, (-5.0, -5.0, 900.0, 900.0), (0.0, 0.0, 0.5, 0.5), BOX, (20.0, 10.0, 21.0, 11.0)]
    regions: list[Region | None] = list(regions_from_logits(logits, *axes))
    made = encoded_masks(logits, axes, boxes, size)
    assert [one is None for one in made] == [False, False, False, True, False]
    for region, one, box in zip(regions, made, boxes, strict=True):
        if region is not None and one is not None:
            assert one.mask == run_length_from_region(region.mask, region.left, region.top, size)
            assert one.share_outside == share_outside(region, box)
    shown = [np.zeros((size.height, size.width), np.bool_) if one is None else one.mask.to_array() for one in made]
    assert np.array_equal(np.stack(shown), official(logits, size))
    assert np.array_equal(shown[0], placed(regions[0], size))


@pytest.mark.parametrize("chosen", [SegmentSettings(), SegmentSettings(clean=True), SegmentSettings(min_area=400)])
def test_the_segmenter_gives_the_same_instances(chosen: SegmentSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    network = SamNetwork(random_sam(), CPU, torch.float32)
    images: list[Image] = [random_image(size, seed) for seed, size in enumerate(SIZES[:3])]
    found = [random_detections(image.size, 6, seed) for seed, image in enumerate(images)]
    here = SamSegmenter(network, chosen).segment(images, found)
    monkeypatch.setattr(segmenter, "ENCODES_MASKS", {"cpu"})
    monkeypatch.setattr(segmenter, "regions_from_logits", lambda *_: pytest.fail("masks came back"))
    there = SamSegmenter(network, chosen).segment(images, found)
    assert [(one.instances, one.n_empty_masks) for one in there] == [(one.instances, one.n_empty_masks) for one in here]
    assert sum(len(one.instances) for one in here) >= 9
