"""How much the demo's masks change in half precision: their IoU with those in float32, box by box.

    python benchmarks/half_precision.py [--scenes 60] [--dtype bfloat16] [--output half_precision.json]

The boxes are the true ones of rendered scenes that training never saw; every mask counts, good or bad.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

from grounded_seg.geometry.masks import mask_iou
from grounded_seg.records import Detection, Image
from grounded_seg.scenes import Split, render_scene
from grounded_seg.segment import load_segmenter

DEMO = Path(__file__).resolve().parents[1] / "checkpoints" / "demo" / "segmenter"


def main() -> None:
    """Segment in both formats, compare and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--scenes", type=int, default=60)
    options.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    options.add_argument("--device", default="cpu")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    device = torch.device(chosen.device)
    segmenters = [load_segmenter(DEMO, device, dtype) for dtype in (torch.float32, getattr(torch, chosen.dtype))]
    overlaps: list[float] = []
    for index in range(chosen.scenes):
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
    values = np.array(overlaps)
    figures = {
        "scenes": chosen.scenes,
        "masks": len(values),
        "mean_iou": round(float(values.mean()), 4),
        "least_iou": round(float(values.min()), 4),
        "below_0.9": int((values < 0.9).sum()),
    }
    print("\n".join(f"{name:10} {value}" for name, value in figures.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
