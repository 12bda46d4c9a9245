"""How long `annotations.json` takes to build from a long journal, and how much memory.

    python benchmarks/folder_journal.py [--lines 100000] [--instances 20] [--output folder_journal.json]

Makes up a journal of that many lines, with run-length masks of ellipses on images of 640 x 480 px, and builds the COCO
file from it in a process of its own, as the end of a run does. Beside it, in another process, the same bytes are read
and written as JSON, line by line and nothing else. Memory is the process's peak, the libraries it imports included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ellipses import HEIGHT, WIDTH, ellipses

from grounded_seg.coco.write import document_from_lines, write_annotations
from grounded_seg.runs.journal import read_lines, text_of

LIMIT_MB, LIMIT_RATIO = 300, 2.0
N_REPEATS = 3
BUILD = (
    "from grounded_seg.coco.write import write_annotations\n"
    "from grounded_seg.runs.journal import read_lines\n"
    "work = lambda: write_annotations(read_lines(source), ['car'], destination, {'red car': 'car'})\n"
)
COPY = (
    "import json\n"
    "def work():\n"
    "    with source.open(encoding='ascii') as lines, destination.open('w', encoding='ascii') as file:\n"
    "        for line in lines:\n"
    "            file.write(json.dumps(json.loads(line)) + '\\n')\n"
)
# The peak that Linux keeps for a process, in kB.
MEASURED = (
    "import json, resource, sys, time\n"
    "from pathlib import Path\n"
    "source, destination = Path(sys.argv[1]), Path(sys.argv[2])\n"
    "{work}"
    "start = time.perf_counter()\n"
    "work()\n"
    "seconds = time.perf_counter() - start\n"
    "print(json.dumps([seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))\n"
)


def instances() -> list[dict[str, Any]]:
    """Make a few instances, which all lines share: what counts is how many there are."""
    rng = np.random.default_rng(0)
    made = []
    for shape in ellipses():
        score = round(float(rng.uniform()), 6)
        box = [round(value, 3) for value in rng.uniform(0, 400, 4).tolist()]
        attributes = {"label": "car", "prompt": "red car", "detector_score": score, "mask_score": score}
        made.append({**shape, "score": score, "detector_bbox": box, "attributes": attributes})
    return made


def write_journal(path: Path, n_lines: int, n_instances: int) -> None:
    """Make up a journal; every hundredth image was skipped."""
    made = instances()
    with path.open("w", encoding="ascii") as file:
        for number in range(n_lines):
            is_skipped = number % 100 == 99
            start = number * 7 % len(made)
            line: Any = {
                "file_name": f"camera/{number:09}.jpg",
                "status": "skipped" if is_skipped else "done",
                "width": None if is_skipped else WIDTH,
                "height": None if is_skipped else HEIGHT,
                "instances": [] if is_skipped else [made[(start + step) % len(made)] for step in range(n_instances)],
                "reason": "it is empty (0 bytes)" if is_skipped else None,
                "error": "ImageError" if is_skipped else None,
            }
            file.write(f"{text_of(line)}\n")


def measure(work: str, source: Path, destination: Path) -> tuple[float, float]:
    """Give the least seconds and the peak memory in MB of a few runs."""
    runs = []
    for _ in range(N_REPEATS):
        command = [sys.executable, "-c", MEASURED.format(work=work), str(source), str(destination)]
        runs.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    return min(seconds for seconds, _ in runs), max(peak_mb for _, peak_mb in runs)


def check(folder: Path, n_instances: int) -> None:
    """Build a small file both in memory and streaming: they have to say the same."""
    journal, streamed = folder / "small.jsonl", folder / "small.json"
    write_journal(journal, 250, n_instances)
    write_annotations(read_lines(journal), ["car"], streamed, {"red car": "car"})
    assert json.loads(streamed.read_text()) == document_from_lines(read_lines(journal), ["car"], {"red car": "car"})


def main() -> int:
    """Measure and print; 1 if a limit is passed."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--lines", type=int, default=100_000)
    options.add_argument("--instances", type=int, default=20, help="on each image")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), chosen.instances)
        journal, built, copied = (Path(folder, name) for name in ("results.jsonl", "annotations.json", "copy"))
        write_journal(journal, chosen.lines, chosen.instances)
        copy_s, _ = measure(COPY, journal, copied)
        build_s, peak_mb = measure(BUILD, journal, built)
        n_images = chosen.lines - chosen.lines // 100
        with built.open(encoding="ascii") as lines:
            n_annotations = sum('"image_id"' in line for line in lines)
        assert n_annotations == n_images * chosen.instances
        figures = {
            "cores": os.cpu_count(),
            "lines": chosen.lines,
            "annotations": n_annotations,
            "journal_mb": round(journal.stat().st_size / 2**20, 1),
            "annotations_mb": round(built.stat().st_size / 2**20, 1),
            "build_s": round(build_s, 2),
            "read_and_write_json_s": round(copy_s, 2),
            "ratio": round(build_s / copy_s, 2),
            "peak_mb": round(peak_mb, 1),
        }
    print("\n".join(f"{name:22} {value}" for name, value in figures.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return int(peak_mb > LIMIT_MB or build_s > LIMIT_RATIO * copy_s)


if __name__ == "__main__":
    sys.exit(main())
