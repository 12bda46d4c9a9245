"""Show that the ways to run many images end in the same bytes: plain, as shards merged, by several workers.

    python benchmarks/ways_to_run.py [--images 500] [--batch-size 4] [--only shards ...] [--output ways_to_run.json]

Renders that many scenes into nested folders, every fiftieth a damaged file, and runs the demo preset on them on the
CPU in float32, each way with the same batch size and threads, each command in a process of its own. annotations.json
and results.jsonl of each way are compared with those of the plain run, byte by byte. The script ends with 1 where any
differ, or where less was compared than there has to be.
"""

import argparse
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from own_process import run_command_line
from PIL import Image

from grounded_seg.scenes import Split, render_scene

PROMPT = "red car; ball; tree"
DEMO = ("--preset", "demo", "--dtype", "float32", "--save", "none", "--quiet")
FILES = ("annotations.json", "results.jsonl")
N_SHARDS = 3
DAMAGED_EACH = 50


@dataclass(frozen=True)
class Asked:
    """What every way gets."""

    photos: Path
    folder: Path
    """For the way's own runs."""
    batch_size: int

    def run(self, output: Path, *options: str) -> Path:
        """Run on all images, or as the options say."""
        words = ("run", PROMPT, str(self.photos), "-o", str(output), "--batch-size", str(self.batch_size), *DEMO)
        # Damaged images are skipped, which is exit code 1.
        where = () if "--devices" in options else ("--device", "cpu")
        run_command_line(*words, *where, *options, allowed=(0, 1))
        return output


def plain(asked: Asked) -> Path:
    """One run."""
    return asked.run(asked.folder / "out")


def shards(asked: Asked) -> Path:
    """Every shard of the list, then merged; the last one first."""
    for number in range(N_SHARDS, 0, -1):
        asked.run(asked.folder / f"shard-{number}", "--shard", f"{number}/{N_SHARDS}")
    run_command_line("merge-runs", str(asked.folder / "shard-*"), "-o", str(asked.folder / "out"), "--quiet")
    return asked.folder / "out"


def devices(asked: Asked) -> Path:
    """Two processes."""
    return asked.run(asked.folder / "out", "--devices", "cpu,cpu")


def ray(asked: Asked) -> Path:
    """Two actors of Ray."""
    return asked.run(asked.folder / "out", "--engine", "ray", "--workers", "2")


WAYS: dict[str, Callable[[Asked], Path]] = {"plain": plain, "shards": shards, "devices": devices, "ray": ray}
"""Each gives the folder of its result; the first is what the others are compared with."""


def render(photos: Path, n_images: int) -> None:
    """Write scenes that no training saw, in folders of three depths, and damaged files among them."""
    for index in range(n_images):
        path = photos / ("", "a", "a/deep", "b")[index % 4] / f"{index:05}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if index % DAMAGED_EACH == DAMAGED_EACH // 2:
            path.write_bytes(b"damaged")
        else:
            Image.fromarray(render_scene(Split.TEST, index).pixels).save(path, quality=92)


def hashes(result: Path, n_images: int) -> dict[str, str]:
    """Hash the compared files of a result, after a look whether all is there."""
    lines = [json.loads(line) for line in (result / "results.jsonl").read_text().splitlines()]
    n_damaged = sum(index % DAMAGED_EACH == DAMAGED_EACH // 2 for index in range(n_images))
    assert len(lines) == n_images
    assert sum(line["status"] == "skipped" for line in lines) == n_damaged
    assert sum(len(line["instances"]) for line in lines) >= n_images // 2
    return {name: hashlib.sha256((result / name).read_bytes()).hexdigest() for name in FILES}


def main() -> int:
    """Run each way, and compare; 1 if anything differs."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, default=500)
    options.add_argument("--batch-size", type=int, default=4)
    options.add_argument("--only", nargs="+", choices=list(WAYS)[1:], help="ways to compare with plain")
    options.add_argument("--output", type=Path, help="write the table as JSON")
    chosen = options.parse_args()
    names = ["plain", *(chosen.only or list(WAYS)[1:])]
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder, "photos")
        render(photos, chosen.images)
        expected: dict[str, str] = {}
        for name in names:
            started = time.perf_counter()
            own = Path(folder, name)
            found = hashes(WAYS[name](Asked(photos, own, chosen.batch_size)), chosen.images)
            expected = expected or found
            same = [file for file in FILES if found[file] == expected[file]]
            rows.append({"way": name, "seconds": round(time.perf_counter() - started, 1), "same": same})
            print(f"{name:12} {rows[-1]['seconds']:8.1f} s  same bytes: {', '.join(same) or 'none'}", flush=True)
    n_compared = sum(len(row["same"]) for row in rows[1:])
    print(f"{chosen.images} images, {n_compared} of {len(FILES) * (len(names) - 1)} files with the same bytes")
    if chosen.output:
        figures = {"cores": os.cpu_count(), "images": chosen.images, "batch_size": chosen.batch_size, "ways": rows}
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return int(len(names) < 2 or n_compared < len(FILES) * (len(names) - 1))


if __name__ == "__main__":
    sys.exit(main())
