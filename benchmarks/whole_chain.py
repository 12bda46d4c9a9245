"""The whole chain beside the usual one, full size: one question and 20 boxes on one image of 1280 x 720.

    python benchmarks/whole_chain.py --tokenizer FOLDER [--dtype float32] [--photo FILE] [--profile] [--output FILE]

The usual chain is transformers' processor, `generate` with 3 beams and post-processing, then segment-anything's
`SamPredictor` in float32, then pycocotools. Ours is asked as `grounded-seg run` asks it, in `--dtype`. Both have the
same random weights and take turns in this process, with a large matrix product between them: the limit is what the
arithmetic takes at its rate, in our dtype. glibc's allocator is set as a run sets it for ours, and back to what it
comes to by itself for the usual chain.

What is compared, in float32 and before anything is timed: tokens and boxes of some questions with 3 beams, greedy
tokens against `generate`, masks of the boxes as the networks give them. Fewer than 10 boxes or masks are a failure. Two
things are made, because the weights are random: words are scaled down, so that answers are locations and hold boxes;
and where it comes to seconds, the decoders' logits are replaced, after they were computed, by round masks within the
boxes, the same on both sides, as random ones are confetti. Both segmenters get the same 20 boxes: an answer of 24
tokens holds six at most.
"""

import argparse
import copy
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import detector_speed
import numpy as np
import torch
from full_size_florence import SIZES, TFLOP, as_loaded, full_size_model
from full_size_sam import TFLOP as SAM_TFLOP
from full_size_sam import full_size_sam, scene
from must_hold import MustHold, no_bfloat16, not_full_size, not_in
from pycocotools import mask as coco_mask
from segment_anything import SamPredictor
from segmenter_speed import run_official, tflop_of
from timing import tflops

import grounded_seg.detect.detector as detector_module
from grounded_seg.detect.detector import FlorenceDetector
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS
from grounded_seg.device.allocator import (
    GROWTH_BYTES,
    KEPT_BYTES,
    M_MMAP_MAX,
    M_TOP_PAD,
    M_TRIM_THRESHOLD,
    OWN_CHOICE,
    mallopt,
)
from grounded_seg.device.choose import dtype_named, n_threads
from grounded_seg.device.kernels import choose_kernels
from grounded_seg.geometry.masks import coco_from_run_length, mask_from_run_length, mask_iou
from grounded_seg.images.read import read_image
from grounded_seg.records import Detection, Image, ImageResult, ImageSize
from grounded_seg.scenes import Split, render_scene
from grounded_seg.segment.sam.build import load_sam
from grounded_seg.segment.sam.network import SamNetwork
from grounded_seg.segment.segmenter import SamSegmenter
from grounded_seg.settings import DetectSettings, SegmentSettings, SuppressionScope

CPU = torch.device("cpu")
M_MMAP_THRESHOLD = -3
"""glibc's, as those of `device.allocator`."""
DEMO = Path(__file__).resolve().parents[1] / "checkpoints" / "demo" / "segmenter"
LEAST_COMPARED = 10
LEAST_EQUAL = 0.9999
"""Share of the pixels of float32 masks that have to be the official ones."""
WORDS = 0.3
"""What words are scaled by, beside the locations."""
PHRASES = ("a red car", "a dog on the left", "traffic lights")
STAGES = ("detector", "encoder", "decoder", "masks")
SIZES_OF = {"base": "vit_b", "large": "vit_h", "tiny": "tiny"}
"""The segmenter beside each detector."""
Seconds = dict[str, float]


