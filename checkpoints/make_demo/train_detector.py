"""Train the demo's base detector on rendered scenes; it is taught every kind but cars.

    python checkpoints/make_demo/train_detector.py --see-minutes 30 --minutes 55

First the vision tower alone learns what is where, from a dense head on its features. Then the whole model learns to
answer questions. The learning rate of each part follows the clock, so a run always ends cooled down. The state is kept
in .cache/demo-training and a later start goes on from it. Each of two processes computes half of a batch on one core.

What it takes to learn locations from scratch in two hours on two cores: smooth location embeddings, targets spread over
neighbouring bins, scenes with few objects first, a hint where the decoder should look (without it the answers stayed on
a plateau for 28,000 images), and dense heads that are dropped afterwards.
"""

import argparse
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random

import torch
from demo_model import GRID, build_detector, forward_language, stretched_weights
from losses import Heads, answer_loss, cell_losses, hit_loss, place_loss, pointing_loss
from parallel import N_PROCESSES, average_gradients, shared_clock, start
from pool import KIND_NAMES, SIDE, STATE
from questions import Batch, PooledScenes, QuestionMaker
from tokenizer import build_processor, train_tokenizer
from tokenizers import Tokenizer
from torch import nn
from transformers import Florence2ForConditionalGeneration

PEAK_RATE = 1e-3
WARM_UP_STEPS = 100
SEEING_COSINE = 0.7
"""How far the rate falls while seeing: the tower learns on afterwards."""
VISION_SHARE = 0.5
"""The tower's rate, once it can see, as a share of the others'."""
UNTAUGHT = "car"
KEPT = STATE / "detector-state.pt"


@dataclass(frozen=True)
class Plan:
    """What one run does."""

    see_minutes: float
    """Vision alone."""
    minutes: float
    """Answers too."""
    few_share: float
    """Share of `minutes` with few objects a scene."""
    peak_rate: float
    batch: int
    n_questions: int
    resume: bool
    start: Path | None
    """An earlier detector of this width, whose weights are the first; it may have another number of image tokens."""
    output: Path


