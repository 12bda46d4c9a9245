"""How long a folder takes beside what its models take, and whether its memory stays flat.

    python benchmarks/folder_speed.py [--images 200 2000] [--batch-size 1] [--output folder_speed.json]

Renders that many scenes and runs the demo preset on them, each number in a process of its own: `grounded-seg run`
with its overlays. The ratio is the wall time from the first image to the last file, over the seconds in the detector
and the segmenter. Reading and writing go on beside these; their seconds are summed over their threads. On a machine
with few cores they slow the models down, which this ratio hides: so the smallest number is also run through the models
with nothing beside them, and the wall time set against that. Memory is the process's peak.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from own_process import run_command_line
from PIL import Image

from grounded_seg.scenes import Split, render_scene

LIMIT_RATIO, LIMIT_GROWTH = 1.15, 1.10
PROMPT = "red car; ball"
ALONE = (
    "import sys\n"
    "from pathlib import Path\n"
    "from grounded_seg import GroundedSegmenter\n"
    "paths = sorted(Path(sys.argv[1]).iterdir())\n"
    "results = GroundedSegmenter.from_preset('demo').stream(paths, sys.argv[2], int(sys.argv[3]))\n"
    "print(sum(sum(result.seconds.values()) for result in results))\n"
)


def render(folder: Path, n_images: int) -> None:
    """Write scenes that no training saw."""
    folder.mkdir()
    for index in range(n_images):
        Image.fromarray(render_scene(Split.TEST, index).pixels).save(folder / f"{index:05}.jpg", quality=92)


def measure(photos: Path, out: Path, batch_size: int) -> dict[str, Any]:
    """Run once, and give the seconds of each part and the peak memory in MB."""
    n_images = len(list(photos.iterdir()))
    options = ["--preset", "demo", "--batch-size", str(batch_size)]
    _, peak_mb = run_command_line("run", PROMPT, str(photos), "-o", str(out), *options)
    manifest = json.loads((out / "run.json").read_text())
    n_lines = len((out / "results.jsonl").read_text().splitlines())
    coco = json.loads((out / "annotations.json").read_text())
    assert manifest["counts"]["done"] == n_lines == len(coco["images"]) == n_images
    assert manifest["counts"]["instances"] == len(coco["annotations"]) > 0
    seconds = manifest["seconds"]
    wall_s, compute_s = seconds["total"] - seconds["load"], seconds["detect"] + seconds["segment"]
    return {
        "images": n_images,
        **{f"{stage}_s": round(seconds[stage], 2) for stage in ("load", "read", "detect", "segment", "write")},
        "wall_s": round(wall_s, 2),
        "images_per_s": round(n_images / wall_s, 2),
        "ratio": round(wall_s / compute_s, 3),
        "peak_mb": round(peak_mb, 1),
    }


def measure_alone(photos: Path, batch_size: int) -> float:
    """Give the models' seconds where nothing is read or written beside them."""
    command = [sys.executable, "-c", ALONE, str(photos), PROMPT, str(batch_size)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> int:
    """Measure and print; 1 if a limit is passed."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, nargs="+", default=[200, 2000])
    options.add_argument("--batch-size", type=int, default=1)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = [Path(folder, f"photos-{n_images}") for n_images in chosen.images]
        for place, n_images in zip(photos, chosen.images, strict=True):
            render(place, n_images)
        runs = [measure(place, Path(folder, f"out-{place.name}"), chosen.batch_size) for place in photos]
        alone_s = round(measure_alone(photos[0], chosen.batch_size), 2)
    print("  ".join(f"{name:>12}" for name in runs[0]))
    for run in runs:
        print("  ".join(f"{value:>12}" for value in run.values()))
    alone_ratio = round(runs[0]["wall_s"] / alone_s, 3)
    print(
        f"{chosen.images[0]} images through the models alone: {alone_s} s, ratio of the wall time to that {alone_ratio}"
    )
    growth = runs[-1]["peak_mb"] / runs[0]["peak_mb"]
    print(f"peak memory at {chosen.images[-1]} images is {growth:.3f} of that at {chosen.images[0]}")
    if chosen.output:
        figures = {
            "cores": os.cpu_count(),
            "batch_size": chosen.batch_size,
            "runs": runs,
            "alone_s": alone_s,
            "alone_ratio": alone_ratio,
            "growth": round(growth, 3),
        }
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return int(growth > LIMIT_GROWTH or runs[-1]["ratio"] > LIMIT_RATIO)


if __name__ == "__main__":
    sys.exit(main())
