"""Stage 2 against the usual chain: segment-anything's `SamPredictor` in float32, then pycocotools' encoder.

    python benchmarks/segmenter_speed.py [--size vit_b] [--boxes 20] [--image 1280x720] [--images 1] [--output FILE]

Weights are random (their spread scaled so that no layer fades out), times don't depend on them. Both sides run in this
process, one after the other: once to warm up, then the median of three. Masks and scores of the float32 path are held
against the official ones. The encoder's time is that of one image, ours of as many at a time as --images says: the
segmenter gives it one on a CPU, and up to four on a GPU. Beside the times of the networks stands what a large matrix
product of this machine allows. Post-processing is compared on blob-shaped logits put in at the decoder's output of
both sides, because random weights give confetti. Peak memory is measured in processes of its own, also with many boxes
on one image.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size_sam import CONFIGS, TFLOP, blobs, full_size_sam, scene
from must_hold import MustHold
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from timing import seconds_of, tflops
from torch.utils.flop_counter import FlopCounterMode

from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.geometry.masks import mask_from_run_length, run_length_from_region
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.segment.resize import regions_from_logits
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.settings import Precision

POST_SIZE = ImageSize(3840, 2160)
"""Image of the comparison from logits to run lengths."""


def tflop_of(work: Callable[[], Any]) -> float:
    """Count the arithmetic of matrix products and convolutions, in TFLOP."""
    counter = FlopCounterMode(display=False)
    with counter:
        work()
    return counter.get_total_flops() / 1e12


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


def run_official(sam: Sam, image: Image, found: list[Detection]) -> tuple[list[np.ndarray], list[float]]:
    """Run the usual chain from the image to the masks and their encoding; give masks and scores."""
    predictor = SamPredictor(sam)
    predictor.set_image(image.pixels)
    boxes = torch.tensor([one.box_xyxy for one in found], device=predictor.device)
    boxes = predictor.transform.apply_boxes_torch(boxes, (image.height, image.width))
    masks, scores, _ = predictor.predict_torch(None, None, boxes=boxes, multimask_output=False)
    arrays = [mask[0].cpu().numpy() for mask in masks]
    for array in arrays:
        coco_mask.encode(np.asfortranarray(array.astype(np.uint8)))
    return arrays, scores[:, 0].tolist()


def peak_above_model(kind: str, n_boxes: int, options: argparse.Namespace) -> float:
    """Measure in a process of its own how far memory rises above the loaded model, in MB."""
    command = [sys.executable, __file__, "--peak", kind, "--size", options.size, "--boxes", str(n_boxes)]
    command += ["--post-boxes", str(options.post_boxes)]
    command += ["--image", f"{options.image.width}x{options.image.height}", "--device", "cpu"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.split()[-1])


def print_peak(kind: str, options: argparse.Namespace) -> None:
    """Do one side's work once and print how far memory rose."""
    sam = full_size_sam(options.size)
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
    sam = full_size_sam(options.size).to(device)
    predictor = SamPredictor(sam)
    figures: dict[str, Any] = {
        "size": options.size,
        "boxes": options.boxes,
        "post_boxes": options.post_boxes,
        "image": [image.width, image.height],
        "images_at_once": options.images,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "tflop": {"encoder_s": TFLOP[options.size]},
        "tflops": {},
        "official": {},
        "ours": {},
    }
    with torch.inference_mode():
        figures["official"] = {
            "encoder_s": seconds_of(lambda: official_embedding(predictor, image), device),
            "decoder_s": seconds_of(lambda: official_logits(predictor, image, found), device),
        }
        expected = run_official(sam, image, found)
        logits = blobs(options.post_boxes, sam.prompt_encoder.image_embedding_size[0] * 4).to(device)
        encoded = official_post(sam, logits, POST_SIZE)
        figures["official"]["post_s"] = seconds_of(lambda: official_post(sam, logits, POST_SIZE), device)
        for dtype in dict.fromkeys((torch.float32, fast)):
            name = str(dtype).removeprefix("torch.")
            figures["tflops"][name] = tflops(device, dtype)
            network = SamNetwork(full_size_sam(options.size), device, dtype)
            figures["ours"][name], figures["tflop"]["decoder_s"] = _measure_ours(
                network, [image] * options.images, found, logits, device
            )
            if dtype is torch.float32:
                ours = our_post(network, logits, POST_SIZE)
                figures["equal_run_lengths"] = sum(
                    one == other["counts"] for one, other in zip(ours, encoded, strict=True)
                )
                figures["agreement"] = _agreement(SamSegmenter(network), image, found, *expected)
    if fast is torch.float32:
        figures["note"] = f"{device} computes bfloat16 and float16 no faster than float32: those lines are left out"
    return figures


def _measure_ours(
    network: SamNetwork, images: list[Image], found: list[Detection], logits: torch.Tensor, device: torch.device
) -> tuple[dict[str, float], float]:
    """Give the seconds of each stage for one image, and the arithmetic of the decoder in TFLOP."""
    image = images[0]
    [embedding] = network.encode([image])
    frame, size = network.frame(image.size), image.size
    boxes = torch.tensor([one.box_xyxy for one in found]) * torch.tensor(
        [frame.width / size.width, frame.height / size.height] * 2
    )
    # The segmenter's own chunks.
    chunks = torch.split(boxes.to(device), SamSegmenter(network)._boxes_per_chunk)

    def decode() -> list[Any]:
        return [network.decode(embedding, chunk, multimask=False) for chunk in chunks]

    seconds = {
        "encoder_s": seconds_of(lambda: network.encode(images), device) / len(images),
        "decoder_s": seconds_of(decode, device),
        "post_s": seconds_of(lambda: our_post(network, logits, POST_SIZE), device),
    }
    return seconds, tflop_of(decode)


