"""The whole loop on real photographs: a COCO file in, a model out, `run` and `eval` with it.

    python benchmarks/train_nuts.py FOLDER [--data ../shared/data/nuts] [--output train_nuts.json]

First all 18 photographs, split by seed: a few steps of an adapter, and `run` and `eval` with it, to see that the loop
closes. Then the demo's small model learns ten photographs by heart, with full tuning: what is measured is that learning
works, not that it generalises. The same ten are train, valid and test; in train each lies REPEATS times, so that an
epoch is long and the model isn't measured after each round. Many small steps rather than few large ones: the
demo's base takes all words that it was never taught for one, and learns to tell dates from figs last.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

N_IMAGES, REPEATS = 10, 20
PROMPTS = "date; fig; hazelnut"
TOOL = (sys.executable, "-m", "grounded_seg.cli")


def main() -> None:
    """Prepare, train, run, eval, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--data", type=Path, default=Path("../shared/data/nuts"))
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--lr", default="5e-4")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    close_the_loop(chosen.data, chosen.folder / "adapter-run")
    scenes = chosen.folder / "photos"
    write_splits(chosen.data, scenes)
    run = chosen.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    started = time.monotonic()
    subprocess.run(
        [
            *(*TOOL, "train", str(scenes), "-o", str(run), "--preset", "demo", "--method", "full"),
            *("--parts", "language,vision,projector,head", "--epochs", str(chosen.epochs), "--lr", chosen.lr),
            *("--batch-size", "15", "--no-augment", "--location-spread", "1", "--warmup-steps", "20"),
            *("--weight-decay", "0", "--eval-images", "2", "--keep", "1", "--best-metric", "loss"),
        ],
        check=True,
    )
    minutes = (time.monotonic() - started) / 60
    boxes = run_and_eval(run, scenes / "test", "--detector", str(run), "--adapter", "none")
    figures = {"minutes": minutes, "AP50": boxes["AP50"], "AP": boxes["AP"], "images": N_IMAGES}
    print(f"train AP50 {boxes['AP50']:.3f}, AP {boxes['AP']:.3f} on {N_IMAGES} photographs after {minutes:.1f} minutes")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


def close_the_loop(data: Path, run: Path) -> None:
    """Train an adapter on the COCO file as it is, and use it."""
    shutil.rmtree(run, ignore_errors=True)
    what = ["train", str(data / "trainval.json"), "-o", str(run), "--preset", "demo", "--recipe", "quick"]
    subprocess.run([*TOOL, *what, "--max-steps", "10"], check=True)
    boxes = run_and_eval(run, data / "images", "--adapter", str(run))
    print(f"an adapter of 10 steps: AP {boxes['AP']:.3f} on the photographs of the test split")


def run_and_eval(run: Path, images: Path, *models: str) -> dict[str, Any]:
    """Look for the classes on all images, and score the test split; the figures of the boxes."""
    options = ["--preset", "demo", *models]
    found, report = run.with_name(f"{run.name}-found"), run.with_name(f"{run.name}-eval.json")
    subprocess.run([*TOOL, "run", PROMPTS, str(images), "-o", str(found), "--overwrite", *options], check=True)
    scored = ["eval", str(run / "test.json"), "--images", str(images), "--json", str(report)]
    subprocess.run([*TOOL, *scored, *options], check=True)
    boxes: dict[str, Any] = json.loads(report.read_text())["boxes"]
    return boxes


def write_splits(data: Path, folder: Path) -> None:
    """Write the first ten photographs as train, as valid and as test."""
    document = json.loads((data / "trainval.json").read_text())
    photographs = document["images"][:N_IMAGES]
    for split, repeats in (("train", REPEATS), ("valid", 1), ("test", 1)):
        (folder / split).mkdir(parents=True, exist_ok=True)
        chosen: dict[str, Any] = {"images": [], "categories": document["categories"], "annotations": []}
        for repeat in range(repeats):
            for one in photographs:
                number, name = len(chosen["images"]) + 1, f"{repeat}-{one['file_name']}"
                shutil.copyfile(data / "images" / one["file_name"], folder / split / name)
                chosen["images"].append({**one, "id": number, "file_name": name})
                for known in document["annotations"]:
                    if known["image_id"] == one["id"]:
                        ids = {"id": len(chosen["annotations"]) + 1, "image_id": number}
                        chosen["annotations"].append({**known, **ids})
        (folder / split / "_annotations.coco.json").write_text(json.dumps(chosen))


if __name__ == "__main__":
    main()
