"""Kill a training with signal 9 in the middle, go on, and compare its losses with those of one that was left alone.

    python benchmarks/train_resume.py FOLDER [--detector checkpoints/demo/detector] [--output train_resume.json]

Rendered scenes, the demo's base, dropout and augmentation on. The script fails if any loss differs by more than 1e-6.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from train_unknown_kind import render

from grounded_seg.scenes import Split

TOLERANCE = 1e-6


def losses(run: Path) -> list[float]:
    """The loss of each step that is written down, in order."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [row["loss"] for row in rows if "loss" in row]


def main() -> None:
    """Train, train and kill, go on, compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--detector", default="checkpoints/demo/detector")
    options.add_argument("--scenes", type=int, default=24)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--kill-at", type=int, nargs="+", default=[7, 12], help="steps after which it is killed")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scenes = chosen.folder / "scenes"
    if not scenes.exists():
        for name, split, n in (
            ("train", Split.TRAIN, chosen.scenes),
            ("valid", Split.VALID, 4),
            ("test", Split.TEST, 1),
        ):
            render(scenes / name, split, n, smallest=0.1)
    command = [
        *(sys.executable, "-m", "grounded_seg.cli", "train", str(scenes), "--detector", chosen.detector),
        *("--batch-size", "8", "--max-steps", str(chosen.steps), "--save-steps", "3", "--eval-images", "1"),
        *("--dropout", "0.1", "--lr", "1e-3", "--no-report", "--device", "cpu"),
    ]
    whole, killed = chosen.folder / "whole", chosen.folder / "killed"
    for run in (whole, killed):
        shutil.rmtree(run, ignore_errors=True)
    subprocess.run([*command, "-o", str(whole)], check=True, stdout=subprocess.DEVNULL)
    resume: list[str] = []
    for step in chosen.kill_at:
        process = subprocess.Popen([*command, "-o", str(killed), *resume], stdout=subprocess.DEVNULL)
        while len(losses(killed)) < step and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        print(f"killed after step {len(losses(killed))}")
        resume = ["--resume"]
    subprocess.run([*command, "-o", str(killed), "--resume"], check=True, stdout=subprocess.DEVNULL)
    expected, found = losses(whole), losses(killed)
    largest = max(abs(one - other) for one, other in zip(expected, found, strict=True))
    print(f"{len(expected)} steps, largest difference of a loss {largest:.2e}")
    if chosen.output:
        chosen.output.write_text(json.dumps({"whole": expected, "killed": found, "largest": largest}, indent=2) + "\n")
    assert largest <= TOLERANCE


if __name__ == "__main__":
    main()
