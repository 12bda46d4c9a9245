"""Images a second on a GPU: detector, segmenter and both, at several batch sizes, against the card's own limit.

    benchmarks/gpu.sh --prepare && benchmarks/gpu.sh [--output FOLDER]
    python benchmarks/gpu.py --device cpu --tiny

Models of published sizes with random weights: Florence-2-base with ViT-B, Florence-2-large with ViT-H. An image of
1280 x 720 is asked one question, which is answered in 24 tokens, and gets 20 boxes. Random weights make confetti of
masks, so blob-shaped logits take the place of the decoder's, which are computed all the same. The limit is what a large
matrix product in the same dtype allows for the arithmetic of both encoders. Tokens, boxes and masks in float32 are held
against those of the CPU. What doesn't fit into --seconds is left out and named. Each figure is written as it is found.
"""

import argparse
import gzip
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size_florence import TFLOP, as_loaded, full_size_model
from full_size_sam import TFLOP as SAM_TFLOP
from full_size_sam import BlobShaped, boxes_on, full_size_sam
from must_hold import MustHold
from timing import seconds_of, tflops

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS
from grounded_seg.device.choose import resolve_device, resolve_dtype, use_exact_float32
from grounded_seg.geometry.masks import mask_iou
from grounded_seg.records import Image, ImageSize
from grounded_seg.segment import segmenter as segmenter_module
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.settings import Precision

TOKENIZER = Path(__file__).resolve().parents[1] / "tests/data/florence2-tokenizer/tokenizer.json.gz"
PAIRS = {"base-ft + ViT-B": ("base", "vit_b"), "large-ft + ViT-H": ("large", "vit_h")}
TINY_PAIRS = {"tiny + tiny": ("tiny", "tiny")}
"""Sizes of Florence-2 and of Segment Anything."""
RATES = {"large-ft + ViT-H": 20.0}
"""Images a second of the chain that an H100 or H200 has to reach, at the best batch."""
TASK = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
QUESTION = TASK.question("a red car")
N_TOKENS, N_BOXES, SIZE = 24, 20, ImageSize(1280, 720)
N_COMPARED = 2
"""Images whose answers are held against the CPU's."""


def picture(seed: int) -> Image:
    """Smooth random colours with noise on them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 230, (9, 16, 3), dtype=np.uint8)
    pixels = coarse.repeat(SIZE.height // 9, axis=0).repeat(SIZE.width // 16, axis=1)
    return Image(Path(f"{seed}.png"), pixels + rng.integers(0, 25, pixels.shape, dtype=np.uint8))


@dataclass
class Report:
    """The figures so far, in a file after each of them."""

    path: Path | None
    deadline: float
    figures: dict[str, Any] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def add(self, kind: str, row: dict[str, Any]) -> None:
        """Add a row and write everything."""
        self.figures.setdefault(kind, []).append(row)
        print("  ".join(f"{name} {_shown(value)}" for name, value in row.items()), flush=True)
        if self.path:
            everything = {**self.figures, "left_out": self.left_out}
            self.path.write_text(json.dumps(everything, indent=2) + "\n", encoding="utf-8")

    def has_time(self, what: str) -> bool:
        """Tell whether there is time for more; what there is none for is noted."""
        if time.monotonic() < self.deadline:
            return True
        self.left_out.append(what)
        return False


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, eq=False)
class Pair:
    """Both models of one size on the device."""

    detector: FlorenceModel
    sam: SamNetwork
    device: torch.device

    def answers(self, images: list[Image]) -> list[Any]:
        """Ask each image the question."""
        features = self.detector.encode_images(images)
        return self.detector.answer(features, [QUESTION] * len(images), max_new_tokens=N_TOKENS)

    def bins(self, token_ids: tuple[int, ...]) -> dict[int, int]:
        """Read an answer's places: the location bin at each position that has one."""
        bins = {token: bin_ for bin_, token in enumerate(self.detector.vocabulary.location_ids)}
        return {position: bins[token] for position, token in enumerate(token_ids) if token in bins}


