"""What it saves to keep glibc from returning large buffers: image encoders in processes of their own, in turns.

    python benchmarks/allocator.py [--dtype float32] [--turns 3] [--output allocator.json]

Full size, random weights: Florence-2-base's vision tower and Segment Anything's ViT-B, as the models are loaded. Beside
the seconds stand the page faults of one call and the process's peak memory. The outputs of both are the same.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from encoder_layouts import encoders, towers

from grounded_seg.device.allocator import keep_large_buffers


@torch.inference_mode()
def one_process(kept: bool, dtype: torch.dtype) -> dict[str, Any]:
    """Run both encoders, and count."""
    if kept and keep_large_buffers() != "kept":
        raise RuntimeError("there is nothing to measure: the allocator isn't glibc's, or was chosen by a variable")
    torch.manual_seed(0)
    found: dict[str, Any] = {}
    for name, encoder, side in (("tower", towers("base")[1], 768), ("sam", encoders("vit_b")[1], 1024)):
        pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)
        output = encoder.to(dtype)(pixels)
        faults, started = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
        encoder(pixels)
        found[f"{name}_s"] = time.perf_counter() - started
        found[f"{name}_faults"] = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
        found[f"{name}_sum"] = float(getattr(output, "last_hidden_state", output).double().abs().sum())
    found["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return found


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    options.add_argument("--one", choices=("system", "kept"), help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.one:
        print(json.dumps(one_process(chosen.one == "kept", getattr(torch, chosen.dtype))))
        return
    taken: dict[str, list[dict[str, Any]]] = {"system": [], "kept": []}
    for _ in range(chosen.turns):
        for name, some in taken.items():
            command = [sys.executable, __file__, "--one", name, "--dtype", chosen.dtype]
            some.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    sums = {(one["tower_sum"], one["sam_sum"]) for some in taken.values() for one in some}
    if len(sums) != 1 or not min(next(iter(sums))) > 0:
        raise RuntimeError(f"the outputs differ: {sums}")
    middle = {
        name: {key: statistics.median(one[key] for one in some) for key in some[0]} for name, some in taken.items()
    }
    for name, row in middle.items():
        print(
            f"{name:8} vision tower {row['tower_s']:6.2f} s, {row['tower_faults']:9,.0f} page faults; Segment Anything "
            f"{row['sam_s']:6.2f} s, {row['sam_faults']:9,.0f}; peak {row['peak_mb']:6.0f} MB"
        )
    ratios = {key: middle["kept"][key] / middle["system"][key] for key in ("tower_s", "sam_s", "peak_mb")}
    print("kept / system: " + ", ".join(f"{key} {ratio:.2f}" for key, ratio in ratios.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps({**middle, "ratios": ratios}, indent=2) + "\n")


if __name__ == "__main__":
    main()
