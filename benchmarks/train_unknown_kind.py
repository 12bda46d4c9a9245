"""Tune the bare demo base for a kind that it doesn't know, on rendered scenes, and measure what came of it.

    python benchmarks/train_unknown_kind.py FOLDER [--without-negatives] [--output train_unknown_kind.json]

Renders a COCO data set into FOLDER/scenes (objects of at least a fifth of the side, up to four a scene, all six kinds
labelled) and runs `grounded-seg train` on it as a user would; the base was taught that cars aren't there. The report
compares base and tuned on scenes of the test split. With --without-negatives a second training shows what they are for.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from PIL import Image
from render_dataset import shape_of

from grounded_seg.scenes import KINDS, Split, render_scene

UNKNOWN = "car"
SHORT_SIDE, MAX_OBJECTS = 240, 4
FIRST_SCENE = 2_000_000
"""The demo's own training ends far below."""
OPTIONS = (
    *("--preset", "demo", "--parts", "language,vision,projector", "--rank", "16", "--alpha", "32", "--dropout", "0"),
    *("--lr", "2e-3", "--batch-size", "64", "--warmup-steps", "40", "--location-spread", "3", "--eval-images", "20"),
    *("--negative-ratio", "1"),
)


def render(folder: Path, split: Split, n_scenes: int, smallest: float) -> None:
    """Write one split: scenes in which nothing is smaller than this share of the side."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = {name: number for number, name in enumerate(KINDS, start=1)}
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    document: dict[str, Any] = {"images": [], "annotations": [], "categories": categories}
    index = FIRST_SCENE
    while len(document["images"]) < n_scenes:
        scene = render_scene(split, index, short_side=SHORT_SIDE, max_objects=MAX_OBJECTS)
        index += 1
        if min(one.relative_size for one in scene.objects) < smallest:
            continue
        number, file_name = len(document["images"]) + 1, f"{index - 1}.png"
        Image.fromarray(scene.pixels).save(folder / file_name)
        size = {"width": scene.size.width, "height": scene.size.height}
        document["images"].append({"id": number, "file_name": file_name, **size})
        for one in scene.objects:
            known = {"id": len(document["annotations"]) + 1, "image_id": number, "category_id": ids[one.kind]}
            document["annotations"].append(known | shape_of(one))
    (folder / "_annotations.coco.json").write_text(json.dumps(document) + "\n")


def train(scenes: Path, run: Path, epochs: int, *more: str) -> dict[str, Any]:
    """Train through the command line; the figures of its report, and its minutes."""
    command = [sys.executable, "-m", "grounded_seg.cli", "train", str(scenes), "-o", str(run), "--epochs", str(epochs)]
    started = time.monotonic()
    subprocess.run([*command, *OPTIONS, *more], check=True)
    manifest = json.loads((run / "run.json").read_text())
    return {"minutes": (time.monotonic() - started) / 60, "steps": manifest["steps"], **manifest["test"]}


def main() -> None:
    """Render, train and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--train", type=int, default=1200, help="scenes to learn from")
    options.add_argument("--test", type=int, default=150, help="scenes to measure on")
    options.add_argument("--smallest", type=float, default=0.2, help="smallest object, as a share of the side")
    options.add_argument("--epochs", type=int, default=4)
    options.add_argument("--without-negatives", action="store_true", help="train a second time, without them")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scenes = chosen.folder / "scenes"
    if not scenes.exists():
        for name, split, n in (
            ("train", Split.TRAIN, chosen.train),
            ("valid", Split.VALID, 40),
            ("test", Split.TEST, chosen.test),
        ):
            render(scenes / name, split, n, chosen.smallest)
    figures = {"with negatives": train(scenes, chosen.folder / "run", chosen.epochs)}
    if chosen.without_negatives:
        run = chosen.folder / "run-without-negatives"
        figures["without negatives"] = train(scenes, run, chosen.epochs, "--negative-ratio", "0")
    for name, one in figures.items():
        kinds = one["per_class"]
        known = [kinds[kind]["tuned"] - kinds[kind]["base"] for kind in kinds if kind != UNKNOWN]
        print(f"{name}: {one['minutes']:.1f} minutes, {one['steps']} steps")
        print(f"  {UNKNOWN} box AP         {kinds[UNKNOWN]['base']:.3f} -> {kinds[UNKNOWN]['tuned']:.3f}")
        print(f"  known kinds, worst    {min(known):+.3f}, mean {sum(known) / len(known):+.3f}")
        for what in ("present", "absent"):
            share = one[f"{what} prompts with a box"]
            print(f"  {what} prompts with a box {share['base']:.3f} -> {share['tuned']:.3f}")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