def load_pair(florence: str, sam: str, device: torch.device, dtype: torch.dtype, *, compiled: bool = False) -> Pair:
    """Make both models; the same weights each time."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_bytes(gzip.decompress(TOKENIZER.read_bytes()))
        detector = full_size_model(florence, Path(folder))
    as_loaded(detector, device, dtype, compiled=compiled)
    return Pair(detector, SamNetwork(full_size_sam(sam), device, dtype, compiled=compiled), device)


def throughput(pair: Pair, batch: int, repeats: int) -> Iterator[tuple[str, float]]:
    """Measure images a second of detector, segmenter and both."""
    images, found = [picture(seed) for seed in range(batch)], [boxes_on(SIZE, N_BOXES)] * batch
    segmenter = SamSegmenter(BlobShaped(pair.sam, N_BOXES))

    def segment() -> None:
        results = segmenter.segment(images, found)
        if any(len(one.instances) != N_BOXES for one in results):
            raise SystemExit("masks are missing: nothing was measured")

    def chain() -> None:
        if any(len(one.token_ids) != N_TOKENS for one in pair.answers(images)):
            raise SystemExit("answers are too short: nothing was measured")
        segment()

    for name, work in (("detector", lambda: pair.answers(images)), ("segmenter", segment), ("chain", chain)):
        yield name, batch / seconds_of(work, pair.device, repeats)


def encoder_rates(pair: Pair, at_once: tuple[int, ...], repeats: int) -> Iterator[tuple[int, float]]:
    """Measure images a second of Segment Anything's encoder alone, by images in a call."""
    for n in at_once:
        images = [picture(seed) for seed in range(n)]
        with torch.inference_mode():
            yield n, n / seconds_of(lambda images=images: pair.sam.encode(images), pair.device, repeats)


def held_against(pair: Pair, reference: Pair) -> dict[str, Any]:
    """Compare a pair with the CPU's in float32: tokens, edges of boxes, and the masks of one image."""
    images, found = [picture(seed) for seed in range(N_COMPARED)], boxes_on(SIZE, N_BOXES)
    answers, expected = pair.answers(images), reference.answers(images)
    tokens, bins = [], []
    for answer, right in zip(answers, expected, strict=True):
        tokens += [one == other for one, other in zip(answer.token_ids, right.token_ids, strict=True)]
        places, others = pair.bins(answer.token_ids), reference.bins(right.token_ids)
        bins += [abs(places[position] - others[position]) for position in places.keys() & others.keys()]
    [made], [wanted] = (SamSegmenter(one.sam).segment(images[:1], [found]) for one in (pair, reference))
    masks = {one.detection: one.mask for one in made.instances}
    both = [(masks[one.detection], one.mask) for one in wanted.instances if one.detection in masks]
    pixels = [float((one.to_array() == other.to_array()).mean()) for one, other in both if one and other]
    overlaps = [float(mask_iou([one], [other])[0, 0]) for one, other in both if one and other]
    if min(len(bins), len(pixels)) < 10:
        raise SystemExit(f"only {len(bins)} box edges and {len(pixels)} masks could be compared")
    return {
        "equal tokens": f"{sum(tokens)} of {len(tokens)}",
        "share of equal tokens": sum(tokens) / len(tokens),
        "box edges within a bin": f"{sum(bin_ <= 1 for bin_ in bins)} of {len(bins)}",
        "most bins off": max(bins),
        "masks": f"{len(pixels)} of {len(wanted.instances)}",
        "equal pixels": float(np.mean(pixels)),
        "least mask IoU": min(overlaps),
    }