class Clock:
    """Adds up the seconds of calls by stage."""

    def __init__(self) -> None:
        self.seconds: Seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Time what is done in the block."""
        started = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - started

    def watch(self, owner: Any, name: str, stage: str, replaced: Callable[[Any], Any] = lambda found: found) -> None:
        """Time a method, and replace what it gives."""
        method = getattr(owner, name)

        def timed(*given: Any, **named: Any) -> Any:
            with self.on(stage):
                found = method(*given, **named)
            return replaced(found)

        setattr(owner, name, timed)


class UsualChain:
    """The chain as users write it down."""

    def __init__(self, detector: detector_speed.UsualChain, sam: Any, logits: torch.Tensor) -> None:
        self._detector, self._predictor = detector, SamPredictor(sam)
        self.clock = Clock()
        self.clock.watch(sam.mask_decoder, "forward", "decoder", lambda found: (logits[:, None], found[1]))

    def __call__(self, image: Image, boxes: list[Detection]) -> list[dict[str, Any]]:
        """Answer the question, make the masks of the boxes, and encode them."""
        with self.clock.on("detector"):
            self._detector(image, TASKS["CAPTION_TO_PHRASE_GROUNDING"], PHRASES[0])
        with torch.inference_mode():
            with self.clock.on("encoder"):
                self._predictor.set_image(image.pixels)
            decoding = self.clock.seconds["decoder"]
            with self.clock.on("masks"):
                given = torch.tensor([one.box_xyxy for one in boxes])
                given = self._predictor.transform.apply_boxes_torch(given, (image.height, image.width))
                masks, _, _ = self._predictor.predict_torch(None, None, boxes=given, multimask_output=False)
                made = [coco_mask.encode(np.asfortranarray(mask[0].numpy().astype(np.uint8))) for mask in masks]
            self.clock.seconds["masks"] -= self.clock.seconds["decoder"] - decoding
        return made


class OurChain:
    """The detector and the segmenter, asked as a run asks them."""

    def __init__(self, detector: FlorenceDetector, network: SamNetwork, logits: torch.Tensor) -> None:
        self.detector, self._segmenter = detector, SamSegmenter(network, ONE_MASK_EACH)
        self.dtype = detector.model.network.dtype
        self.clock, self._logits, self._next = Clock(), logits, 0
        self.clock.watch(network, "encode", "encoder")
        self.clock.watch(network, "decode", "decoder", self._replaced)

    def _replaced(self, found: tuple[torch.Tensor, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits of the next boxes."""
        n = len(found[0])
        some = self._logits[self._next : self._next + n, None]
        self._next += n
        return some, found[1]

    def segment(self, image: Image, boxes: list[Detection]) -> ImageResult:
        """The masks of the boxes."""
        self._next = 0
        [result] = self._segmenter.segment([image], [boxes])
        return result

    def __call__(self, image: Image, boxes: list[Detection]) -> list[dict[str, Any]]:
        """Answer the question, make the masks of the boxes, and encode them."""
        with self.clock.on("detector"):
            self.detector.detect([image], [PHRASES[0]])
        before = sum(self.clock.seconds[stage] for stage in ("encoder", "decoder"))
        with self.clock.on("masks"):
            result = self.segment(image, boxes)
            made = {one.detection: one.mask for one in result.instances}
            encoded = [made.get(one) for one in boxes]
        self.clock.seconds["masks"] -= sum(self.clock.seconds[stage] for stage in ("encoder", "decoder")) - before
        return [{} if one is None else dict(coco_from_run_length(one)) for one in encoded]


ONE_MASK_EACH = SegmentSettings(mask_iou_threshold=1.0, containment_threshold=1.0)
"""Nothing is dropped: masks of random weights repeat each other."""
EVERY_BOX = DetectSettings(score_threshold=0.0, nms=SuppressionScope.NONE)


def round_logits(boxes: list[Detection], size: ImageSize, side: int) -> torch.Tensor:
    """Logits (n, side, side) of a disc in the middle of each box, in the square that the image is padded to."""
    scale = side / max(size.width, size.height)
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    made = []
    for x0, y0, x1, y1 in (one.box_xyxy for one in boxes):
        centre_x, centre_y, radius = (x0 + x1) / 2, (y0 + y1) / 2, min(x1 - x0, y1 - y0) / 2
        distance = ((columns - centre_x * scale) ** 2 + (rows - centre_y * scale) ** 2).sqrt()
        made.append((radius * scale - distance).float())
    return torch.stack(made)


def make_model(size: str, tokenizer: Path) -> FlorenceModel:
    """A full-size detector whose answers are locations."""
    model = full_size_model(size, tokenizer)
    words = model.network.get_input_embeddings().weight
    others = torch.ones(len(words), dtype=torch.bool)
    others[list(model.vocabulary.location_ids)] = False
    with torch.no_grad():
        words[others] *= WORDS
    return model


