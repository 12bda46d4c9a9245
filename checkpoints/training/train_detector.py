"""Train the demo's base detector on rendered scenes; it is taught every kind but cars.

    python checkpoints/training/train_detector.py --minutes 75

The learning rate follows the clock, so a run always ends cooled down. The state is kept in .cache/demo-training and a
later start goes on from it. What it takes to learn locations from scratch in an hour on two cores: smooth location
embeddings, targets spread over neighbouring bins, scenes with few objects first, a hint where the decoder should look
(without it the answers stayed on a plateau for 28,000 images), and two dense heads (what is in each image cell; which
cells answer the question) that are dropped afterwards.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from demo_model import GRID, WIDTH, build_detector, forward_language
from pool import COLOUR_NAMES, KIND_NAMES, SIDE, STATE
from questions import Batch, PooledScenes, QuestionMaker
from tokenizer import build_processor, train_tokenizer
from tokenizers import Tokenizer
from torch import nn
from transformers import Florence2ForConditionalGeneration

BATCH = 32
N_QUESTIONS = 3
PEAK_RATE = 1e-3
WARM_UP_STEPS = 150
UNTAUGHT = "car"
SPREAD = torch.arange(-14, 15)
SPREAD_BINS = 3.0


@dataclass(frozen=True)
class Heads:
    """Dense heads that teach the model where things are; they are not part of the demo."""

    cell: nn.Linear
    """On the image tokens: an object's centre is here, kind, colour, box."""
    hit: nn.Linear
    """On the encoded image tokens: the object here answers the question, box."""


def answer_loss(logits: torch.Tensor, labels: torch.Tensor, loc0: int, sharp_bins: float) -> torch.Tensor:
    """Cross-entropy, each location target spread over its neighbours; the first token, which says yes or no, twice."""
    keep = labels >= 0
    first = torch.zeros_like(keep)
    first[:, 0] = True
    weight = (1.0 + first.float())[keep]
    logp, target = logits.float().log_softmax(-1)[keep], labels[keep]
    located = (target >= loc0) & (target < loc0 + 1000)
    near = (target[located][:, None] + SPREAD).clamp(loc0, loc0 + 999)
    share = torch.softmax(-0.5 * (SPREAD / sharp_bins) ** 2, 0)
    loss = -(logp.gather(1, target[:, None])[:, 0])
    loss = loss.masked_scatter(located, -(logp[located].gather(1, near) * share).sum(1))
    return (loss * weight).sum() / weight.sum()


def cell_loss(out: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Presence, kind, colour and box of each image cell."""
    present = cells[..., 0]
    here = present > 0
    kinds, colours = 1 + len(KIND_NAMES), 1 + len(KIND_NAMES) + len(COLOUR_NAMES)
    return (
        5 * F.binary_cross_entropy_with_logits(out[..., 0], present)
        + F.cross_entropy(out[here][:, 1:kinds], cells[here][:, 1].long())
        + F.cross_entropy(out[here][:, kinds:colours], cells[here][:, 2].long())
        + 5 * F.l1_loss(out[here][:, colours:].sigmoid(), cells[here][:, 3:])
    )


def hit_loss(out: torch.Tensor, asked: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Which cells answer the question, and with which box."""
    here = asked > 0
    boxes = F.l1_loss(out[here][:, 1:].sigmoid(), cells[here][:, 3:]) if here.any() else 0.0
    return 10 * F.binary_cross_entropy_with_logits(out[..., 0], asked) + 5 * boxes


def pointing_loss(looked: torch.Tensor, pointed: torch.Tensor) -> torch.Tensor:
    """How little the decoder looks at the cell of the object whose box it is saying (the first token is no cell)."""
    here = pointed >= 0
    share = looked[here].gather(1, pointed[here][:, None] + 1)
    return -(share + 1e-4).log().mean()


def total_loss(
    model: nn.Module, heads: Heads, batch: Batch, loc0: int, *, see_only: bool
) -> tuple[torch.Tensor, dict[str, float]]:
    """The sum of the losses, and each one's value; `see_only` leaves the language part out."""
    features = model.get_image_features(batch.pixels).pooler_output
    seen = cell_loss(heads.cell(features)[:, 1:], batch.cells)
    if see_only:
        return seen, {"cell": seen.item()}
    image_tokens = features.repeat_interleave(N_QUESTIONS, 0)
    logits, encoded, looked = forward_language(model, image_tokens, batch.prompt_ids, batch.prompt_mask, batch.labels)
    found = hit_loss(heads.hit(encoded)[:, 1:], batch.asked, batch.cells.repeat_interleave(N_QUESTIONS, 0))
    answered = answer_loss(logits, batch.labels, loc0, SPREAD_BINS)
    pointing = pointing_loss(looked, batch.pointed)
    values = {"answer": answered.item(), "cell": seen.item(), "hit": found.item(), "pointing": pointing.item()}
    return answered + seen + found + 0.5 * pointing, values


def rate_at(step: int, progress: float, peak: float) -> float:
    """Warm-up by steps, then a cosine by the clock."""
    return peak * min(1.0, (step + 1) / WARM_UP_STEPS) * max(0.01, 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))


