"""Whether a long run stays as it is: memory, handles and threads of the process, image after image.

    python benchmarks/soak.py [--model demo] [--images 5000] [--output soak.json]

`--model demo` is the demo preset with `--boxes-only` on rendered scenes; `--model fake` finds coloured rectangles on
tiny pictures, for runs of 200,000 images. The images are links to a few files, in folders of 1,000 with the same names.
The run is `grounded-seg run` in a process of its own, looked at from outside: its resident memory, open descriptors and
threads, with the number of lines in its journal. Slopes are of a straight line through all samples after the first
1,000 images (a fifth of shorter runs).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from must_hold import MustHold
from PIL import Image

from grounded_seg.scenes import Split, render_scene

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "demo": ("-m", "grounded_seg.cli", "run", "red car; ball", "--preset", "demo", "--boxes-only"),
    "fake": (str(ROOT / "tests" / "fake_run.py"), "run", "red car; green", "--batch-size", "8"),
}
IN_A_FOLDER, N_FILES = 1000, 50
SETTLED = 1000
PAGE_KB = os.sysconf("SC_PAGE_SIZE") / 1024


@dataclass(frozen=True)
class Sample:
    """The process at one moment."""

    images: int
    memory_kb: float
    of_files_kb: float
    """Of that memory, what are pages of files: the system takes and gives these as it likes."""
    handles: int
    threads: int


def fake_picture(index: int) -> "Image.Image":
    """A grey picture with a red rectangle."""
    pixels = np.full((30, 40, 3), 90, dtype=np.uint8)
    pixels[3 : 10 + index % 15, 2 : 12 + index % 20] = (200, 0, 0)
    return Image.fromarray(pixels)


def make_images(folder: Path, model: str, n: int) -> None:
    """Make a few files, and link to them."""
    files = folder / "files"
    files.mkdir(parents=True)
    for index in range(min(n, N_FILES)):
        image = Image.fromarray(render_scene(Split.TEST, index).pixels) if model == "demo" else fake_picture(index)
        image.save(files / f"{index}.png")
    for index in range(n):
        place = folder / "photos" / f"{index // IN_A_FOLDER:04}"
        if index % IN_A_FOLDER == 0:
            place.mkdir(parents=True)
        # A file has room for 65,000 links.
        os.link(files / f"{index % min(n, N_FILES)}.png", place / f"{index % IN_A_FOLDER:03}.png")


def sample(process: int, images: int) -> Sample:
    """Look at a process, as Linux shows it."""
    about = Path(f"/proc/{process}")
    resident, of_files = ((PAGE_KB * int(n)) for n in (about / "statm").read_text().split()[1:3])
    return Sample(images, resident, of_files, len(os.listdir(about / "fd")), len(os.listdir(about / "task")))  # noqa: PTH208


def watched(command: list[str], out: Path, every_s: float) -> tuple[list[Sample], int]:
    """Run a command to its end; gives its samples and its exit code."""
    environment = {
        **os.environ,
        "SECONDS_PER_BATCH": "0",
        "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests"))),
    }
    samples: list[Sample] = []
    journal, n_lines, place = out / "results.jsonl", 0, 0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(every_s)
            if not journal.exists():
                continue
            with journal.open("rb") as file:
                file.seek(place)
                new = file.read()
            place, n_lines = place + len(new), n_lines + new.count(b"\n")
            try:
                samples.append(sample(process.pid, n_lines))
            except (FileNotFoundError, IndexError, ProcessLookupError):
                # It has just ended.
                break
    return samples, process.returncode


def slopes(samples: list[Sample], n: int) -> dict[str, float]:
    """What each figure gains per image, once the run has settled, while images are asked about."""
    # A process that is ending has no memory any more.
    settled = [one for one in samples if min(SETTLED, n // 5) <= one.images < n and one.memory_kb > 0]
    images = np.array([one.images for one in settled], dtype=np.float64)
    named = {
        "memory_bytes_per_image": [one.memory_kb * 1024 for one in settled],
        "of_files_bytes_per_image": [one.of_files_kb * 1024 for one in settled],
        "handles_per_1000_images": [one.handles * 1000 for one in settled],
        "threads_per_1000_images": [one.threads * 1000 for one in settled],
    }
    return {name: float(np.polyfit(images, np.array(values, dtype=np.float64), 1)[0]) for name, values in named.items()}


def main() -> int:
    """Run, look on, print; 1 if something grows."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--model", choices=PROGRAMS, default="demo")
    options.add_argument("--images", type=int)
    options.add_argument("--every", type=float, default=0.5, help="seconds between samples")
    options.add_argument("--output", type=Path, help="write figures and samples as JSON")
    chosen = options.parse_args()
    n = chosen.images or (5000 if chosen.model == "demo" else 200_000)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_images(folder, chosen.model, n)
        out = folder / "out"
        command = [sys.executable, *PROGRAMS[chosen.model], str(folder / "photos"), "-o", str(out), "--save", "none"]
        started = time.monotonic()
        samples, code = watched(command, out, chosen.every)
        seconds = time.monotonic() - started
        n_lines = (out / "results.jsonl").read_bytes().count(b"\n")
    found = slopes(samples, n)
    figures: dict[str, Any] = {
        "model": chosen.model,
        "images": n,
        "seconds": round(seconds, 1),
        "samples": len(samples),
    }
    figures |= {name: round(value, 3) for name, value in found.items()}
    for first_or_last, one in (("first", samples[0]), ("last", [one for one in samples if one.memory_kb > 0][-1])):
        figures[first_or_last] = asdict(one)
    print(json.dumps(figures, indent=2))
    if chosen.output:
        few = samples[:: max(1, len(samples) // 200)]
        chosen.output.write_text(json.dumps({**figures, "samples": [asdict(one) for one in few]}, indent=2) + "\n")
    held = MustHold()
    held.at_most("exit code", code, 0)
    held.at_least("images in the journal", n_lines, n)
    held.at_most("memory gained, bytes an image", found["memory_bytes_per_image"], 1000)
    # A fit of whole numbers that come and go is never quite flat: less than one in the whole run.
    for what in ("handles", "threads"):
        held.at_most(f"{what} gained in the run", found[f"{what}_per_1000_images"] * n / 1000, 1)
    return held.exit_code()


if __name__ == "__main__":
    sys.exit(main())
