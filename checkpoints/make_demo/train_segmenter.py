"""Train the demo's segmenter, a small `Sam`, on rendered scenes: a jittered box in, the visible mask out.

    python checkpoints/make_demo/train_segmenter.py --patch 16 --minutes 20 --output .cache/demo-training/coarse
    python checkpoints/make_demo/train_segmenter.py --coarse .cache/demo-training/coarse --minutes 40

Patches of 16 px learn what belongs to an object four times sooner than those of 8 px; these then only have to learn
where it ends. As in Segment Anything (arXiv 2304.02643, appendix A), dice on the mask and squared error on the
predicted IoU, and of the three masks of an ambiguous box only the best one learns. Instead of its focal loss a cross-
entropy per pixel of the object: the focal loss starts out on a long plateau of empty masks. The learning rate follows
the clock.
"""

import argparse
import json
import math
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random

import cv2
import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from parallel import N_PROCESSES, average_gradients, shared_clock, start
from pool import STATE
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import nn

from grounded_seg.scenes import Split, render_scene
from grounded_seg.segment.sam.build import SamConfig, build_sam, load_sam, save_sam

SIDE = 256
CONFIG = SamConfig(
    image_size=SIDE,
    patch_size=8,
    encoder_embed_dim=128,
    encoder_depth=4,
    encoder_num_heads=4,
    encoder_global_attn_indexes=(1, 3),
    window_size=8,
    prompt_embed_dim=128,
    decoder_depth=2,
    decoder_num_heads=4,
    decoder_mlp_dim=256,
    iou_head_hidden_dim=128,
)
BATCH, MAX_BOXES = 8, 6
PEAK_RATE = 1e-3
FINER_RATE = 5e-4
"""Peak rate when going on from coarser patches."""
CHUNK = 250
FIRST_SCENE = 1_000_000
"""The segmenter's scenes are other ones than the detector's."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Scenes as the segmenter sees them: the longer side at SIDE, padded right and below."""

    pixels: np.ndarray
    """(n, SIDE, SIDE, 3) uint8."""
    owner: np.ndarray
    """(n, SIDE, SIDE) uint8: 0 for ground, else 1 + the index of the object on top."""
    size_hw: np.ndarray
    """(n, 2), the part that isn't padding."""


def render_chunk(index: int) -> Path:
    """Render one chunk of the segmenter's scenes, unless it is there already."""
    path = STATE / "segmenter-pool" / f"{index:05d}.npz"
    if path.exists():
        return path
    cv2.setNumThreads(1)
    pixels = np.zeros((CHUNK, SIDE, SIDE, 3), np.uint8)
    owner = np.zeros((CHUNK, SIDE, SIDE), np.uint8)
    sizes = []
    resize = ResizeLongestSide(SIDE)
    for i in range(CHUNK):
        scene = render_scene(Split.TRAIN, FIRST_SCENE + index * CHUNK + i, short_side=208)
        small = resize.apply_image(scene.pixels)
        h, w = small.shape[:2]
        pixels[i, :h, :w] = small
        for number, o in enumerate(scene.objects, 1):
            owner[i, :h, :w][cv2.resize(o.mask.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0.5] = number
        sizes.append((h, w))
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, pixels=pixels, owner=owner, size_hw=np.array(sizes))
    part.rename(path)
    return path


def boxes_and_masks(owner: np.ndarray, rng: Random) -> tuple[torch.Tensor, torch.Tensor]:
    """Some objects' boxes, (k, 4) and jittered as a detector's are, and their masks, (k, SIDE, SIDE)."""
    numbers = [int(n) for n in np.unique(owner) if n]
    rng.shuffle(numbers)
    boxes, masks = [], []
    for number in numbers[:MAX_BOXES]:
        mask = owner == number
        ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        x0, y0, x1, y1 = xs[0], ys[0], xs[-1] + 1, ys[-1] + 1
        spread = 0.02 if rng.random() < 0.5 else 0.07
        jitter = [1 + spread * rng.gauss(0, 1) for _ in range(4)]
        w, h = x1 - x0, y1 - y0
        boxes.append(
            [x0 + w * (jitter[0] - 1), y0 + h * (jitter[1] - 1), x1 + w * (jitter[2] - 1), y1 + h * (jitter[3] - 1)]
        )
        masks.append(mask)
    return torch.tensor(boxes, dtype=torch.float32), torch.from_numpy(np.stack(masks))