def compare_answers(model: FlorenceModel, usual: detector_speed.UsualChain, image: Image) -> dict[str, float]:
    """Compare tokens and boxes of some questions, with 3 beams and greedy; an error where they differ."""
    task = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
    n_boxes, worst = detector_speed.check_identity(model, usual, image, LEAST_COMPARED)
    [ours] = model.answer(model.encode_images([image]), [task.question(PHRASES[0])], max_new_tokens=24)
    theirs, _ = usual(image, task, PHRASES[0], no_repeat_ngram_size=0, num_beams=1, early_stopping=False)
    if list(ours.token_ids) != theirs or not theirs:
        raise RuntimeError(f"the greedy tokens differ: {theirs} and {list(ours.token_ids)}")
    return {"boxes": n_boxes, "worst_px": worst, "greedy_tokens": len(theirs)}


def compare_masks(network: SamNetwork, sam: Any, image: Image, boxes: list[Detection]) -> dict[str, float]:
    """Compare the masks as the networks give them; an error where too few are equal, or say anything."""
    with torch.inference_mode():
        expected, _ = run_official(sam, image, boxes)
    [result] = SamSegmenter(network, ONE_MASK_EACH).segment([image], [boxes])
    made = {one.detection: one.mask for one in result.instances if one.mask is not None}
    pairs = [(mask_from_run_length(made[one]), mask) for one, mask in zip(boxes, expected, strict=True) if one in made]
    if len(pairs) < LEAST_COMPARED:
        raise RuntimeError(f"only {len(pairs)} masks are compared")
    share = statistics.mean(float(np.mean(ours == mask)) for ours, mask in pairs)
    covered = statistics.mean(float(mask.mean()) for _, mask in pairs)
    if share < LEAST_EQUAL or not 0.01 < covered < 0.99:
        raise RuntimeError(f"masks are equal in {share:.4%} of the pixels, and cover {covered:.1%} of the image")
    return {"masks": len(pairs), "equal_pixels": share, "covered": covered}


def same_run_lengths(usual: list[dict[str, Any]], ours: list[dict[str, Any]]) -> int:
    """How many encoded masks are equal; an error unless all are."""
    equal = sum(a["counts"].decode() == b.get("counts") for a, b in zip(usual, ours, strict=True))
    if equal < max(LEAST_COMPARED, len(usual)):
        raise RuntimeError(f"{equal} of {len(usual)} encoded masks are equal")
    return equal


def masks_in(dtype: torch.dtype, n_scenes: int = 6) -> float | None:
    """Mean IoU of the demo's masks in this dtype with those in float32, on rendered scenes; None in float32."""
    if dtype is torch.float32:
        return None
    single, half = (SamSegmenter(SamNetwork(load_sam(DEMO), CPU, one), ONE_MASK_EACH) for one in (torch.float32, dtype))
    overlaps = []
    for index in range(n_scenes):
        drawn = render_scene(Split.VALID, index)
        image = Image(Path("scene.png"), drawn.pixels)
        found = [Detection("x", "x", one.box_xyxy, 1.0) for one in drawn.objects]
        [expected], [made] = single.segment([image], [found]), half.segment([image], [found])
        masks = [{one.detection: one.mask for one in some.instances} for some in (expected, made)]
        for one, mask in masks[0].items():
            twin = masks[1].get(one)
            overlaps.append(0.0 if mask is None or twin is None else float(mask_iou([mask], [twin])[0, 0]))
    if len(overlaps) < LEAST_COMPARED:
        raise RuntimeError(f"only {len(overlaps)} of the demo's masks are compared")
    return statistics.mean(overlaps)


def set_allocator(whose: str) -> None:
    """Keep large buffers for ours; for the usual chain the thresholds that glibc's own rises to in such a process."""
    call = mallopt()
    if call is None or any(name.startswith(OWN_CHOICE) for name in os.environ):
        return
    for parameter, (usual, ours) in {M_MMAP_MAX: (65536, 0), M_TRIM_THRESHOLD: (1 << 26, KEPT_BYTES)}.items():
        call(parameter, ours if whose == "ours" else usual)
    if whose == "usual":
        call(M_MMAP_THRESHOLD, 1 << 25)
        call(M_TOP_PAD, 1 << 17)
    else:
        call(M_TOP_PAD, GROWTH_BYTES)


