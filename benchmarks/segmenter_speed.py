"""Stage 2 against the usual chain: segment-anything's `SamPredictor` in float32, then pycocotools' encoder.

    python benchmarks/segmenter_speed.py [--size vit_b] [--boxes 20] [--image 1280x720] [--output segmenter_speed.json]

Weights are random (their spread scaled so that no layer fades out), times don't depend on them. Both sides run in this
process, one after the other; the masks of the float32 path are compared with the official ones. Beside each time stands
what a large matrix product of this machine allows. Post-processing is compared on blob-shaped logits put in at the
decoder's output of both sides, because random weights give confetti. Peak memory is measured in processes of its own.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from grounded_seg.masks import mask_from_run_length, run_length_from_region
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.runtime import resolve_device, resolve_dtype
from grounded_seg.segment.sam import SamConfig, build_sam
from grounded_seg.segment.sam_network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.segment.upsampling import regions_from_logits
from grounded_seg.settings import Precision

SIZES = {
    "vit_b": (SamConfig.vit_b, 0.97),
    "vit_l": (SamConfig.vit_l, 2.99),
    "vit_h": (SamConfig.vit_h, 5.96),
    "tiny": (
        lambda: SamConfig(256, 16, 64, 4, 4, (1, 3), 7, 64, 2, 128, 4, 64),
        None,
    ),
}
"""Builder of the sizes, and TFLOP of the encoder for one image."""
POST_SIZE = ImageSize(3840, 2160)
"""Image of the comparison from logits to run lengths."""


def build(name: str) -> Sam:
    """Build the same random weights in every process."""
    torch.manual_seed(0)
    sam = build_sam(SIZES[name][0]())
    with torch.no_grad():
        for key, parameter in sam.named_parameters():
            if "rel_pos" in key or "pos_embed" in key:
                parameter.normal_(std=0.05)
    return sam


def scene(size: ImageSize, n_boxes: int) -> tuple[Image, list[Detection]]:
    """Make a picture and boxes on it; what is on it doesn't matter."""
    rng = np.random.default_rng(1)
    pixels = rng.integers(0, 256, (size.height, size.width, 3), dtype=np.uint8)
    starts = rng.uniform(0, 0.7, (n_boxes, 2))
    edges = np.concatenate([starts, starts + rng.uniform(0.05, 0.3, (n_boxes, 2))], axis=1)
    boxes = (edges * np.tile([size.width, size.height], 2)).tolist()
    return Image(Path("random.png"), pixels), [
        Detection(label="x", prompt="x", box_xyxy=(x0, y0, x1, y1), score=1.0) for x0, y0, x1, y1 in boxes
    ]


