"""What one memory layout and the processor's kernels save in the image encoders: each beside what it was before.

    python benchmarks/encoder_layouts.py [--size base] [--sam vit_b] [--dtype float32] [--output layouts.json]

Full size, random weights, one image; the two take turns. Before: Florence-2's tower as transformers lays it out,
Segment Anything's encoder with the attention that was the only one for its dtype, each with torch's own linear layers.
The difference is the largest one of an output, beside the largest output.
"""

import argparse
import copy
import json
import sys
import time
from pathlib import Path

import torch
from full_size_florence import SIZES
from full_size_sam import CONFIGS, full_size_sam
from must_hold import MustHold, no_bfloat16, not_full_size, not_in
from torch import nn
from transformers.models.florence2.configuration_florence2 import Florence2VisionConfig
from transformers.models.florence2.modeling_florence2 import Florence2VisionBackbone

from grounded_seg.detect.model.tower import use_kernels, use_one_layout
from grounded_seg.device.kernels import AttentionKernel, choose_kernels, cpu_kind, use_linear_kernel
from grounded_seg.segment.sam.attention import lay_out_patches, use_fast_attention

LARGEST_SHARE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Difference allowed, as a share of the largest output."""


CPU = torch.device("cpu")


def towers(size: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Florence-2's vision tower as it is, and in one layout."""
    shape = SIZES[size]
    config = Florence2VisionConfig(
        embed_dim=shape["widths"], num_heads=shape["heads"], num_groups=shape["heads"], depths=(1, 1, shape["depth"], 1)
    )
    config._attn_implementation = "sdpa"
    tower = Florence2VisionBackbone(config).eval()
    ours = copy.deepcopy(tower)
    use_one_layout(ours)
    use_kernels(ours, choose_kernels(CPU, dtype))
    return tower, ours


def encoders(size: str, dtype: torch.dtype = torch.float32) -> tuple[nn.Module, nn.Module]:
    """Segment Anything's encoder with fast attention, and in one layout with the kernels of this processor."""
    encoder = full_size_sam(size).image_encoder
    ours = copy.deepcopy(encoder)
    kernels = choose_kernels(CPU, dtype)
    is_single = dtype is torch.float32
    use_fast_attention(encoder, AttentionKernel.BLOCKED if is_single else AttentionKernel.FUSED)
    use_fast_attention(ours, kernels.attention)
    use_linear_kernel(ours, kernels.linear)
    lay_out_patches(ours.patch_embed)
    return encoder, ours


@torch.inference_mode()
def measured(pair: tuple[nn.Module, nn.Module], side: int, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Seconds of both, the least of some turns, and how far their outputs are apart."""
    pixels = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).to(dtype)
    outputs, seconds = [], [[], []]
    for turn in range(repeats + 1):
        for place, one in enumerate(pair):
            started = time.perf_counter()
            found = one.to(dtype)(pixels)
            # The first turn doesn't count.
            if turn:
                seconds[place].append(time.perf_counter() - started)
            else:
                outputs.append(getattr(found, "last_hidden_state", found).float())
    before, after = (min(some) for some in seconds)
    largest, off = float(outputs[0].abs().max()), float((outputs[0] - outputs[1]).abs().max())
    if not largest > 0 or off > LARGEST_SHARE[dtype] * largest:
        raise RuntimeError(f"the outputs differ by {off}, the largest of them is {largest}")
    return {"before_s": before, "after_s": after, "ratio": after / before, "difference": off, "largest": largest}


def main() -> int:
    """Measure and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--size", choices=SIZES, default="base")
    options.add_argument("--sam", choices=CONFIGS, default="vit_b")
    options.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    dtype, side = getattr(torch, chosen.dtype), CONFIGS[chosen.sam]().image_size
    rows = {
        f"Florence-2-{chosen.size}, vision tower": measured(towers(chosen.size, dtype), 768, dtype, chosen.repeats),
        f"Segment Anything {chosen.sam}, encoder": measured(encoders(chosen.sam, dtype), side, dtype, chosen.repeats),
    }
    print(f"{chosen.dtype}, {choose_kernels(CPU, dtype)}")
    for name, row in rows.items():
        print(
            f"{name:34}{row['before_s']:7.2f} s -> {row['after_s']:.2f} s, {row['ratio']:.2f} of it; outputs differ by "
            f"{row['difference']:.2g} of {row['largest']:.2g}"
        )
    if chosen.output:
        chosen.output.write_text(json.dumps({"dtype": chosen.dtype, **rows}, indent=2) + "\n")
    holds, tower, encoder = MustHold(), *(row["ratio"] for row in rows.values())
    unless = not_in(dtype, torch.bfloat16) or no_bfloat16()
    holds.at_most("vision tower, share of before", tower, 0.65, unless=not_full_size(chosen.size, "base") or unless)
    most = 0.78 if cpu_kind() == "amx" else 0.55
    holds.at_most("encoder, share of before", encoder, most, unless=not_full_size(chosen.sam, "vit_b") or unless)
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
