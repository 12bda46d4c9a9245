"""Training at full size with random weights: seconds a step, images/s and peak memory, beside a plain loop.

    python benchmarks/train_full_size.py FOLDER [--size base] [--steps 4] [--batch-size 1] [--device cpu]
    python benchmarks/train_full_size.py FOLDER --size large --recipe card --steps 20 --batch-size 8 --device cuda

The plain loop is what one would write by hand: the native forward pass, an image for every question, AdamW, the same
adapter and number format. Each runs in a process of its own; the memory is the device's, on the CPU the process's.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TOKENIZER = Path("../shared/reference/florence2-tokenizer")
DATA = Path("../shared/data/nuts/trainval.json")
PIXELS = {"size": {"height": 768, "width": 768}, "resample": 3}


def save_model(folder: Path, size: str) -> None:
    """Write a model of random weights as a native folder."""
    from full_size_florence import full_size_model

    full_size_model(size, TOKENIZER).network.save_pretrained(folder)
    shutil.copyfile(TOKENIZER / "tokenizer.json", folder / "tokenizer.json")
    (folder / "preprocessor_config.json").write_text(json.dumps(PIXELS))


def settings_of(chosen: argparse.Namespace) -> Any:
    """The settings that both ways have."""
    from grounded_seg.train.recipes import settings_from

    given = {
        "dataset": DATA,
        "output": chosen.folder / "run",
        "detector": str(chosen.folder / "model"),
        "device": chosen.device,
        "batch_size": chosen.batch_size,
        "max_steps": chosen.steps,
        "epochs": chosen.steps,
        "report": False,
        "augment": False,
        "eval_images": 1,
    }
    return settings_from(chosen.recipe, None, given)


def by_trainer(chosen: argparse.Namespace) -> dict[str, float]:
    """Train as users do; the time of each step is that between its lines of figures."""
    from grounded_seg.train import train

    shutil.rmtree(chosen.folder / "run", ignore_errors=True)
    moments: list[float] = []
    started = time.perf_counter()
    report = train(
        settings_of(chosen), watcher=lambda row: moments.append(time.perf_counter()) if "loss" in row else None
    )
    losses = [json.loads(line) for line in report.folder.metrics.read_text().splitlines()]
    return measured(chosen, moments, started) | {"loss": losses[0]["loss"]}


def by_hand(chosen: argparse.Namespace) -> dict[str, float]:
    """Train the same questions in a plain loop."""
    import torch

    from grounded_seg.detect.model.load import load_florence
    from grounded_seg.device.choose import resolve_device, resolve_dtype
    from grounded_seg.train.data.data_set import read_training_data
    from grounded_seg.train.data.questions import QuestionPlan
    from grounded_seg.train.data.samples import AnswerWriter, Collator, ImageStore, QuestionDataset
    from grounded_seg.train.fit.trainable import make_trainable

    settings = settings_of(chosen)
    data = read_training_data(settings)
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(settings.models.dtype, device)
    florence = load_florence(chosen.folder / "model")
    torch.manual_seed(settings.seed)
    model = make_trainable(florence.network, settings).to(device).train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=settings.lr)
    plan = QuestionPlan(data.train.examples, data.classes, settings.prompt_form, settings.negative_ratio, settings.seed)
    questions = QuestionDataset(plan, AnswerWriter(florence), ImageStore(settings.image_size), None, settings.seed)
    collator = Collator(florence.pixels, florence.vocabulary.pad_id)
    image_id = florence.network.config.image_token_id
    moments: list[float] = []
    started = time.perf_counter()
    loss = torch.zeros(())
    for step in range(chosen.steps):
        places = [(step * chosen.batch_size + number) % len(questions) for number in range(chosen.batch_size)]
        batch = collator([questions[place] for place in places])
        batch = {name: value.to(device) for name, value in batch.items()}
        n_image_tokens = 577
        image_ids = torch.full((chosen.batch_size, n_image_tokens), image_id, device=device)
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
        loss.item()
        moments.append(time.perf_counter())
    return measured(chosen, moments, started) | {"loss": loss.item()}


def measured(chosen: argparse.Namespace, moments: list[float], started: float) -> dict[str, float]:
    """Seconds of a step (without the first, where there are more), images/s, and peak memory in GB.

    An image counts once for each question about it, although the trainer encodes it once a batch.
    """
    import torch

    # Until the first step the trainer also reads the data and loads the model.
    whole = moments[0] - started if len(moments) == 1 else (moments[-1] - moments[0]) / (len(moments) - 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if chosen.device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated()
    return {"step_s": whole, "images_per_s": chosen.batch_size / whole, "peak_gb": peak / 1e9}


def main() -> None:
    """Run both ways and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--size", choices=("tiny", "base", "large"), default="base")
    options.add_argument("--recipe", choices=("card", "quick"))
    options.add_argument("--steps", type=int, default=4)
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--device", default="cpu")
    options.add_argument("--way", choices=("trainer", "plain"), help="for the script itself")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    if chosen.way:
        found = by_trainer(chosen) if chosen.way == "trainer" else by_hand(chosen)
        (chosen.folder / f"{chosen.way}.json").write_text(json.dumps(found))
        return
    if not (chosen.folder / "model").exists():
        save_model(chosen.folder / "model", chosen.size)
    figures = {}
    for way in ("trainer", "plain"):
        subprocess.run([sys.executable, *sys.argv, "--way", way], check=True)
        figures[way] = json.loads((chosen.folder / f"{way}.json").read_text())
    print(f"{chosen.size}, {chosen.steps} steps of {chosen.batch_size} questions on {chosen.device}")
    for way, one in figures.items():
        speed = f"{one['step_s']:7.2f} s a step  {one['images_per_s']:6.2f} images/s"
        print(f"{way:8}  {speed}  {one['peak_gb']:5.1f} GB")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
