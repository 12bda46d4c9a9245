"""What half precision costs the demo preset: AP of boxes and masks beside float32's, masks by their IoU, and time.

    python benchmarks/half_precision.py [--scenes 500] [--dtype bfloat16] [--output half_precision.json]

The scenes and questions are those of `demo_accuracy.py`. For the IoU the segmenter gets the true boxes of other scenes,
and every mask counts, good or bad. The logits are float32 whatever the dtype: what that costs is measured on answers
to the same questions with a head in half precision alone, in turns. A CPU without the dtype emulates it, slowly; the
figures but for times are the same.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from demo_accuracy import EVERYTHING, answer, questions_about, score
from must_hold import MustHold
from torch import nn

from grounded_seg import GroundedSegmenter
from grounded_seg.geometry.masks import mask_iou
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Detection, Image
from grounded_seg.scenes import Split, render_scene
from grounded_seg.segment import load_segmenter
from grounded_seg.settings import ModelSettings, Precision

DEMO = Path(__file__).resolve().parents[1] / "checkpoints" / "demo" / "segmenter"


def ap_of_chain(dtype: str, device: str, n_scenes: int) -> dict[str, float]:
    """AP of boxes and masks of the whole chain, and its seconds."""
    chain = GroundedSegmenter.from_preset("demo", detect=EVERYTHING, dtype=dtype, device=device)
    started = time.perf_counter()
    pairs = answer(chain, n_scenes)
    seconds = time.perf_counter() - started
    boxes, masks = score(pairs, "bbox").AP, score(pairs, "segm").AP
    if not boxes or not masks:
        raise RuntimeError(f"no right box or mask in {n_scenes} scenes: nothing is compared")
    return {"box AP": boxes, "mask AP": masks, "seconds": seconds}


def iou_of_masks(dtype: torch.dtype, device: torch.device, n_scenes: int) -> npt.NDArray[np.float64]:
    """The IoU of each true box's mask with its mask in float32."""
    segmenters = [load_segmenter(DEMO, device, one) for one in (torch.float32, dtype)]
    overlaps: list[float] = []
    for index in range(n_scenes):
        scene = render_scene(Split.VALID, index, short_side=240)
        image = Image(Path(f"{index}.png"), scene.pixels)
        found = [Detection(one.kind, one.kind, one.box_xyxy, score=1.0) for one in scene.objects]
        masks = []
        for segmenter in segmenters:
            [segmented] = segmenter.segment([image], [found])
            masks.append({one.detection: one.mask for one in segmented.instances})
        single, half = masks
        for one, mask in single.items():
            twin = half.get(one)
            overlaps.append(0.0 if mask is None or twin is None else float(mask_iou([mask], [twin])[0, 0]))
    if not overlaps:
        raise RuntimeError("no masks are compared")
    return np.array(overlaps)


def seconds_of_answers(dtype: str, device: str, n_scenes: int) -> tuple[float, float]:
    """Seconds of the detector with its logits in float32, and with all of them in half precision."""
    models = ModelSettings(preset="demo", dtype=Precision(dtype), device=device)
    detector = load_found_detector(find_models(models, boxes_only=True), EVERYTHING)
    head = detector.model.network.lm_head
    ours, plain = head.forward, lambda states: nn.Linear.forward(head, states).float()
    seconds = {ours: 0.0, plain: 0.0}
    for index in range(n_scenes):
        scene = render_scene(Split.TEST, index)
        prompts = list(dict.fromkeys(one.prompt for one in questions_about(scene, index)))
        for head.forward in (ours, plain) if index % 2 else (plain, ours):
            started = time.perf_counter()
            detector.detect([Image(Path(f"{index}.png"), scene.pixels)], prompts)
            seconds[head.forward] += time.perf_counter() - started
    return seconds[ours], seconds[plain]


def main() -> int:
    """Measure and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--scenes", type=int, default=500, help="of the chain")
    options.add_argument("--mask-scenes", type=int, default=60, help="of the IoU")
    options.add_argument("--timed-scenes", type=int, default=30, help="of what the logits cost")
    options.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    options.add_argument("--device", default="cpu")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    values = iou_of_masks(getattr(torch, chosen.dtype), torch.device(chosen.device), chosen.mask_scenes)
    ours_s, plain_s = seconds_of_answers(chosen.dtype, chosen.device, chosen.timed_scenes)
    chains = {dtype: ap_of_chain(dtype, chosen.device, chosen.scenes) for dtype in ("float32", chosen.dtype)}
    single, half = chains.values()
    figures = {
        "scenes": chosen.scenes,
        **{
            f"{name}, {dtype}": round(value, 4)
            for name in single
            for dtype, value in zip(chains, (single[name], half[name]), strict=True)
        },
        **{f"{name} lost": round(single[name] - half[name], 4) for name in ("box AP", "mask AP")},
        "share of the detector's time for float32 logits": round(1 - plain_s / ours_s, 4),
        "masks": len(values),
        "mean_iou": round(float(values.mean()), 4),
        "least_iou": round(float(values.min()), 4),
        "below_0.9": int((values < 0.9).sum()),
    }
    width = max(map(len, figures))
    print("\n".join(f"{name:{width}}  {value}" for name, value in figures.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    holds = MustHold()
    few = "fewer than 500 scenes" if chosen.scenes < 500 else ""
    holds.at_most(f"box AP lost in {chosen.dtype}", figures["box AP lost"], 0.003, unless=few)
    holds.at_least(f"mean IoU to float32 in {chosen.dtype}", figures["mean_iou"], 0.99)
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
