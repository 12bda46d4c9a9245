"""Training at full size with random weights: seconds a step, images/s and peak memory, beside a plain loop.

    python benchmarks/train_full_size.py FOLDER [--size base] [--parts language] [--steps 8] [--device cpu]
    python benchmarks/train_full_size.py FOLDER --parts language,vision,projector,head --steps 4
    python benchmarks/train_full_size.py FOLDER --size large --recipe card --steps 20 --batch-size 8 --device cuda

The plain loop is what one would write by hand with transformers and peft: the model as `from_pretrained` gives it, the
native forward pass with its loss, an image for every question, AdamW, the same adapter and dtype. Both see the same
questions, without dropout and augmentation, so their losses have to be the same: the script fails if they aren't. Each
runs in a process of its own; the memory is the device's, on the CPU the process's. "later" are the epochs after the
first one, in which the trainer has image features already if the vision tower doesn't learn.
"""

import argparse
import itertools
import json
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOKENIZER = Path("../shared/reference/florence2-tokenizer")
DATA = Path("../shared/data/nuts")
PIXELS = {"size": {"height": 768, "width": 768}, "resample": 3}
N_IMAGES = {"train": 2, "valid": 1, "test": 1}
TARGETS = {
    "language": r"language_model\..*\.(?:q_proj|k_proj|v_proj|out_proj|fc1|fc2)",
    "vision": r"vision_tower\..*\.(?:qkv|proj|fc1|fc2)",
    "projector": r"multi_modal_projector\.image_projection",
    "head": r"lm_head",
}
TOLERANCE = {"float32": 1e-5}
"""Of a loss, as a share of it; in half precision much more."""


def save_model(folder: Path, size: str) -> None:
    """Write a model of random weights, without dropout, as a native folder."""
    from full_size_florence import full_size_model

    network = full_size_model(size, TOKENIZER).network
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        setattr(network.config.text_config, name, 0.0)
    network.save_pretrained(folder)
    shutil.copyfile(TOKENIZER / "tokenizer.json", folder / "tokenizer.json")
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))


def save_data(folder: Path) -> None:
    """Write a few photographs as a data set with splits."""
    document = json.loads((DATA / "trainval.json").read_text())
    images = iter(document["images"])
    for split, n_images in N_IMAGES.items():
        (folder / split).mkdir(parents=True)
        chosen = [next(images) for _ in range(n_images)]
        ids = {one["id"] for one in chosen}
        found = [one for one in document["annotations"] if one["image_id"] in ids]
        for one in chosen:
            shutil.copyfile(DATA / "images" / one["file_name"], folder / split / one["file_name"])
        content = {"images": chosen, "categories": document["categories"], "annotations": found}
        (folder / split / "_annotations.coco.json").write_text(json.dumps(content))


def settings_of(chosen: argparse.Namespace) -> Any:
    """The settings that both ways have."""
    from grounded_seg.train.recipes import settings_from

    given = {
        "dataset": chosen.folder / "data",
        "output": chosen.folder / "run",
        "detector": str(chosen.folder / "model"),
        "device": chosen.device,
        "parts": chosen.parts,
        "batch_size": chosen.batch_size,
        "max_steps": chosen.steps,
        "epochs": chosen.steps,
        "schedule": "constant",
        "dropout": 0.0,
        "negative_ratio": 0.0,
        "report": False,
        "augment": False,
        "eval_images": 1,
    }
    return settings_from(chosen.recipe, None, given)


def by_trainer(chosen: argparse.Namespace) -> dict[str, Any]:
    """Train as users do; the time of each step is that between its lines of figures."""
    from grounded_seg.train import train
    from grounded_seg.train.fit import loss
    from grounded_seg.train.measure.metrics import Answered

    # Steps are measured, and random weights never end an answer.
    loss.answered = lambda _model, questions, *_: [Answered(one, "") for one in questions]
    shutil.rmtree(chosen.folder / "run", ignore_errors=True)
    rows: list[dict[str, Any]] = []
    train(settings_of(chosen), watcher=lambda row: rows.append({**row, "moment": time.perf_counter()}))
    return measured(chosen, rows)