def seeing_losses(
    model: Florence2ForConditionalGeneration, heads: Heads, batch: Batch
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of the vision tower alone, and the value of each part."""
    return cell_losses(heads, model.get_image_features(batch.pixels).pooler_output, batch)


def answering_losses(
    model: Florence2ForConditionalGeneration, heads: Heads, batch: Batch, loc0: int, *, see: bool
) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss of answering and, unless the vision tower is left as it is, of seeing; and the value of each part."""
    with torch.set_grad_enabled(see):
        features = model.get_image_features(batch.pixels).pooler_output
    seen, values = cell_losses(heads, features, batch)
    image_tokens = features.repeat_interleave(len(batch.labels) // len(features), 0)
    logits, encoded, looked = forward_language(model, image_tokens, batch.prompt_ids, batch.prompt_mask, batch.labels)
    answered = answer_loss(logits, batch.labels, loc0)
    found = hit_loss(heads, encoded, batch)
    placed = place_loss(heads, encoded, batch)
    pointed = pointing_loss(looked, batch)
    parts = {"answer": answered.item(), "hit": found.item(), "place": placed.item(), "pointing": pointed.item()}
    return answered + 0.5 * seen + 5 * found + 5 * placed + 0.5 * pointed, {**values, **parts}


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
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in model.parameters()], 1 - decay)


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
        model, heads = build_detector(tokenizer).train(), Heads()
        vision = [*model.model.vision_tower.parameters(), *model.model.multi_modal_projector.parameters()]
        chosen = set(map(id, vision))
        others = [p for p in (*model.parameters(), *heads.parameters()) if id(p) not in chosen]
        optimizer = torch.optim.AdamW(
            [{"params": vision}, {"params": others}], lr=PEAK_RATE, weight_decay=0.03, betas=(0.9, 0.98), fused=True
        )
        return cls(model, heads, optimizer, Average(model))

    def begin_with(self, folder: Path) -> None:
        """Take an earlier detector's weights; its codes of the image's parts are stretched to more of them."""
        self.model.load_state_dict(stretched_weights(folder, self.model))
        self.average = Average(self.model)

    @property
    def parameters(self) -> list[nn.Parameter]:
        """All that is learned."""
        return [*self.model.parameters(), *self.heads.parameters()]

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.weights,
            "step": self.step,
        }
        torch.save(state, path.with_suffix(".part"))
        path.with_suffix(".part").rename(path)

    def load(self, path: Path) -> None:
        """Go on from a kept state."""
        kept = torch.load(path, weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.heads.load_state_dict(kept["heads"])
        self.optimizer.load_state_dict(kept["optimizer"])
        self.average.weights, self.step = kept["average"], kept["step"]

    def learn(self, loss: torch.Tensor, vision_rate: float, rate: float) -> None:
        """One step on the loss of all processes' parts of the batch."""
        self.optimizer.zero_grad()
        loss.backward()
        average_gradients(self.parameters)
        nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        for group, group_rate in zip(self.optimizer.param_groups, (vision_rate, rate), strict=True):
            group["lr"] = group_rate
        self.optimizer.step()
        self.average.update(self.model, self.step)
        self.step += 1

    def export(self, folder: Path) -> None:
        """Write the native folder: averaged weights as float16, config, tokenizer, image processor."""
        own = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.model.load_state_dict(self.average.weights, strict=False)
        self.model.half().save_pretrained(folder)
        build_processor(SIDE, 1 + GRID * GRID).save_pretrained(folder)
        self.model.float().load_state_dict(own, strict=False)


def work(rank: int, plan: Plan) -> None:
    """One process: its share of each batch, on one core."""
    torch.manual_seed(0)
    tokenizer = train_tokenizer()
    training = Training.fresh(tokenizer)
    if plan.start:
        training.begin_with(plan.start)
    if plan.resume:
        training.load(KEPT)
    maker = QuestionMaker(tokenizer, frozenset(KIND_NAMES) - {UNTAUGHT})
    seed = training.step * N_PROCESSES + rank
    torch.manual_seed(seed)
    scenes, rng, means = PooledScenes(seed), Random(seed), {}
    started, kept_at, answered, share = time.time(), 0.0, 0, plan.batch // N_PROCESSES
    while (elapsed := shared_clock(started)) < plan.see_minutes + plan.minutes:
        progress = (elapsed - plan.see_minutes) / plan.minutes
        if progress < 0:
            batch = maker.batch(*scenes.draw(2 * share), 1, rng)
            loss, values = seeing_losses(training.model, training.heads, batch)
            vision_rate = rate = rate_at(training.step, SEEING_COSINE * elapsed / plan.see_minutes, plan.peak_rate)
        else:
            few = progress < plan.few_share
            batch = maker.batch(*scenes.draw(share, max_objects_at(progress, plan.few_share)), plan.n_questions, rng)
            loss, values = answering_losses(training.model, training.heads, batch, maker.loc0, see=not few)
            answered += 1
            rate = rate_at(answered, progress, plan.peak_rate)
            vision_rate = VISION_SHARE * rate
        training.learn(loss, vision_rate, rate)
        for name, value in values.items():
            means[name] = value if name not in means else 0.98 * means[name] + 0.02 * value
        if rank == 0 and training.step % 50 == 0:
            rounded = {name: round(value, 3) for name, value in means.items()}
            print(json.dumps({"step": training.step, "minutes": round(elapsed, 1), **rounded}), flush=True)
        if rank == 0 and elapsed - kept_at > 5:
            training.save(KEPT)
            training.export(plan.output)
            kept_at = elapsed
    if rank == 0:
        training.save(KEPT)
        training.export(plan.output)


def main() -> None:
    """Train for the given time and write the detector's folder."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--see-minutes", type=float, default=30, help="vision alone, at the start")
    options.add_argument("--minutes", type=float, default=55, help="answers too")
    options.add_argument("--few-share", type=float, default=0.15, help="share of --minutes with few objects a scene")
    options.add_argument("--peak-rate", type=float, default=PEAK_RATE)
    options.add_argument("--batch", type=int, default=16, help="images a step; twice as many for vision alone")
    options.add_argument("--questions", dest="n_questions", type=int, default=2, help="an image")
    options.add_argument("--output", type=Path, default=STATE / "detector")
    options.add_argument("--start", type=Path, help="folder of an earlier detector to begin with")
    options.add_argument("--resume", action="store_true", help="go on from the kept state, with a new clock")
    start(work, Plan(**vars(options.parse_args())))


if __name__ == "__main__":
    main()
