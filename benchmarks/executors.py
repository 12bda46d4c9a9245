"""What workers cost and bring: `--devices` and `--engine ray` beside a run in one process.

    python benchmarks/executors.py [--images 500] [--rounds 3] [--batch-size 4] [--ways ...] [--output executors.json]

The demo preset on rendered scenes, boxes and no pictures, so that the models take as little of the time as they can.
Each way is a process of its own, the ways take turns, and the median of the rounds counts. The time is that from the
first image to the last: loading the models, and starting and ending processes or cluster, is printed apart. One worker
on the CPU must take at most 1.10 of the local run's time; what two take on this machine's cores, half of its threads
each, is printed. Those with as many threads must leave the same results.

With --output the rounds are added to those that the file has: so long measurements can be taken in pieces.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path

from folder_kills import COMMAND, hashes
from folder_speed import render

LIMIT_RATIO = 1.10
WAYS = {
    "local": [],
    "one process": ["--devices", "cpu"],
    "one Ray worker": ["--engine", "ray", "--workers", "1"],
    "two processes": ["--devices", "cpu,cpu"],
    "two Ray workers": ["--engine", "ray", "--workers", "2"],
}


def measure(way: str, photos: Path, out: Path, batch_size: int, n_threads: int) -> tuple[float, float]:
    """Run once, and give the seconds from the first image to the journal's last line, and those before and after."""
    command = [*COMMAND, str(photos), "--batch-size", str(batch_size), "--boxes-only", "--save", "none", "--quiet"]
    subprocess.run(
        [*command, "-o", str(out), *WAYS[way]],
        check=True,
        capture_output=True,
        env={**os.environ, "OMP_NUM_THREADS": str(n_threads)},
    )
    manifest = json.loads((out / "run.json").read_text())
    started = datetime.fromisoformat(manifest["started"]["time"]).timestamp()
    seconds = (out / "results.jsonl").stat().st_mtime - started
    return seconds, manifest["seconds"]["total"] - seconds


def main() -> int:
    """Measure and print; 1 if a worker costs too much, or results differ."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, default=500)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options.add_argument("--output", type=Path, help="keep the figures as JSON")
    chosen = options.parse_args()
    kept = json.loads(chosen.output.read_text()) if chosen.output and chosen.output.exists() else {}
    are_same = True
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        render(photos, chosen.images)
        first: dict[int, dict[str, str]] = {}
        for number in range(chosen.rounds):
            for way in chosen.ways:
                out = Path(folder, f"{way}-{number}")
                n_threads = max(1, chosen.threads // 2) if way.startswith("two") else chosen.threads
                wall_s, load_s = measure(way, photos, out, chosen.batch_size, n_threads)
                are_same &= hashes(out) == first.setdefault(n_threads, hashes(out))
                kept.setdefault(way, []).append([round(wall_s, 2), round(load_s, 2)])
                print(
                    f"{way:16} {wall_s:7.2f} s from first to last image, {load_s:6.2f} s before and after", flush=True
                )
                if chosen.output:
                    chosen.output.write_text(json.dumps(kept, indent=2) + "\n")
    medians = {way: statistics.median(wall_s for wall_s, _ in rounds) for way, rounds in kept.items()}
    ratios = {way: seconds / medians["local"] for way, seconds in medians.items()} if "local" in medians else {}
    for way, ratio in ratios.items():
        print(f"{way:16} {ratio:.3f} of the local run, median of {len(kept[way])}")
    print(f"same results: {are_same}")
    return int(not are_same or any(ratio > LIMIT_RATIO for way, ratio in ratios.items() if way.startswith("one")))


if __name__ == "__main__":
    sys.exit(main())
