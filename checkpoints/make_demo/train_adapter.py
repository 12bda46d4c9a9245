"""Teach the finished base detector cars with a LoRA adapter; the base itself stays as it is.

python checkpoints/make_demo/train_adapter.py --minutes 8
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from demo_model import forward_language
from losses import answer_loss, pointing_loss
from parallel import N_PROCESSES, average_gradients, shared_clock, start
from peft import LoraConfig, PeftModel, get_peft_model
from pool import KIND_NAMES, STATE
from questions import PooledScenes, QuestionMaker
from tokenizer import load_tokenizer
from torch import nn
from train_detector import UNTAUGHT
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.model.record import check_adapter_base, write_adapter_base
from grounded_seg.weights.files import sha256_of_weights
from grounded_seg.weights.locate import LocatedWeights

BATCH, N_QUESTIONS = 12, 3
PEAK_RATE = 2e-3
"""Of a new adapter; half of it where an earlier one is trained on."""
BASE_NAME = "demo/detector"
LORA = LoraConfig(
    r=16,
    lora_alpha=32,
    lora_dropout=0.0,
    target_modules=r".*language_model.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
)


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    minutes: float
    base: Path
    start: Path | None
    """An earlier adapter of this base, whose weights are the first."""
    output: Path


def rate_at(step: int, progress: float, peak: float) -> float:
    """Warm-up by steps, then a cosine by the clock."""
    return peak * min(1.0, (step + 1) / 60) * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def work(rank: int, plan: Plan) -> None:
    """One process: its share of each batch, on one core."""
    torch.manual_seed(0)
    base = LocatedWeights(plan.base, BASE_NAME, revision=None, sha256=sha256_of_weights(plan.base))
    if plan.start:
        check_adapter_base(plan.start, base)
    tokenizer = load_tokenizer(plan.base)
    model = Florence2ForConditionalGeneration.from_pretrained(
        plan.base, dtype=torch.float32, attn_implementation="eager"
    )
    if plan.start:
        tuned = PeftModel.from_pretrained(model, plan.start, is_trainable=True).train()
    else:
        tuned = get_peft_model(model, LORA).train()
    peak = PEAK_RATE / 2 if plan.start else PEAK_RATE
    parameters = [p for p in tuned.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.0, betas=(0.9, 0.98))
    maker = QuestionMaker(tokenizer, frozenset(KIND_NAMES), favourite=UNTAUGHT)
    seed = 7 + rank + (N_PROCESSES if plan.start else 0)
    scenes, rng, started, step, mean = PooledScenes(seed), Random(seed), time.time(), 0, 0.0
    while (progress := shared_clock(started) / plan.minutes) < 1:
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, progress, peak)
        batch = maker.batch(*scenes.draw(BATCH // N_PROCESSES), N_QUESTIONS, rng)
        with torch.no_grad():
            features = model.get_image_features(batch.pixels).pooler_output
        image_tokens = features.repeat_interleave(N_QUESTIONS, 0)
        logits, _, looked = forward_language(model, image_tokens, batch.prompt_ids, batch.prompt_mask, batch.labels)
        loss = answer_loss(logits, batch.labels, maker.loc0) + 0.5 * pointing_loss(looked, batch)
        optimizer.zero_grad()
        loss.backward()
        average_gradients(parameters)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        step += 1
        mean = loss.item() if step == 1 else 0.97 * mean + 0.03 * loss.item()
        if rank == 0 and step % 50 == 0:
            print(json.dumps({"step": step, "progress": round(progress, 2), "loss": round(mean, 3)}), flush=True)
    if rank == 0:
        tuned.peft_config["default"].base_model_name_or_path = BASE_NAME
        tuned.save_pretrained(plan.output)
        (plan.output / "README.md").unlink()  # peft's template of a model card, not filled in
        write_adapter_base(plan.output, base)


def main() -> None:
    """Train for the given time and write the adapter's folder."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=8)
    options.add_argument("--base", type=Path, default=STATE / "detector")
    options.add_argument("--start", type=Path, help="folder of an earlier adapter to begin with")
    options.add_argument("--output", type=Path, default=STATE / "adapter")
    start(work, Plan(**vars(options.parse_args())))


if __name__ == "__main__":
    main()
