"""Kill a folder run at random moments, resume it each time, and compare with a run that nothing cut off.

    python benchmarks/folder_kills.py [--model demo] [--images 2000] [--kills 20] [--slices 1] [--batch-size 2]
        [--seed 0] [--results kills.json]

`--model demo` is the demo preset on rendered scenes, each time in a new process; `--model fake` finds coloured
rectangles, in processes that are forked from one that has imported everything, so that hundreds of kills take minutes.
A kill is SIGKILL, to the process of `grounded-seg run --resume`; every fourth comes within some seconds from its start
on, the others when the journal has grown by a random number of lines; none later than at its share of the images. A
kill is in mid-journal where the killed process had written lines, but not the last one. Both runs have to leave the
same bytes of `annotations.json` and `results.jsonl`, and the same pictures; every image stands in the journal once.

A slice is one run with `--kills` kills; slice N has the seed `--seed` + N. With `--results` each finished slice is
written to that file, and slices that are there already aren't run again: stop it at any time, and go on later.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from soak import ROOT, fake_picture

from grounded_seg.scenes import Split, render_scene

COMMAND = [sys.executable, "-m", "grounded_seg.cli", "run", "red car; ball", "--preset", "demo"]
FAKE = ["run", "red car; green"]


class Running(Protocol):
    """A command that was started."""

    def poll(self) -> int | None:
        """None while it runs."""

    def kill(self) -> None:
        """Kill it."""

    def wait(self) -> int:
        """Its exit code."""


Start = Callable[[Sequence[str]], Running]
"""Starts the command of a run with more arguments."""


@dataclass
class Forked:
    """A process that was forked, as `subprocess.Popen` would have it."""

    child: Any

    def poll(self) -> int | None:
        """None while it runs."""
        try:
            state = Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return 0
        return 0 if state in "ZX" else None

    def kill(self) -> None:
        """Kill it, if it still runs: who started it hasn't taken note of its end."""
        os.kill(self.child.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Its exit code."""
        return int(self.child.wait(600))


def in_new_processes(arguments: Sequence[str]) -> Running:
    """Start the demo."""
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def n_lines(out: Path) -> int:
    """Count the whole lines in the journal."""
    journal = out / "results.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


@dataclass(frozen=True)
class Moment:
    """When to kill: at so many new lines, or so many seconds after the start, whichever comes first; then a delay."""

    n_new_lines: int
    seconds: float
    delay_s: float = 0


def kill_moment(chance: random.Random, number: int, max_lines: int, start_s: float) -> Moment:
    """Draw a moment."""
    if number % 4 == 3:
        return Moment(max_lines, chance.uniform(0, start_s))
    return Moment(chance.randint(1, max_lines), float("inf"), chance.uniform(0, start_s / 100))


def kill_once(start: Start, arguments: Sequence[str], out: Path, n_images: int, moment: Moment) -> list[int]:
    """Start or resume the run and kill it; gives the lines that are in the journal before and then."""
    before, end = n_lines(out), time.monotonic() + moment.seconds
    wanted = min(before + moment.n_new_lines, n_images)
    process = start(arguments)
    while process.poll() is None and n_lines(out) < wanted and time.monotonic() < end:
        time.sleep(0.005)
    time.sleep(moment.delay_s)
    process.kill()
    process.wait()
    return [before, n_lines(out)]


def hashes(out: Path) -> dict[str, str]:
    """Hash all files but run.json, which tells the time, and the lock of a process that was killed."""
    files = sorted(path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", ".lock"))
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def completed(start: Start, arguments: Sequence[str]) -> None:
    """Run to the end."""
    process = start(arguments)
    code = process.wait()
    if code:
        raise subprocess.CalledProcessError(code, list(arguments))


def run_slice(
    start: Start, photos: Path, whole: dict[str, str], options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One run with all its kills, compared with the whole one."""
    chance = random.Random(seed)  # noqa: S311  (reproducible is the point)
    at_kills = []
    start_s = 10.0 if options.model == "demo" else 0.5
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out")
        arguments = [str(photos), "--batch-size", str(options.batch_size), "-o", str(out), "--resume"]
        for number in range(options.kills):
            # No kill waits for more than its share of the images: later ones would meet a run that is done.
            moment = kill_moment(chance, number, max(1, options.images // options.kills), start_s)
            at_kills.append(kill_once(start, arguments, out, options.images, moment))
        completed(start, arguments)
        names = [json.loads(line)["file_name"] for line in (out / "results.jsonl").read_text().splitlines()]
        return {
            "model": options.model,
            "images": options.images,
            "batch_size": options.batch_size,
            "kills": options.kills,
            "seed": seed,
            "in_mid_journal": sum(before < lines < options.images for before, lines in at_kills),
            "each_image_once": names == sorted(path.name for path in photos.iterdir()),
            "same_bytes": hashes(out) == whole,
            "lines_at_kills": [lines for _, lines in at_kills],
        }


def make_photos(photos: Path, options: argparse.Namespace) -> None:
    """Render the images."""
    photos.mkdir()
    for index in range(options.images):
        demo = options.model == "demo"
        image = Image.fromarray(render_scene(Split.TEST, index).pixels) if demo else fake_picture(index)
        image.save(photos / f"{index:05}.{'jpg' if demo else 'png'}")


def is_right(one: dict[str, Any]) -> bool:
    """Nothing lost, nothing twice, the same bytes; and most kills hit the run at work."""
    return bool(one["each_image_once"] and one["same_bytes"] and one["in_mid_journal"] >= one["kills"] // 2)


def main() -> int:
    """Kill, resume, compare and print; 1 if anything differs, or too few kills came in mid-journal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", choices=("demo", "fake"), default="demo")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20, help="in each slice")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, help="JSON file of finished slices, which aren't run again")
    options = parser.parse_args()
    done: list[dict[str, Any]] = (
        json.loads(options.results.read_text()) if options.results and options.results.exists() else []
    )
    same = {name: getattr(options, name) for name in ("model", "images", "batch_size", "kills")}
    known = {one["seed"] for one in done if same.items() <= one.items()}
    left = [seed for seed in range(options.seed, options.seed + options.slices) if seed not in known]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        photos, first = folder / "photos", folder / "whole"
        start: Start = in_new_processes
        if options.model == "fake":
            sys.path.append(str(ROOT / "tests"))
            from warm_process import Warm

            warm = stack.enter_context(Warm())

            def start(arguments: Sequence[str]) -> Running:
                environment = {"SECONDS_PER_BATCH": "0.002"}
                return Forked(warm.start([*FAKE, *arguments], cwd=folder, environment=environment))

        if left:
            make_photos(photos, options)
            completed(start, [str(photos), "--batch-size", str(options.batch_size), "-o", str(first)])
        for seed in left:
            done.append(run_slice(start, photos, hashes(first), options, seed))
            print({name: value for name, value in done[-1].items() if name != "lines_at_kills"}, flush=True)
            if options.results:
                options.results.write_text("[\n" + ",\n".join(map(json.dumps, done)) + "\n]\n")
    for model in sorted({one["model"] for one in done}):
        some = [one for one in done if one["model"] == model]
        kills, middle = (sum(one[name] for one in some) for name in ("kills", "in_mid_journal"))
        print(
            f"{model}: {kills} kills in {len(some)} slices, {middle} in mid-journal, right: {all(map(is_right, some))}"
        )
    return int(not all(map(is_right, done)))


if __name__ == "__main__":
    sys.exit(main())
