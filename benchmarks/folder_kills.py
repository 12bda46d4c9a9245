"""Kill a folder run at random moments, resume it each time, and compare with a run that nothing cut off.

    python benchmarks/folder_kills.py [--images 2000] [--kills 20] [--batch-size 2] [--seed 0] [--output kills.json]

The demo preset on rendered scenes. A kill is SIGKILL, to the process of `grounded-seg run --resume`; every fourth
comes at any time from its start on, the others when the journal has grown by a random number of lines. A kill is in
mid-journal where the killed process had written lines, but not the last one. Both runs have to leave the same bytes of
`annotations.json` and `results.jsonl`, and the same pictures; every image stands in the journal once.
"""

import argparse
import hashlib
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from PIL import Image

from grounded_seg.scenes import Split, render_scene

COMMAND = [sys.executable, "-m", "grounded_seg.cli", "run", "red car; ball", "--preset", "demo"]


def n_lines(out: Path) -> int:
    """Count the whole lines in the journal."""
    journal = out / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_moment(chance: random.Random, number: int, max_lines: int) -> tuple[int, float]:
    """Draw how many new lines to wait for, and how many seconds from then on."""
    if number % 4 == 3:
        return 0, chance.uniform(0, 10)
    # On average all kills together come about at the end.
    return chance.randint(1, max(1, max_lines)), chance.uniform(0, 0.1)


def kill_once(command: list[str], out: Path, n_images: int, n_new_lines: int, seconds: float) -> tuple[int, int]:
    """Start or resume the run and kill it; gives the lines that are in the journal before and then."""
    before = n_lines(out)
    wanted = min(before + n_new_lines, n_images)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and n_lines(out) < wanted:
            time.sleep(0.005)
        time.sleep(seconds)
        process.kill()
    return before, n_lines(out)


def hashes(out: Path) -> dict[str, str]:
    """Hash all files but run.json, which tells the time."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name != "run.json")
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def main() -> int:
    """Kill, resume, compare and print; 1 if anything differs, or too few kills came in mid-journal."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, default=2000)
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--batch-size", type=int, default=2)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    chance = random.Random(chosen.seed)  # noqa: S311  (reproducible is the point)
    with tempfile.TemporaryDirectory() as folder:
        photos, whole, cut_off = (Path(folder, name) for name in ("photos", "whole", "cut-off"))
        photos.mkdir()
        for index in range(chosen.images):
            Image.fromarray(render_scene(Split.TEST, index).pixels).save(photos / f"{index:05}.jpg", quality=92)
        command = [*COMMAND, str(photos), "--batch-size", str(chosen.batch_size), "-o"]
        subprocess.run([*command, str(whole)], check=True, capture_output=True)
        at_kills = []
        for number in range(chosen.kills):
            moment = kill_moment(chance, number, max_lines=2 * chosen.images // chosen.kills)
            before, lines = kill_once([*command, str(cut_off), "--resume"], cut_off, chosen.images, *moment)
            at_kills.append((before, lines))
            print(f"kill {number + 1}: {lines} of {chosen.images} lines, {lines - before} of them new", flush=True)
        subprocess.run([*command, str(cut_off), "--resume"], check=True, capture_output=True)
        names = [json.loads(line)["file_name"] for line in (cut_off / "results.jsonl").read_text().splitlines()]
        figures: dict[str, Any] = {
            "images": chosen.images,
            "kills": chosen.kills,
            "in_mid_journal": sum(before < lines < chosen.images for before, lines in at_kills),
            "each_image_once": names == [f"{index:05}.jpg" for index in range(chosen.images)],
            "same_bytes": hashes(whole) == hashes(cut_off),
        }
    print("\n".join(f"{name:16} {value}" for name, value in figures.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps({**figures, "lines_at_kills": at_kills}, indent=2) + "\n")
    is_right = figures["each_image_once"] and figures["same_bytes"]
    return int(not is_right or figures["in_mid_journal"] < chosen.kills // 2)


if __name__ == "__main__":
    sys.exit(main())