def in_turns(usual: UsualChain, ours: OurChain, image: Image, boxes: list[Detection], turns: int) -> dict[str, Any]:
    """Let both chains take turns, with a matrix product between: the median seconds of each stage."""
    dtype = ours.dtype
    set_allocator("ours")
    if dtype is not torch.float32:
        # In float32 the comparison was the run that doesn't count.
        ours(image, boxes)
    taken: dict[str, list[Seconds]] = {"usual": [], "ours": []}
    rates, equal = [], 0
    for _ in range(turns):
        made = {}
        for name, chain in (("usual", usual), ("ours", ours)):
            set_allocator(name)
            chain.clock.seconds = dict.fromkeys(STAGES, 0.0)
            made[name] = chain(image, boxes)
            taken[name].append(chain.clock.seconds)
            rates.append(tflops(CPU, dtype))
        equal = same_run_lengths(made["usual"], made["ours"])
    seconds = {
        name: {stage: statistics.median(one[stage] for one in some) for stage in STAGES} for name, some in taken.items()
    }
    return {**seconds, "tflops": statistics.median(rates), "equal_run_lengths": equal}


def print_profiles(ours: OurChain, image: Image, boxes: list[Detection]) -> None:
    """Print the operators that take longest, of the detector and of the segmenter."""
    for name, work in (
        ("detector", lambda: ours.detector.detect([image], [PHRASES[0]])),
        ("segmenter", lambda: ours.segment(image, boxes)),
    ):
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            work()
        print(name)
        for one in sorted(profile.key_averages(), key=lambda one: -one.self_cpu_time_total)[:12]:
            print(f"  {one.key:48}{one.self_cpu_time_total / 1e6:8.3f} s {one.count:6} calls")


def measure(chosen: argparse.Namespace) -> dict[str, Any]:
    """Compare, then time, both chains."""
    dtype, size, sam_size = dtype_named(chosen.dtype), chosen.size, SIZES_OF[chosen.size]
    detector_module.MAX_NEW_TOKENS = detector_speed.N_TOKENS
    image, boxes = scene(ImageSize(1280, 720), chosen.boxes)
    if chosen.photo:
        image = read_image(chosen.photo)
        _, boxes = scene(image.size, chosen.boxes)
    plain = make_model(size, chosen.tokenizer)
    model = copy.deepcopy(plain)
    as_loaded(model, CPU, torch.float32)
    usual_detector, sam = detector_speed.UsualChain(plain, chosen.tokenizer), full_size_sam(sam_size)
    network = SamNetwork(full_size_sam(sam_size), CPU, torch.float32)
    answers = compare_answers(model, usual_detector, image)
    masks = compare_masks(network, sam, image, boxes)
    if dtype is not torch.float32:
        # Anew, as kernels of float32 would stay in the other one.
        model = copy.deepcopy(plain)
        as_loaded(model, CPU, dtype)
        network = SamNetwork(full_size_sam(sam_size), CPU, dtype)
    tflop = sum(TFLOP[size]) + SAM_TFLOP[sam_size] + decoder_tflop(network, boxes)
    logits = round_logits(boxes, image.size, 4 * sam.prompt_encoder.image_embedding_size[0])
    ours = OurChain(FlorenceDetector(model, EVERY_BOX), network, logits)
    figures = in_turns(UsualChain(usual_detector, sam, logits), ours, image, boxes, chosen.turns)
    if chosen.profile:
        print_profiles(ours, image, boxes)
    totals = {name: sum(figures[name].values()) for name in ("usual", "ours")}
    limit_s = tflop / figures["tflops"]
    return {
        **figures,
        "size": size,
        "dtype": chosen.dtype,
        "threads": n_threads(),
        "kernels": asdict(choose_kernels(CPU, dtype)),
        "boxes": len(boxes),
        "tflop": tflop,
        "totals": totals,
        "limit_s": limit_s,
        "times_faster": totals["usual"] / totals["ours"],
        "times_the_limit": totals["ours"] / limit_s,
        "answers": answers,
        "masks": masks,
        "iou_to_float32": masks_in(dtype),
    }


