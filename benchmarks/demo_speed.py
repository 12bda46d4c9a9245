"""How long the command line takes: `--help`, one image from start to files, and each further image.

    python benchmarks/demo_speed.py [--images 20] [--output demo_speed.json]

Every figure is the wall time of the installed command in a process of its own, the demo preset on the CPU. Each run is
printed as it ends, the figures at the end.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from grounded_seg.scenes import Split, render_scene

COMMAND = [sys.executable, "-m", "grounded_seg.cli"]
REPEATS = 3


def seconds_of(what: str, *arguments: str) -> float:
    """Median wall time of the command over a few runs, after one to warm the disk's cache; each is printed."""
    times = []
    for number in range(REPEATS + 1):
        start = time.perf_counter()
        subprocess.run([*COMMAND, *arguments], check=True, capture_output=True)
        times.append(time.perf_counter() - start)
        counted = f"{number} of {REPEATS}" if number else "doesn't count"
        print(f"{what}, {counted}: {times[-1]:.2f} s", flush=True)
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=20, help="further images in the longer run")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scenes = Path(folder, "scenes")
        scenes.mkdir()
        for index in range(chosen.images + 1):
            Image.fromarray(render_scene(Split.TEST, index).pixels).save(scenes / f"{index:03d}.jpg", quality=92)
        run = ["--preset", "demo", "--device", "cpu", "--overwrite", "-o", str(Path(folder, "out"))]
        one = seconds_of("one image", "run", "red car", str(scenes / "000.jpg"), *run)
        many = seconds_of(f"{chosen.images + 1} images", "run", "red car", str(scenes), *run)
    figures = {
        "cores": os.cpu_count(),
        "help_s": round(seconds_of("--help", "--help"), 2),
        "one_image_s": round(one, 2),
        "each_further_image_s": round((many - one) / chosen.images, 3),
    }
    width = max(map(len, figures))
    print("\n".join(f"{name:{width}}  {value}" for name, value in figures.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
