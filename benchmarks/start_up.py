"""Time a run on one image from start to end against another checkout, and what answers without a model.

    python benchmarks/start_up.py BEFORE [AFTER] [--rounds 5]

BEFORE and AFTER are the top folders of two checkouts; AFTER is the one of this script unless you name another. In each
round both run the demo on one scene, each in a process of its own, on the CPU in float32, one after the other and in
turns. Beside the seconds stand those of the processor, which other programs on the machine disturb less. What
`annotations.json` and `results.jsonl` hold is compared: all the same but for numbers, which may differ by 1e-5 where
the checkouts compute in another order; and something has to be in them. Before the first round each runs once, so that
both find their files in memory and their modules compiled.

`--help`, and commands that are refused, are timed too; their exit codes must be the same in both.
"""

import argparse
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from must_hold import MustHold

ROOT = Path(__file__).resolve().parents[1]
SCENE = ROOT / "examples" / "scene-1.jpg"
COMPARED = ("annotations.json", "results.jsonl")
TOLERANCE = 1e-5
HELP_S = 0.3
"""Seconds that `--help` may take."""
RUN = (
    "run",
    "red car",
    str(SCENE),
    "--preset",
    "demo",
    "--device",
    "cpu",
    "--dtype",
    "float32",
    "--quiet",
    "-o",
    "out",
)
DEMO = ROOT / "checkpoints" / "demo"
LIGHT = {
    "--help": ("--help",),
    "run --help": ("run", "--help"),
    "run, a path that isn't there": ("run", "red car", "missing.jpg", "--preset", "demo", "-o", "none"),
    "run, an unknown preset": ("run", "red car", str(SCENE), "--preset", "huge", "-o", "none"),
    "run, an adapter that isn't there": ("run", "red car", str(SCENE), "--adapter", "./missing", "-o", "none"),
    "models convert, native already": ("models", "convert", str(DEMO / "detector"), "none"),
    "models convert, an adapter": ("models", "convert", str(DEMO / "adapter"), "none"),
    "models merge, into a full folder": ("models", "merge", str(DEMO / "detector"), str(DEMO / "adapter"), "full"),
    "train, data that isn't there": ("train", "missing", "-o", "none", "--preset", "demo"),
    "eval, a file that isn't there": ("eval", "missing.json", "--images", "missing", "--preset", "demo"),
}


@dataclass(frozen=True)
class Took:
    """One process."""

    seconds: float
    cpu_s: float
    code: int


def took(checkout: Path, words: Sequence[str], folder: Path) -> Took:
    """Run a command of a checkout in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "grounded_seg.cli", *words]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, check=False, cwd=folder, env=environment, capture_output=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Took(seconds, cpu_s, done.returncode)


def written(folder: Path) -> dict[str, Any]:
    """Give what the compared files of a run hold."""
    annotations, journal = ((folder / "out" / name).read_text(encoding="utf-8") for name in COMPARED)
    return dict(zip(COMPARED, (json.loads(annotations), list(map(json.loads, journal.splitlines()))), strict=True))


def difference(one: Any, other: Any) -> float:
    """The largest difference of two numbers at one place; infinite where anything else differs."""
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    if type(one) is not type(other):
        return math.inf
    if isinstance(one, dict):
        pairs = [(one[key], other[key]) for key in one if key in other]
        return math.inf if one.keys() != other.keys() else max((difference(*pair) for pair in pairs), default=0.0)
    if isinstance(one, list):
        same_length = len(one) == len(other)
        return max(map(difference, one, other), default=0.0) if same_length else math.inf
    return 0.0 if one == other else math.inf


def compare_runs(
    checkouts: Sequence[Path], folders: Sequence[Path], n_rounds: int, holds: MustHold, most: float
) -> list[str]:
    """Run both in turns and print the table; what is wrong with their results."""
    times: list[list[Took]] = [[], []]
    for number in range(n_rounds + 1):
        order = (0, 1) if number % 2 else (1, 0)
        for side in order:
            one = took(checkouts[side], (*RUN, "--overwrite"), folders[side])
            if one.code != 0:
                return [f"{checkouts[side]} ended with {one.code}"]
            if number:
                times[side].append(one)
    print(f"{'one image with the demo':40}{'before':>9}{'after':>9}{'ratio':>8}   median of {n_rounds}")
    for what, values in (
        ("seconds from start to end", [[one.seconds for one in side] for side in times]),
        ("processor's seconds", [[one.cpu_s for one in side] for side in times]),
    ):
        ratio = statistics.median(after / before for before, after in zip(*values, strict=True))
        print(f"{what:40}{statistics.median(values[0]):9.2f}{statistics.median(values[1]):9.2f}{ratio:8.2f}")
        if what.startswith("seconds"):
            holds.at_most(f"{what}, share of before", ratio, most)
    found = [written(folder) for folder in folders]
    apart = {name: difference(found[0][name], found[1][name]) for name in COMPARED}
    wrong = [f"{name} differs by {value:g}" for name, value in apart.items() if value > TOLERANCE]
    n_found = len(found[0]["results.jsonl"][0]["instances"])
    if not n_found:
        wrong.append("nothing was found in the scene, so nothing was compared")
    print(f"{n_found} instances compared, numbers off by at most {max(apart.values()):g}")
    return wrong


def compare_light(checkouts: Sequence[Path], folders: Sequence[Path], n_rounds: int, holds: MustHold) -> list[str]:
    """Time what needs no model; which exit codes differ."""
    wrong = []
    print(f"\n{'no model needed, seconds':40}{'before':>9}{'after':>9}{'ratio':>8}{'code':>8}")
    for folder in folders:
        (folder / "full").mkdir(exist_ok=True)
        (folder / "full" / "file").touch()
    for name, words in LIGHT.items():
        both = [
            [took(one, words, folder) for _ in range(n_rounds)] for one, folder in zip(checkouts, folders, strict=True)
        ]
        before, after = (statistics.median(one.seconds for one in side) for side in both)
        if name == "--help":
            holds.at_most("seconds of --help", after, HELP_S)
        codes = {one.code for side in both for one in side}
        if len(codes) > 1:
            wrong.append(f"{name} ended with {sorted(codes)}")
        print(f"{name:40}{before:9.2f}{after:9.2f}{after / before:8.2f}{both[1][0].code:8}")
    return wrong


def main() -> int:
    """Compare two checkouts; 1 if their results differ, or a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("before", type=Path, metavar="BEFORE", help="checkout to compare with")
    options.add_argument("after", type=Path, metavar="AFTER", nargs="?", default=ROOT)
    options.add_argument("--rounds", type=int, default=5, help="of the run; the first that doesn't count comes on top")
    options.add_argument("--at-most", type=float, default=0.7, help="share of BEFORE's seconds that AFTER may take")
    options.add_argument("--light-rounds", type=int, default=1, help="of what needs no model; 0 leaves it out")
    chosen = options.parse_args()
    checkouts = [chosen.before.resolve(), chosen.after.resolve()]
    with tempfile.TemporaryDirectory(prefix="start-up-") as temporary:
        folders = [Path(temporary) / name for name in ("before", "after")]
        for folder in folders:
            folder.mkdir()
        holds = MustHold()
        wrong = compare_runs(checkouts, folders, chosen.rounds, holds, chosen.at_most)
        if chosen.light_rounds:
            wrong += compare_light(checkouts, folders, chosen.light_rounds, holds)
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    return max(int(bool(wrong)), holds.exit_code())


if __name__ == "__main__":
    sys.exit(main())