def measure_pair(name: str, options: argparse.Namespace, device: torch.device, report: Report) -> None:
    """Measure one pair of models from its speed to its equality with the CPU."""
    florence, sam = (TINY_PAIRS | PAIRS)[name]
    dtype = resolve_dtype(Precision.AUTO, device)
    limit = tflops(device, dtype)
    report.add("limits", {"pair": name, "dtype": str(dtype), "matrix product TFLOP/s": limit})
    pair = load_pair(florence, sam, device, dtype, compiled=options.compile)
    arithmetic = {"detector": sum(TFLOP[florence]), "segmenter": SAM_TFLOP[sam]}
    arithmetic["chain"] = sum(arithmetic.values())
    for batch in options.batches:
        if not report.has_time(f"{name} at batch {batch}"):
            continue
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for stage, rate in throughput(pair, batch, options.repeats):
            row = {"pair": name, "batch": batch, "stage": stage, "images/s": rate}
            row |= {"share of the limit": rate * arithmetic[stage] / limit, "memory GB": _peak_gb(device)}
            report.add("speed", row)
    for n, rate in encoder_rates(pair, options.encoder_images, options.repeats):
        report.add("encoder", {"pair": name, "images in a call of SAM's encoder": n, "images/s": rate})
    del pair
    if report.has_time(f"{name}: equality with the CPU"):
        reference = load_pair(florence, sam, torch.device("cpu"), torch.float32)
        for kind in dict.fromkeys((torch.float32, dtype)):
            row = held_against(load_pair(florence, sam, device, kind), reference)
            report.add("against the CPU in float32", {"pair": name, "dtype": str(kind), **row})


def held(report: Report, names: list[str], card: str) -> MustHold:
    """Hold the figures against their bounds."""
    holds = MustHold()
    rows = report.figures.get("against the CPU in float32", [])
    for name in names:
        single = next((row for row in rows if (row["pair"], row["dtype"]) == (name, "torch.float32")), {})
        unless = "" if single else "there was no time"
        holds.at_least(f"{name}, equal tokens in float32", single.get("share of equal tokens"), 1, unless=unless)
        holds.at_least(f"{name}, equal pixels in float32", single.get("equal pixels"), 0.9999, unless=unless)
        rates = [
            row["images/s"] for row in report.figures.get("speed", []) if (row["pair"], row["stage"]) == (name, "chain")
        ]
        if name in RATES:
            unless = "" if "H100" in card or "H200" in card else f"this is a {card}, not an H100 or H200"
            holds.at_least(f"{name}, images/s of the chain", max(rates, default=None), RATES[name], unless=unless)
    for name in RATES.keys() - set(names):
        holds.at_least(f"{name}, images/s of the chain", None, RATES[name], unless="of tiny models alone")
    # Random weights are no measure of what fewer bits cost.
    holds.at_least("mask IoU in fewer bits", None, 0.99, unless="half_precision.py --device cuda does, on the demo")
    return holds


def _peak_gb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def main() -> int:
    """Measure and print; 1 if a bound isn't held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tiny", action="store_true", help="tiny models, to try the script out")
    parser.add_argument("--batches", type=int, nargs="+", help="default: 1 16 32; with --tiny 1 2")
    parser.add_argument("--encoder-images", type=int, nargs="+", help="images in a call of SAM's encoder")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=400, help="begin nothing new after this time")
    parser.add_argument("--compile", action="store_true", help="send both image encoders through torch.compile")
    parser.add_argument("--output", type=Path, help="folder for gpu.json; default: $OUT, where that is set")
    options = parser.parse_args()
    options.batches = options.batches or ([1, 2] if options.tiny else [1, 16, 32])
    options.encoder_images = tuple(options.encoder_images or ((1, 2) if options.tiny else (1, 2, 4, 8)))
    device = resolve_device(options.device)
    use_exact_float32(device)
    folder = options.output or (Path(os.environ["OUT"]) if os.environ.get("OUT") else None)
    report = Report(folder / "gpu.json" if folder else None, time.monotonic() + options.seconds)
    names = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    report.add("machine", {"device": names, "torch": torch.__version__, "compiled": options.compile})
    report.add("settings", {"SAM's encoder, images in a call": segmenter_module.ENCODER_IMAGES.get(device.type, 4)})
    pairs = list(TINY_PAIRS if options.tiny else PAIRS)
    for name in pairs:
        measure_pair(name, options, device, report)
    for what in report.left_out:
        print(f"left out for lack of time: {what}")
    return held(report, pairs, names).exit_code()


if __name__ == "__main__":
    sys.exit(main())
