"""Parity with segment-anything's own `SamPredictor` on real sizes: full-size ViT-B, and the demo's weights."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from paths import DEMO
from segment_anything.modeling import Sam
from tiny_sam import CPU, detection, official_masks, random_detections, random_image

from grounded_seg.device.kernels import AttentionKernel, choose_kernels
from grounded_seg.geometry.masks import mask_from_run_length, mask_iou, run_length_from_mask
from grounded_seg.records import Detection, Image, ImageResult, ImageSize, RunLength
from grounded_seg.scenes import Scene, Split, render_scene
from grounded_seg.segment.sam.build import SamConfig, build_sam, load_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter

DEMO = DEMO / "segmenter"


def compare_with_official(
    segmented: ImageResult, found: list[Detection], image: Image, sam: Sam
) -> npt.NDArray[np.bool_]:
    """Hold masks and scores against the official ones, which are returned."""
    masks, scores = official_masks(sam, image, found)
    made = {one.detection: one for one in segmented.instances}
    for one, mask, score in zip(found, masks[:, 0], scores[:, 0], strict=True):
        instance = made.get(one)
        if instance is None or instance.mask is None:
            assert mask.mean() <= 1e-4
            continue
        assert np.mean(mask_from_run_length(instance.mask) == mask) >= 0.9999
        assert instance.mask_score == pytest.approx(min(max(float(score), 0), 1), abs=1e-3)
    return masks[:, 0]


def random_vit_b() -> Sam:
    """Build a full-size model whose relative positions and position embedding, zeros at first, matter."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        sam = build_sam(SamConfig.vit_b())
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.05)
    return sam


@pytest.fixture(scope="module")
def vit_b() -> tuple[SamSegmenter, Sam]:
    """Ours and the official one, of equal weights."""
    return SamSegmenter(SamNetwork(random_vit_b(), CPU, torch.float32)), random_vit_b()


@pytest.mark.slow
@pytest.mark.parametrize("size", [ImageSize(320, 213), ImageSize(213, 320)], ids=["landscape", "portrait"])
def test_full_size_vit_b_gives_the_official_masks(size: ImageSize, vit_b: tuple[SamSegmenter, Sam]) -> None:
    image, found = random_image(size), random_detections(size, 3)
    segmenter, official = vit_b
    [segmented] = segmenter.segment([image], [found])
    masks = compare_with_official(segmented, found, image, official)
    assert 0.02 < masks.mean() < 0.98, "such masks say nothing"


def turned(scene: Scene, *, portrait: bool) -> tuple[Image, list[Detection], list[RunLength]]:
    """Give a scene with the boxes and masks of its objects, lying or standing."""
    pixels, boxes = scene.pixels, [one.box_xyxy for one in scene.objects]
    masks = [one.mask for one in scene.objects]
    if (scene.size.height > scene.size.width) is not portrait:
        pixels = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        boxes = [(y0, x0, y1, x1) for x0, y0, x1, y1 in boxes]
        masks = [mask.T for mask in masks]
    image = Image(Path("scene.png"), pixels)
    return image, [detection(box) for box in boxes], [run_length_from_mask(mask) for mask in masks]


def scenes(n: int) -> list[Scene]:
    return [render_scene(Split.VALID, index, short_side=240) for index in range(n)]


@pytest.mark.parametrize("portrait", [False, True], ids=["landscape", "portrait"])
def test_the_demo_gives_the_official_masks(portrait: bool) -> None:
    segmenter = SamSegmenter(SamNetwork(load_sam(DEMO).float(), CPU, torch.float32))
    official = load_sam(DEMO).float()
    for scene in scenes(6):
        image, found, _ = turned(scene, portrait=portrait)
        [segmented] = segmenter.segment([image], [found])
        compare_with_official(segmented, found, image, official)


@pytest.mark.parametrize("attention", AttentionKernel)
def test_bfloat16_hardly_changes_the_masks_of_the_demo(attention: AttentionKernel) -> None:
    kernels = replace(choose_kernels(CPU, torch.bfloat16), attention=attention)
    single = SamSegmenter(SamNetwork(load_sam(DEMO), CPU, torch.float32))
    half = SamSegmenter(SamNetwork(load_sam(DEMO), CPU, torch.bfloat16, kernels=kernels))
    overlaps: list[float] = []
    for scene in scenes(8):
        image, found, truth = turned(scene, portrait=False)
        [expected], [made] = single.segment([image], [found]), half.segment([image], [found])
        mask_of = {one.detection: one.mask for one in expected.instances}
        twin_of = {one.detection: one.mask for one in made.instances}
        for one, true_mask in zip(found, truth, strict=True):
            mask, twin = mask_of.get(one), twin_of.get(one)
            # A mask that is no good in float32 either hangs on a few pixels.
            if mask is not None and mask_iou([mask], [true_mask])[0, 0] >= 0.5:
                overlaps.append(0.0 if twin is None else float(mask_iou([mask], [twin])[0, 0]))
    assert len(overlaps) >= 20
    assert np.mean(overlaps) >= 0.99