def _agreement(
    segmenter: SamSegmenter, image: Image, found: list[Detection], masks: list[np.ndarray], scores: list[float]
) -> dict[str, float]:
    """Compare with the official masks and scores; an empty mask is one without pixels."""
    [segmented] = segmenter.segment([image], [found])
    made = {one.detection: one for one in segmented.instances}
    shares, differences = [], []
    for detection, mask, score in zip(found, masks, scores, strict=True):
        one = made.get(detection)
        ours = np.zeros_like(mask) if one is None or one.mask is None else mask_from_run_length(one.mask)
        shares.append(float(np.mean(ours == mask)))
        if one is not None and one.mask_score is not None:
            differences.append(abs(one.mask_score - min(max(score, 0), 1)))
    return {"pixels": statistics.mean(shares), "least_of_a_mask": min(shares), "score_difference": max(differences)}


def table(figures: dict[str, Any]) -> str:
    """Lay the figures out for people."""
    lines = [f"{figures['size']}, {figures['boxes']} boxes on {figures['image']}, {figures['device']}"]
    for dtype, ours in figures["ours"].items():
        limit = figures["tflops"][dtype]
        lines.append(f"{dtype}: a large matrix product reaches {limit:.3f} TFLOP/s")
        for stage in ("encoder_s", "decoder_s", "post_s"):
            usual = figures["official"][stage]
            tflop = figures["tflop"].get(stage)
            at_least = f"   {tflop:.3f} TFLOP, at least {tflop / limit:.3f} s" if tflop else ""
            ratio = usual / ours[stage]
            lines.append(
                f"  {stage[:-2]:8} usual {usual:8.3f} s   ours {ours[stage]:8.3f} s   {ratio:5.1f} x{at_least}"
            )
        usual_rate, our_rate = (1 / (some["encoder_s"] + some["decoder_s"]) for some in (figures["official"], ours))
        lines.append(
            f"  encoder and decoder: usual {usual_rate:.2f} images/s, ours {our_rate:.2f} images/s, "
            f"{figures['images_at_once']} at a time in the encoder"
        )
    agreement = figures["agreement"]
    lines.append(
        f"float32 masks agree with the official ones in {agreement['pixels']:.4%} of the pixels, in each at least in "
        f"{agreement['least_of_a_mask']:.4%}; scores to {agreement['score_difference']:.1e}"
    )
    lines.append(f"run lengths are equal for {figures['equal_run_lengths']} of {figures['post_boxes']} blobs")
    for name, (usual, ours) in figures.get("peak_mb", {}).items():
        lines.append(f"peak memory, {name}: usual {usual:.0f} MB, ours {ours:.0f} MB, {ours / max(usual, 1):.2f} of it")
    for n_boxes, ours in figures.get("peak_mb_by_boxes", {}).items():
        lines.append(f"peak memory of the whole stage, {n_boxes} boxes: ours {ours:.0f} MB")
    return "\n".join([*lines, *([figures["note"]] if "note" in figures else [])])


def main() -> int:
    """Measure and print; 1 if the results aren't the official ones."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--size", choices=CONFIGS, default="vit_b")
    options.add_argument("--boxes", type=int, default=20)
    options.add_argument("--post-boxes", type=int, default=100, help="masks from logits to run lengths, 3840 x 2160")
    options.add_argument("--image", default="1280x720", help="width x height in pixels")
    options.add_argument("--images", type=int, default=1, help="images that our encoder is given at a time")
    options.add_argument("--device", default="cpu")
    options.add_argument(
        "--many-boxes", type=int, default=1000, help="on one image, for ours alone: is memory bounded?"
    )
    options.add_argument(
        "--no-peak", action="store_true", help="leave the memory out, which loads the model five times"
    )
    options.add_argument("--peak", choices=["ours", "official", "ours-post", "official-post"], help=argparse.SUPPRESS)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    chosen.image = ImageSize(*map(int, chosen.image.split("x")))
    if chosen.peak:
        print_peak(chosen.peak, chosen)
        return 0
    figures = measure(chosen)
    if not chosen.no_peak:
        figures["peak_mb"] = {
            name: [peak_above_model(kind, chosen.boxes, chosen) for kind in (f"official{suffix}", f"ours{suffix}")]
            for name, suffix in (("whole stage", ""), ("logits to run lengths", "-post"))
        }
        figures["peak_mb_by_boxes"] = {
            str(chosen.boxes): figures["peak_mb"]["whole stage"][1],
            str(chosen.many_boxes): peak_above_model("ours", chosen.many_boxes, chosen),
        }
    print(table(figures))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    holds = MustHold()
    holds.at_least("share of the official masks' pixels, in float32", figures["agreement"]["pixels"], 0.9999)
    holds.at_least("equal run lengths of blobs", figures["equal_run_lengths"], figures["post_boxes"])
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
