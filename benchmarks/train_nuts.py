"""The whole loop on real photographs: a COCO file in, a model out, `run` and `eval` with it.

    python benchmarks/train_nuts.py FOLDER [--data ../shared/data/nuts] [--output train_nuts.json]

The demo's small model learns ten photographs by heart, with full tuning: what is measured is that learning works, not
that it generalises. The same ten are train, valid and test; 18 photographs in all, the others stay unused.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

N_IMAGES = 10


def main() -> None:
    """Prepare, train, run, eval, print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--data", type=Path, default=Path("../shared/data/nuts"))
    options.add_argument("--epochs", type=int, default=150)
    options.add_argument("--lr", default="1e-3")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scenes = chosen.folder / "photos"
    write_splits(chosen.data, scenes)
    run = chosen.folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    started = time.monotonic()
    tool = [sys.executable, "-m", "grounded_seg.cli"]
    subprocess.run(
        [
            *(*tool, "train", str(scenes), "-o", str(run), "--preset", "demo", "--method", "full"),
            *("--parts", "language,vision,projector,head", "--epochs", str(chosen.epochs), "--lr", chosen.lr),
            *("--batch-size", "30", "--no-augment", "--location-spread", "1", "--warmup-steps", "20"),
            *("--weight-decay", "0", "--eval-images", "2", "--keep", "1", "--best-metric", "loss"),
        ],
        check=True,
    )
    minutes = (time.monotonic() - started) / 60
    prompts = "date; fig; hazelnut"
    models = ["--preset", "demo", "--detector", str(run / "model"), "--adapter", "none"]
    found = chosen.folder / "found"
    subprocess.run([*tool, "run", prompts, str(scenes / "test"), "-o", str(found), "--overwrite", *models], check=True)
    report = chosen.folder / "eval.json"
    subprocess.run(
        [*tool, "eval", str(run / "test.json"), "--images", str(scenes / "test"), "--json", str(report), *models],
        check=True,
    )
    boxes = json.loads(report.read_text())["boxes"]
    figures = {"minutes": minutes, "AP50": boxes["AP50"], "AP": boxes["AP"], "images": N_IMAGES}
    print(f"train AP50 {boxes['AP50']:.3f}, AP {boxes['AP']:.3f} on {N_IMAGES} photographs after {minutes:.1f} minutes")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


def write_splits(data: Path, folder: Path) -> None:
    """Write the first ten photographs as train, as valid and as test."""
    document = json.loads((data / "trainval.json").read_text())
    images = document["images"][:N_IMAGES]
    ids = {one["id"] for one in images}
    chosen: dict[str, Any] = {
        "images": images,
        "categories": document["categories"],
        "annotations": [one for one in document["annotations"] if one["image_id"] in ids],
    }
    for split in ("train", "valid", "test"):
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / split / "_annotations.coco.json").write_text(json.dumps(chosen))
        for one in images:
            shutil.copyfile(data / "images" / one["file_name"], folder / split / one["file_name"])


if __name__ == "__main__":
    main()