def decoder_tflop(network: SamNetwork, boxes: list[Detection]) -> float:
    """The arithmetic of our mask decoder for these boxes."""
    with torch.inference_mode():
        # What is embedded changes nothing of it.
        side = network.frame(ImageSize(1, 1)).width // 16
        embedding = torch.zeros(network._sam.mask_decoder.transformer_dim, side, side)
        some = torch.tensor([one.box_xyxy for one in boxes[:2]])
        return tflop_of(lambda: network.decode(embedding, some, multimask=False)) * len(boxes) / len(some)


def print_figures(figures: dict[str, Any]) -> None:
    """Lay the figures out for people."""
    kernels, answers, masks = figures["kernels"], figures["answers"], figures["masks"]
    print(
        f"{figures['size']}, {figures['dtype']}, {figures['threads']} threads, processor {kernels['processor']}, "
        f"attention {kernels['attention']}, linear layers {kernels['linear']}"
    )
    print(
        f"compared in float32: {answers['boxes']} boxes with 3 beams and the same tokens, at most "
        f"{answers['worst_px']:.2f} px off; {answers['greedy_tokens']} greedy tokens the same; {masks['masks']} masks "
        f"the same in {masks['equal_pixels']:.4%} of the pixels; {figures['equal_run_lengths']} encoded masks equal"
    )
    if figures["iou_to_float32"] is not None:
        print(f"the demo's masks in {figures['dtype']}: IoU to float32 {figures['iou_to_float32']:.4f}")
    print(f"{'stage':12}{'usual':>9}{'ours':>9}")
    for stage in STAGES:
        usual, ours = figures["usual"][stage], figures["ours"][stage]
        print(f"{stage:12}{usual:8.2f}s{ours:8.2f}s{usual / ours:8.1f} x")
    usual, ours = figures["totals"].values()
    print(f"{'together':12}{usual:8.2f}s{ours:8.2f}s{figures['times_faster']:8.1f} x")
    print(
        f"limit: {figures['tflop']:.2f} TFLOP at {figures['tflops']:.3f} TFLOP/s take {figures['limit_s']:.2f} s; ours "
        f"takes {figures['times_the_limit']:.2f} times that"
    )


def held(figures: dict[str, Any]) -> MustHold:
    """Hold the ratios against the bounds of each kind of processor."""
    holds, kind, dtype = MustHold(), figures["kernels"]["processor"], dtype_named(figures["dtype"])
    is_other = not_full_size(figures["size"], "base")
    for wanted, expected, least, most in (
        ("avx512-bf16", torch.bfloat16, 6.0, 2.4),
        ("amx", torch.bfloat16, 7.0, 4.2),
        ("avx2", torch.float32, 2.6, None),
    ):
        unless = is_other or ("" if kind == wanted else f"the processor is {kind}") or not_in(dtype, expected)
        holds.at_least(f"times faster, {wanted}", figures["times_faster"], least, unless=unless)
        if most is not None:
            holds.at_most(f"times the limit, {wanted}", figures["times_the_limit"], most, unless=unless)
    holds.at_least(
        "IoU of the demo's masks to float32",
        figures["iou_to_float32"],
        0.99,
        unless=not_in(dtype, torch.bfloat16) or no_bfloat16(),
    )
    return holds


def main() -> int:
    """Measure and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--tokenizer", type=Path, required=True, help="folder of Florence-2's tokenizer.json")
    options.add_argument("--size", choices=SIZES, default="base", help="with ViT-B; large is with ViT-H")
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--photo", type=Path, help="instead of noise of 1280 x 720")
    options.add_argument("--boxes", type=int, default=20)
    options.add_argument("--turns", type=int, default=2)
    options.add_argument("--profile", action="store_true", help="print the operators that take longest")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    figures = measure(chosen)
    print_figures(figures)
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return held(figures).exit_code()


if __name__ == "__main__":
    sys.exit(main())
