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
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from full_size_florence import TFLOP, as_loaded, full_size_model
from timing import seconds_of, tflops

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS
from grounded_seg.device.choose import compile_encoder, resolve_device, resolve_dtype, use_exact_float32
from grounded_seg.geometry.masks import mask_iou
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.segment import segmenter as segmenter_module
from grounded_seg.segment.sam.build import SamConfig, build_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.settings import Precision

TOKENIZER = Path(__file__).resolve().parents[1] / "tests/data/florence2-tokenizer/tokenizer.json.gz"
TINY_SAM = SamConfig(
    image_size=256,
    encoder_embed_dim=64,
    encoder_depth=4,
    encoder_num_heads=4,
    encoder_global_attn_indexes=(1, 3),
    window_size=7,
    prompt_embed_dim=64,
    decoder_mlp_dim=128,
    decoder_num_heads=4,
    iou_head_hidden_dim=64,
)
PAIRS = {
    "base-ft + ViT-B": ("base", SamConfig.vit_b, 0.97),
    "large-ft + ViT-H": ("large", SamConfig.vit_h, 5.96),
}
TINY_PAIRS = {"tiny + tiny": ("tiny", lambda: TINY_SAM, 0.001)}
"""Florence-2's size, Segment Anything's, and TFLOP of the latter's encoder for one image."""
TASK = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
QUESTION = TASK.question("a red car")
N_TOKENS, N_BOXES, SIZE = 24, 20, ImageSize(1280, 720)
N_COMPARED = 2
"""Images whose answers are held against the CPU's."""


class BlobNetwork:
    """A network that computes its logits and gives round masks instead."""

    def __init__(self, network: SamNetwork) -> None:
        """Wrap a network of random weights."""
        self._network = network
        self._blobs: torch.Tensor | None = None

    def __getattr__(self, name: str) -> Any:
        """Give everything else as it is."""
        return getattr(self._network, name)

    def decode(self, embedding: Any, boxes_xyxy: torch.Tensor, *, multimask: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Decode as the network does; the logits have the sizes of things that people label."""
        logits, ious = self._network.decode(embedding, boxes_xyxy, multimask=multimask)
        if self._blobs is None or len(self._blobs) < len(logits):
            self._blobs = blobs(max(N_BOXES, len(logits)), logits.shape[-1]).to(logits.device)
        return self._blobs[: len(logits), None].expand_as(logits), ious


def blobs(n: int, side: int) -> torch.Tensor:
    """Logits of round masks of different sizes, (n, side, side)."""
    rng = np.random.default_rng(2)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    radii, centres = rng.uniform(0.02, 0.12, n) * side, rng.uniform(0.15, 0.5, (n, 2)) * side
    distances = [((rows - y) ** 2 + (columns - x) ** 2).sqrt() for y, x in centres]
    return torch.stack([(radius - one).float() for radius, one in zip(radii, distances, strict=True)])


def picture(seed: int) -> Image:
    """Smooth random colours with noise on them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 230, (9, 16, 3), dtype=np.uint8)
    pixels = coarse.repeat(SIZE.height // 9, axis=0).repeat(SIZE.width // 16, axis=1)
    return Image(Path(f"{seed}.png"), pixels + rng.integers(0, 25, pixels.shape, dtype=np.uint8))


def boxes_on(size: ImageSize) -> list[Detection]:
    """Give N_BOXES boxes of many sizes."""
    rng = np.random.default_rng(1)
    starts = rng.uniform(0, 0.7, (N_BOXES, 2))
    edges = np.concatenate([starts, starts + rng.uniform(0.05, 0.3, (N_BOXES, 2))], axis=1)
    rows = (edges * np.tile([size.width, size.height], 2)).tolist()
    return [Detection("x", "x", (x0, y0, x1, y1), 1.0) for x0, y0, x1, y1 in rows]


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


def load_pair(florence: str, sam: Callable[[], SamConfig], device: torch.device, dtype: torch.dtype) -> Pair:
    """Make both models; the same weights each time."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_bytes(gzip.decompress(TOKENIZER.read_bytes()))
        detector = full_size_model(florence, Path(folder))
    torch.manual_seed(0)
    network = build_sam(sam())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:
                parameter.normal_(std=0.05)
    as_loaded(detector, device, dtype)
    return Pair(detector, SamNetwork(network, device, dtype), device)


def throughput(pair: Pair, batch: int, repeats: int) -> Iterator[tuple[str, float]]:
    """Measure images a second of detector, segmenter and both."""
    images, found = [picture(seed) for seed in range(batch)], [boxes_on(SIZE)] * batch
    segmenter = SamSegmenter(BlobNetwork(pair.sam))

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
    images, found = [picture(seed) for seed in range(N_COMPARED)], boxes_on(SIZE)
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
        "box edges within a bin": f"{sum(bin_ <= 1 for bin_ in bins)} of {len(bins)}",
        "most bins off": max(bins),
        "masks": f"{len(pixels)} of {len(wanted.instances)}",
        "equal pixels": float(np.mean(pixels)),
        "least mask IoU": min(overlaps),
    }


def measure_pair(name: str, options: argparse.Namespace, device: torch.device, report: Report) -> None:
    """Measure one pair of models from its speed to its equality with the CPU."""
    florence, sam, sam_tflop = (TINY_PAIRS | PAIRS)[name]
    dtype = resolve_dtype(Precision.AUTO, device)
    limit = tflops(device, dtype)
    report.add("limits", {"pair": name, "dtype": str(dtype), "matrix product TFLOP/s": limit})
    pair = load_pair(florence, sam, device, dtype)
    if options.compile:
        compile_encoder(pair.detector.network.model.vision_tower)
        compile_encoder(pair.sam._sam.image_encoder)
    arithmetic = {"detector": sum(TFLOP[florence]), "segmenter": sam_tflop}
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


def _peak_gb(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None


def main() -> None:
    """Measure and print."""
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
    for name in TINY_PAIRS if options.tiny else PAIRS:
        measure_pair(name, options, device, report)
    for what in report.left_out:
        print(f"left out for lack of time: {what}")


if __name__ == "__main__":
    main()