def by_hand(chosen: argparse.Namespace) -> dict[str, Any]:
    """Train the same questions in a plain loop."""
    import torch
    from accelerate.utils import set_seed
    from peft import LoraConfig, get_peft_model
    from transformers import Florence2ForConditionalGeneration

    from grounded_seg.device.choose import resolve_device, resolve_dtype
    from grounded_seg.train.data.samples import AnswerWriter, ImageStore, QuestionDataset
    from grounded_seg.train.fit.preparation import prepare

    settings = settings_of(chosen)
    # Only the questions and their batches are ours; the output folder is that of no training.
    prepared = prepare(settings, resume=False)
    collator, writer, steps_per_epoch = prepared.collator, AnswerWriter(prepared.florence), prepared.steps_per_epoch
    questions = QuestionDataset(prepared.plan, writer, ImageStore(settings.image_size), None, settings.seed)
    # With the trainer's own model.
    del prepared
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(settings.models.dtype, device)
    network = Florence2ForConditionalGeneration.from_pretrained(chosen.folder / "model", dtype=torch.float32)
    set_seed(settings.seed)
    targets = "|".join(TARGETS[part] for part in sorted(settings.parts))
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=0.0, target_modules=rf"(?:.*\.)?(?:{targets})"
    )
    model = get_peft_model(network, config).to(device).train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=settings.lr)
    image_id, n_image_tokens = network.config.image_token_id, 577
    rows: list[dict[str, Any]] = []
    for step in range(chosen.steps):
        epoch, number = divmod(step, steps_per_epoch)
        questions.set_epoch(epoch)
        places = range(number * chosen.batch_size, min((number + 1) * chosen.batch_size, len(questions)))
        batch = collator([questions[place] for place in places])
        batch = {name: value.to(device) for name, value in batch.items()}
        image_ids = torch.full((len(places), n_image_tokens), image_id, device=device)
        with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
            loss = model(
                input_ids=torch.cat([image_ids, batch["input_ids"]], 1),
                attention_mask=torch.cat([torch.ones_like(image_ids), batch["attention_mask"]], 1),
                pixel_values=batch["pixel_values"][batch["image_index"]],
                labels=batch["labels"],
            ).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
        optimizer.step()
        share = (number + 1) / steps_per_epoch
        rows.append({"loss": loss.item(), "epoch": epoch + share, "moment": time.perf_counter()})
    return measured(chosen, rows) | {"dtype": str(dtype).removeprefix("torch.")}


def measured(chosen: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Losses; median seconds of a step in the first epoch (without its first) and later; peak memory in GB.

    An image counts once for each question about it, although the trainer encodes it once a batch.
    """
    import torch

    first, later = [], []
    for before, row in itertools.pairwise(rows):
        if "loss" in row:
            (first if row["epoch"] <= 1 else later).append(row["moment"] - before["moment"])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if chosen.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    return {
        "losses": [row["loss"] for row in rows if "loss" in row],
        "first": statistics.median(first) if first else None,
        "later": statistics.median(later) if later else None,
        "peak_gb": peak / 1e9,
    }


def compare(chosen: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> None:
    """Print both ways and their ratio; `SystemExit` if their losses differ, or nothing was compared."""
    trainer, plain = figures["trainer"], figures["plain"]
    print(f"{chosen.size}, {chosen.parts}, {chosen.steps} steps of {chosen.batch_size} questions on {chosen.device}")
    for epochs in ("first", "later"):
        if trainer[epochs] is None or plain[epochs] is None:
            continue
        for way, one in figures.items():
            speed = f"{one[epochs]:7.2f} s a step  {chosen.batch_size / one[epochs]:6.2f} images/s"
            print(f"{epochs:6} {way:8} {speed}  {one['peak_gb']:5.1f} GB")
        print(f"{epochs:6} trainer / plain loop: {trainer[epochs] / plain[epochs]:.2f}")
    pairs = list(zip(trainer["losses"], plain["losses"], strict=True))
    largest = max((abs(one - other) / other for one, other in pairs), default=1.0)
    print(f"{len(pairs)} losses, {pairs[0][0]:.6f} to {pairs[-1][0]:.6f}, at most {largest:.1e} apart")
    if len(pairs) != chosen.steps or largest > TOLERANCE.get(plain["dtype"], 2e-2):
        raise SystemExit("the losses differ")


def held(chosen: argparse.Namespace, figures: dict[str, dict[str, Any]]) -> int:
    """Hold the trainer's share of the plain loop's time against its bounds; 1 if one isn't met."""
    from must_hold import MustHold, not_full_size

    holds, parts = MustHold(), set(chosen.parts.split(","))
    for name, wanted, epochs, most in (
        ("an adapter over everything", set(TARGETS), "first", 0.8),
        ("one of the language part, from the second epoch on", {"language"}, "later", 0.5),
    ):
        trainer, plain = (figures[way][epochs] for way in ("trainer", "plain"))
        unless = not_full_size(chosen.size, "base") or ("" if parts == wanted else f"--parts is {chosen.parts}")
        if not (trainer and plain):
            unless = unless or "too few --steps"
        holds.at_most(
            f"{name}, share of the plain loop", trainer / plain if trainer and plain else None, most, unless=unless
        )
    return holds.exit_code()


def main() -> int:
    """Run both ways and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--size", choices=("tiny", "base", "large"), default="base")
    options.add_argument("--recipe", choices=("card", "quick"))
    options.add_argument("--parts", default="language")
    options.add_argument("--steps", type=int, default=8)
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--device", default="cpu")
    options.add_argument("--way", choices=("trainer", "plain"), help="for the script itself")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    if chosen.way:
        found = by_trainer(chosen) if chosen.way == "trainer" else by_hand(chosen)
        (chosen.folder / f"{chosen.way}.json").write_text(json.dumps(found))
        return 0
    if not (chosen.folder / "model").exists():
        save_model(chosen.folder / "model", chosen.size)
    if not (chosen.folder / "data").exists():
        save_data(chosen.folder / "data")
    figures = {}
    for way in ("trainer", "plain"):
        shutil.rmtree(chosen.folder / "run", ignore_errors=True)
        subprocess.run([sys.executable, *sys.argv, "--way", way], check=True)
        figures[way] = json.loads((chosen.folder / f"{way}.json").read_text())
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    compare(chosen, figures)
    return held(chosen, figures)


if __name__ == "__main__":
    sys.exit(main())
