"""Kill workers and drivers of a run at random moments, resume it, and compare with a run in one process.

    python benchmarks/worker_kills.py [--images 500] [--worker-kills 10] [--driver-kills 5] [--ways devices ray]
        [--batch-size 2] [--threads 1] [--seed 0] [--output worker_kills.json]

The demo preset on rendered scenes, in two workers: `--devices cpu,cpu` or `--engine ray --workers 2`. A kill is
SIGKILL, to a worker or to the process of `grounded-seg run`, when the journal has grown by a random number of lines;
after the driver's death the run is resumed. Without kills every way is run once, too. All have to leave the same bytes
of `annotations.json` and `results.jsonl`, and the same pictures; every image stands in the journal once.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from folder_kills import COMMAND, hashes, n_lines
from folder_speed import render

WAYS = {"devices": ["--devices", "cpu,cpu"], "ray": ["--engine", "ray", "--workers", "2"]}
MARKS = {"devices": b"grounded_seg.engine.processes", "ray": b"ray::RayWorker"}
"""In the command line of a worker."""


def descendants(root: int) -> Iterator[int]:
    """Give the processes that a process has started, and those that they have, as Linux knows them."""
    with suppress(OSError):
        for thread in Path(f"/proc/{root}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                yield child
                yield from descendants(child)


def workers_of(driver: int, way: str) -> list[int]:
    """Find the workers of a run."""
    found = []
    for one in descendants(driver):
        with suppress(OSError):
            if MARKS[way] in Path(f"/proc/{one}/cmdline").read_bytes():
                found.append(one)
    return found


def wait_for_lines(process: "subprocess.Popen[bytes]", out: Path, wanted: int) -> bool:
    """Wait until the journal has so many lines; False if the run ended first."""
    while process.poll() is None:
        if n_lines(out) >= wanted:
            return True
        time.sleep(0.01)
    return False


def kill_on_the_way(command: list[str], out: Path, way: str, kills: list[str], n_images: int, chance: Any) -> list[str]:
    """Run with these kills, a list of "worker" and "driver", and give those that hit; the run is finished then."""
    hit, environment = [], dict(os.environ)
    step = max(1, n_images // (len(kills) + 2))
    log = out.with_suffix(".log").open("ab")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
    for kill in kills:
        wanted = n_lines(out) + chance.randint(1, step)
        while not wait_for_lines(process, out, wanted) and process.returncode != 0 and len(hit) < 100:
            # Two deaths with one batch end a run; it can be resumed as after any other end.
            print(f"  {way}: ended with code {process.returncode}, resumed", flush=True)
            hit.append("end")
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        if process.poll() is not None:
            break
        time.sleep(chance.uniform(0, 0.3))
        if kill == "driver":
            process.kill()
            process.wait()
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=environment)
        elif not (workers := workers_of(process.pid, way)):
            continue
        else:
            os.kill(chance.choice(workers), signal.SIGKILL)
        hit.append(kill)
        print(f"  {way}: {kill} killed at {n_lines(out)} of {n_images} lines", flush=True)
    code = process.wait()
    while code != 0 and len(hit) < 100:
        print(f"  {way}: ended with code {code}, resumed", flush=True)
        hit.append("end")
        code = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=log).returncode
    return hit


def compared(out: Path, whole: Path, n_images: int) -> dict[str, bool]:
    """Compare a run with that of one process."""
    names = [json.loads(line)["file_name"] for line in (out / "results.jsonl").read_text().splitlines()]
    return {
        "each_image_once": names == [f"{index:05}.jpg" for index in range(n_images)],
        "same_bytes": hashes(whole) == hashes(out),
    }


def main() -> int:
    """Run all ways, kill, resume, compare and print; 1 if anything differs or too few kills hit."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--images", type=int, default=500)
    options.add_argument("--worker-kills", type=int, default=10)
    options.add_argument("--driver-kills", type=int, default=5)
    options.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    options.add_argument("--batch-size", type=int, default=2)
    options.add_argument("--threads", type=int, default=1, help="of each worker")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--only-kills", action="store_true", help="leave out the runs of two workers without kills")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(chosen.threads)
    figures: dict[str, Any] = {"images": chosen.images}
    with tempfile.TemporaryDirectory() as folder:
        photos, whole = Path(folder, "photos"), Path(folder, "whole")
        render(photos, chosen.images)
        command = [*COMMAND, str(photos), "--batch-size", str(chosen.batch_size), "--quiet", "-o"]
        subprocess.run([*command, str(whole)], check=True, capture_output=True)
        print(f"one process: {n_lines(whole)} lines", flush=True)
        for way in chosen.ways:
            chance = random.Random(chosen.seed)  # noqa: S311  (reproducible is the point)
            kills = ["worker"] * chosen.worker_kills + ["driver"] * chosen.driver_kills
            chance.shuffle(kills)
            if not chosen.only_kills:
                out = Path(folder, way)
                subprocess.run([*command, str(out), *WAYS[way]], check=True, capture_output=True)
                figures[way] = compared(out, whole, chosen.images)
            out = Path(folder, f"{way}-killed")
            hit = kill_on_the_way([*command, str(out), "--resume", *WAYS[way]], out, way, kills, chosen.images, chance)
            counts = {f"{kind}_kills": hit.count(kind) for kind in ("worker", "driver")}
            figures[f"{way}_killed"] = {**counts, "ends": hit.count("end"), **compared(out, whole, chosen.images)}
            print(f"{way}: {figures[f'{way}_killed']}", flush=True)
    print(json.dumps(figures, indent=2))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    parts = [one for one in figures.values() if isinstance(one, dict)]
    are_right = all(one["each_image_once"] and one["same_bytes"] for one in parts)
    hits = [one for one in parts if "worker_kills" in one]
    enough = all(
        one["worker_kills"] >= chosen.worker_kills and one["driver_kills"] >= chosen.driver_kills for one in hits
    )
    return int(not (are_right and enough and parts))


if __name__ == "__main__":
    sys.exit(main())