def mask_losses(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per pixel of the true area, and dice, of each mask: (k, m) for logits (k, m, h, w)."""
    truth = truth.expand_as(logits)
    plain = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").sum((2, 3))
    share = logits.sigmoid()
    dice = 1 - (2 * (share * truth).sum((2, 3)) + 1) / (share.sum((2, 3)) + truth.sum((2, 3)) + 1)
    return plain / truth.sum((2, 3)).clamp(min=8) + dice


def image_loss(
    sam: Sam, embedding: torch.Tensor, boxes: torch.Tensor, masks: torch.Tensor, size_hw: tuple[int, int]
) -> tuple[torch.Tensor, float]:
    """Loss over one image's boxes, and the mean IoU of its single masks."""
    sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
    low, iou = sam.mask_decoder.predict_masks(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
    )
    scale = SIDE // low.shape[-1]
    h, w = (math.ceil(side / scale) for side in size_hw)
    low = low[..., :h, :w]
    truth = F.avg_pool2d(masks[:, None].float(), scale)[..., :h, :w]
    losses = mask_losses(low, truth)
    with torch.no_grad():
        inside, wanted = low > 0, truth > 0.5
        actual = (inside & wanted).sum((2, 3)) / (inside | wanted).sum((2, 3)).clamp(min=1)
    loss = losses[:, 0].mean() + 0.5 * losses[:, 1:].min(1).values.mean() + F.mse_loss(iou, actual)
    return loss, actual[:, 0].mean().item()


def halve_patches(coarse: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights for patches of half the side; they see at first what the coarse ones see in a picture twice as large."""
    finer = dict(coarse)
    finer["image_encoder.patch_embed.proj.weight"] = 4 * F.avg_pool2d(
        coarse["image_encoder.patch_embed.proj.weight"], 2
    )
    places = coarse["image_encoder.pos_embed"].permute(0, 3, 1, 2)
    finer["image_encoder.pos_embed"] = F.interpolate(places, scale_factor=2, mode="bilinear").permute(0, 2, 3, 1)
    for index in CONFIG.encoder_global_attn_indexes:
        for axis in "hw":
            name = f"image_encoder.blocks.{index}.attn.rel_pos_{axis}"
            distances = coarse[name].T[None]
            finer[name] = F.interpolate(distances, size=2 * distances.shape[-1] + 1, mode="linear")[0].T
    return finer


def rate_at(step: int, progress: float, peak: float) -> float:
    """Warm-up by steps, then a cosine by the clock."""
    return peak * min(1.0, (step + 1) / 100) * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def batch_loss(sam: Sam, chunk: Pictures, rows: list[int], rng: Random) -> tuple[torch.Tensor, float]:
    """Mean loss over some images of a chunk, and the mean IoU of their single masks."""
    sizes_hw = [(int(h), int(w)) for h, w in chunk.size_hw[rows]]
    pixels = torch.from_numpy(chunk.pixels[rows]).permute(0, 3, 1, 2).float()
    inputs = torch.zeros_like(pixels)
    for i, (h, w) in enumerate(sizes_hw):
        inputs[i, :, :h, :w] = (pixels[i, :, :h, :w] - sam.pixel_mean) / sam.pixel_std
    embeddings = sam.image_encoder(inputs)
    each = [
        image_loss(sam, embedding, *boxes_and_masks(owner, rng), size_hw)
        for embedding, owner, size_hw in zip(embeddings, chunk.owner[rows], sizes_hw, strict=True)
    ]
    return torch.stack([loss for loss, _ in each]).mean(), float(np.mean([iou for _, iou in each]))


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    minutes: float
    scenes: int
    patch: int
    coarse: Path | None
    output: Path


def work(rank: int, plan: Plan) -> None:
    """One process: its share of each batch, on one core."""
    torch.manual_seed(0)
    pool = [Pictures(**np.load(render_chunk(index))) for index in range(plan.scenes // CHUNK)]
    config, peak = replace(CONFIG, patch_size=plan.patch), PEAK_RATE
    sam = build_sam(config).train()
    nn.init.trunc_normal_(sam.image_encoder.pos_embed, std=0.02)
    if plan.coarse:
        sam.load_state_dict(halve_patches(load_sam(plan.coarse).float().state_dict()))
        peak = FINER_RATE
    parameters = list(sam.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=0.02, betas=(0.9, 0.98))
    rng, started, step, mean_loss, mean_iou = Random(rank), time.time(), 0, 0.0, 0.0
    while (progress := shared_clock(started) / plan.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, progress, peak)
        loss, iou = batch_loss(sam, rng.choice(pool), rng.sample(range(CHUNK), BATCH // N_PROCESSES), rng)
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        keep = min(0.98, step / (step + 5))
        mean_loss, mean_iou = keep * mean_loss + (1 - keep) * loss.item(), keep * mean_iou + (1 - keep) * iou
        if rank == 0 and step % 50 == 0:
            values = {"progress": round(progress, 3), "loss": round(mean_loss, 3), "iou": round(mean_iou, 3)}
            print(json.dumps({"step": step, **values}), flush=True)
    if rank == 0:
        save_sam(sam.half(), config, plan.output)


def main() -> None:
    """Render what is missing, train for the given time and write the segmenter's folder."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=25)
    options.add_argument("--scenes", type=int, default=6000)
    options.add_argument("--patch", type=int, default=CONFIG.patch_size, help="side of a patch, in pixels")
    options.add_argument("--coarse", type=Path, help="a segmenter with patches of twice the side, to go on from")
    options.add_argument("--output", type=Path, default=STATE / "segmenter")
    plan = Plan(**vars(options.parse_args()))
    with ProcessPoolExecutor(N_PROCESSES) as workers:
        list(workers.map(render_chunk, range(plan.scenes // CHUNK)))
    start(work, plan)


if __name__ == "__main__":
    main()