def max_objects_at(progress: float, few_share: float) -> int:
    """Few objects first: a scene of one or two needs no choice, so its boxes are learned sooner."""
    return 2 if progress < few_share / 2 else 4 if progress < few_share else 8


class Average:
    """A moving average of the weights; it is better than the last step's, and what is kept."""

    def __init__(self, model: nn.Module) -> None:
        self.weights = {name: value.detach().clone() for name, value in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Follow the model, faster in the beginning."""
        decay = min(0.998, (1 + step) / (20 + step))
        for name, value in model.named_parameters():
            self.weights[name].lerp_(value, 1 - decay)


@dataclass(eq=False)
class Training:
    """What a run changes, and what a later start goes on from."""

    model: Florence2ForConditionalGeneration
    heads: Heads
    optimizer: torch.optim.Optimizer
    average: Average
    step: int = 0

    @classmethod
    def fresh(cls, tokenizer: Tokenizer) -> "Training":
        """A random model with its optimizer."""
        model = build_detector(tokenizer).train()
        heads = Heads(nn.Linear(WIDTH, 1 + len(KIND_NAMES) + len(COLOUR_NAMES) + 4), nn.Linear(WIDTH, 5))
        parameters = [*model.parameters(), *heads.cell.parameters(), *heads.hit.parameters()]
        optimizer = torch.optim.AdamW(parameters, lr=PEAK_RATE, weight_decay=0.03, betas=(0.9, 0.98))
        return cls(model, heads, optimizer, Average(model))

    def _parts(self) -> dict[str, nn.Module | torch.optim.Optimizer]:
        return {
            "model": self.model,
            "cell": self.heads.cell,
            "hit": self.heads.hit,
            "optimizer": self.optimizer,
        }

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {name: part.state_dict() for name, part in self._parts().items()}
        torch.save({**state, "average": self.average.weights, "step": self.step}, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """Go on from a kept state."""
        kept = torch.load(path, weights_only=True)
        for name, part in self._parts().items():
            part.load_state_dict(kept[name])
        self.average.weights, self.step = kept["average"], kept["step"]

    def learn(self, batch: Batch, rate: float, loc0: int, *, see_only: bool) -> dict[str, float]:
        """One step; the value of each loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        loss, parts = total_loss(self.model, self.heads, batch, loc0, see_only=see_only)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1
        return parts

    def export(self, folder: Path) -> None:
        """Write the native folder: averaged weights as float16, config, tokenizer, image processor."""
        own = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.model.load_state_dict(self.average.weights, strict=False)
        self.model.half().save_pretrained(folder)
        build_processor(SIDE, 1 + GRID * GRID).save_pretrained(folder)
        self.model.float().load_state_dict(own, strict=False)


def main() -> None:
    """Train for the given time and write the detector's folder."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--minutes", type=float, default=75)
    options.add_argument("--see-minutes", type=float, default=5, help="vision alone, at the start")
    options.add_argument("--few-share", type=float, default=0.2, help="share of the time with few objects a scene")
    options.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    options.add_argument("--output", type=Path, default=STATE / "detector")
    options.add_argument("--resume", action="store_true", help="go on from the kept state, with a new clock")
    chosen = options.parse_args()
    torch.manual_seed(0)
    tokenizer, state = train_tokenizer(), STATE / "detector-state.pt"
    training = Training.fresh(tokenizer)
    if chosen.resume:
        training.load(state)
    maker = QuestionMaker(tokenizer, frozenset(KIND_NAMES) - {UNTAUGHT})
    scenes, rng = PooledScenes(training.step), Random(training.step)
    start, kept_at, means = time.time(), time.time(), {}
    while (elapsed := time.time() - start) < chosen.minutes * 60:
        progress = elapsed / (chosen.minutes * 60)
        batch = maker.batch(*scenes.draw(BATCH, max_objects_at(progress, chosen.few_share)), N_QUESTIONS, rng)
        rate = rate_at(training.step, progress, chosen.peak_rate)
        see_only = not chosen.resume and elapsed < chosen.see_minutes * 60
        for name, value in training.learn(batch, rate, maker.loc0, see_only=see_only).items():
            means[name] = value if name not in means else 0.97 * means[name] + 0.03 * value
        if training.step % 50 == 0:
            rounded = {name: round(value, 3) for name, value in means.items()}
            print(json.dumps({"step": training.step, "minutes": round(elapsed / 60, 1), **rounded}), flush=True)
        if time.time() - kept_at > 300:
            training.save(state)
            training.export(chosen.output)
            kept_at = time.time()
    training.save(state)
    training.export(chosen.output)


if __name__ == "__main__":
    main()