def blobs(n: int, side: int) -> torch.Tensor:
    """Logits of round masks of different sizes, (n, side, side)."""
    rng = np.random.default_rng(2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    radii = rng.uniform(0.02, 0.12, n) * side
    centres = rng.uniform(0.15, 0.5, (n, 2)) * side
    return torch.stack(
        [
            (radius - ((rows - y) ** 2 + (columns - x) ** 2).sqrt()).float()
            for radius, (y, x) in zip(radii, centres, strict=True)
        ]
    )


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """Take the best of a few runs after one to warm up, so that a busy machine disturbs least."""
    work()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    return min(times)


def tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure TFLOP/s of a large matrix product."""
    side = 8192 if device.type == "cuda" else 2048
    first, second = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: first @ second, device) / 1e12


def official_embedding(predictor: SamPredictor, image: Image) -> torch.Tensor:
    """Encode as the usual chain does."""
    predictor.set_image(image.pixels)
    return predictor.features


def official_logits(predictor: SamPredictor, image: Image, found: list[Detection]) -> Any:
    """Decode as the usual chain does, up to and without the upsampling."""
    boxes = torch.tensor([one.box_xyxy for one in found], device=predictor.device)
    boxes = predictor.transform.apply_boxes_torch(boxes, (image.height, image.width))
    sparse, dense = predictor.model.prompt_encoder(points=None, boxes=boxes, masks=None)
    return predictor.model.mask_decoder(
        image_embeddings=predictor.features,
        image_pe=predictor.model.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=False,
    )


def official_post(sam: Sam, logits: torch.Tensor, size: ImageSize) -> list[dict[str, Any]]:
    """Upsample, threshold and encode as the usual chain does."""
    side = sam.image_encoder.img_size
    scale = side / max(size.width, size.height)
    frame = (int(size.height * scale + 0.5), int(size.width * scale + 0.5))
    masks = sam.postprocess_masks(logits[:, None], frame, (size.height, size.width)) > sam.mask_threshold
    return [coco_mask.encode(np.asfortranarray(mask[0].cpu().numpy().astype(np.uint8))) for mask in masks]


def our_post(network: SamNetwork, logits: torch.Tensor, size: ImageSize) -> list[bytes]:
    """Upsample, threshold and encode, each mask where it is."""
    return [
        b"" if region is None else run_length_from_region(region.mask, region.left, region.top, size).counts
        for region in regions_from_logits(logits, *network.axes(size))
    ]


def run_official(sam: Sam, image: Image, found: list[Detection]) -> list[np.ndarray]:
    """Run the usual chain from the image to the masks and their encoding."""
    predictor = SamPredictor(sam)
    predictor.set_image(image.pixels)
    boxes = torch.tensor([one.box_xyxy for one in found], device=predictor.device)
    boxes = predictor.transform.apply_boxes_torch(boxes, (image.height, image.width))
    masks, _, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    arrays = [mask[0].cpu().numpy() for mask in masks]
    for array in arrays:
        coco_mask.encode(np.asfortranarray(array.astype(np.uint8)))
    return arrays


def peak_above_model(kind: str, options: argparse.Namespace) -> float:
    """Measure in a process of its own how far memory rises above the loaded model, in MB."""
    command = [sys.executable, __file__, "--peak", kind, "--size", options.size, "--boxes", str(options.boxes)]
    command += ["--post-boxes", str(options.post_boxes)]
    command += ["--image", f"{options.image.width}x{options.image.height}", "--device", "cpu"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.split()[-1])


def print_peak(kind: str, options: argparse.Namespace) -> None:
    """Do one side's work once and print how far memory rose."""
    sam = build(options.size)
    image, found = scene(options.image, options.boxes)
    cpu = torch.device("cpu")
    logits = blobs(options.post_boxes, sam.prompt_encoder.image_embedding_size[0] * 4)
    network = SamNetwork(sam, cpu, torch.float32) if kind.startswith("ours") else None
    # Linux forgets its record of the peak when 5 is written here.
    Path("/proc/self/clear_refs").write_text("5")
    before = memory_mb("VmRSS")
    with torch.inference_mode():
        if kind == "ours" and network:
            SamSegmenter(network).segment([image], [found])
        elif kind == "ours-post" and network:
            our_post(network, logits, POST_SIZE)
        elif kind == "official":
            run_official(sam, image, found)
        else:
            official_post(sam, logits, POST_SIZE)
    print(memory_mb("VmHWM") - before)


def memory_mb(name: str) -> float:
    """Read this process's memory from Linux: VmRSS is what it has now, VmHWM the most it had."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) / 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Time both sides stage by stage."""
    device = resolve_device(options.device)
    fast = resolve_dtype(Precision.AUTO, device)
    image, found = scene(options.image, options.boxes)
    sam = build(options.size).to(device)
    predictor = SamPredictor(sam)
    figures: dict[str, Any] = {
        "size": options.size,
        "boxes": options.boxes,
        "post_boxes": options.post_boxes,
        "image": [image.width, image.height],
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "encoder_tflop": SIZES[options.size][1],
        "tflops": {},
        "official": {},
        "ours": {},
    }
    with torch.inference_mode():
        figures["official"] = {
            "encoder_s": seconds_of(lambda: official_embedding(predictor, image), device),
            "decoder_s": seconds_of(lambda: official_logits(predictor, image, found), device),
        }
        official_masks = run_official(sam, image, found)
        logits = blobs(options.post_boxes, sam.prompt_encoder.image_embedding_size[0] * 4).to(device)
        encoded = official_post(sam, logits, POST_SIZE)
        figures["official"]["post_s"] = seconds_of(lambda: official_post(sam, logits, POST_SIZE), device, repeats=1)
        for dtype in dict.fromkeys((torch.float32, fast)):
            name = str(dtype).removeprefix("torch.")
            figures["tflops"][name] = tflops(device, dtype)
            network = SamNetwork(build(options.size), device, dtype)
            figures["ours"][name] = _measure_ours(network, image, found, logits, device)
            if dtype is torch.float32:
                assert our_post(network, logits, POST_SIZE) == [one["counts"] for one in encoded]
                figures["agreement"] = _agreement(SamSegmenter(network), image, found, official_masks)
    if fast is torch.float32:
        figures["note"] = f"{device} computes bfloat16 and float16 no faster than float32: those lines are left out"
    return figures


def _measure_ours(
    network: SamNetwork, image: Image, found: list[Detection], logits: torch.Tensor, device: torch.device
) -> dict[str, float]:
    [embedding] = network.encode([image])
    frame, size = network.frame(image.size), image.size
    boxes = torch.tensor([one.box_xyxy for one in found]) * torch.tensor(
        [frame.width / size.width, frame.height / size.height] * 2
    )
    # The segmenter's own chunks.
    chunks = torch.split(boxes.to(device), SamSegmenter(network)._boxes_per_chunk)
    return {
        "encoder_s": seconds_of(lambda: network.encode([image]), device),
        "decoder_s": seconds_of(
            lambda: [network.decode(embedding, chunk, multimask=False) for chunk in chunks], device
        ),
        "post_s": seconds_of(lambda: our_post(network, logits, POST_SIZE), device),
    }


def _agreement(segmenter: SamSegmenter, image: Image, found: list[Detection], expected: list[np.ndarray]) -> float:
    """Compute the share of pixels in which both sides agree; an empty mask is one without pixels."""
    [segmented] = segmenter.segment([image], [found])
    made = {one.detection: mask_from_run_length(one.mask) for one in segmented.instances if one.mask is not None}
    empty = np.zeros((image.height, image.width), dtype=np.bool_)
    return float(np.mean([made.get(one, empty) == mask for one, mask in zip(found, expected, strict=True)]))


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"{figures['size']}, {figures['boxes']} boxes on {figures['image']}, {figures['device']}"]
    for dtype, ours in figures["ours"].items():
        limit = figures["tflops"][dtype]
        lines.append(f"{dtype}: a large matrix product reaches {limit:.3f} TFLOP/s")
        for stage in ("encoder_s", "decoder_s", "post_s"):
            usual = figures["official"][stage]
            least = figures["encoder_tflop"] and figures["encoder_tflop"] / limit if stage == "encoder_s" else None
            at_least = f"   arithmetic limit {least:.2f} s" if least else ""
            ratio = usual / ours[stage]
            lines.append(
                f"  {stage[:-2]:8} usual {usual:8.3f} s   ours {ours[stage]:8.3f} s   {ratio:5.1f} x{at_least}"
            )
    lines.append(f"masks agree with the official ones in {figures['agreement']:.4%} of the pixels (float32)")
    for name, (usual, ours) in figures.get("peak_mb", {}).items():
        lines.append(f"peak memory, {name}: usual {usual:.0f} MB, ours {ours:.0f} MB, {ours / max(usual, 1):.2f} of it")
    return "\n".join([*lines, *([figures["note"]] if "note" in figures else [])])


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", choices=SIZES, default="vit_b")
    options.add_argument("--boxes", type=int, default=20)
    options.add_argument("--post-boxes", type=int, default=100, help="masks from logits to run lengths, 3840 x 2160")
    options.add_argument("--image", default="1280x720", help="width x height in pixels")
    options.add_argument("--device", default="cpu")
    options.add_argument(
        "--no-peak", action="store_true", help="leave the memory out, which loads the model four times"
    )
    options.add_argument("--peak", choices=["ours", "official", "ours-post", "official-post"], help=argparse.SUPPRESS)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    chosen.image = ImageSize(*map(int, chosen.image.split("x")))
    if chosen.peak:
        print_peak(chosen.peak, chosen)
        return
    figures = measure(chosen)
    if not chosen.no_peak:
        figures["peak_mb"] = {
            name: [peak_above_model(kind, chosen) for kind in (f"official{suffix}", f"ours{suffix}")]
            for name, suffix in (("whole stage", ""), ("logits to run lengths", "-post"))
        }
    print(table(figures))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
