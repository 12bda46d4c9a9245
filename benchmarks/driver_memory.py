"""The memory of the process that has the journal, while workers go through many requests.

    python benchmarks/driver_memory.py [--requests 1000 100000] [--ways devices ray] [--output driver_memory.json]

Made-up requests, all for one small image, and models that find nothing: what is left is the hand-out, the transport and
the outcomes. Each number of requests and each way (`--devices cpu`, `--engine ray` with one worker) is a process of its
own; its peak memory must not grow by more than 10 % from the smallest number to the largest.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image as Picture

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.executors import open_engine
from grounded_seg.engine.request import Processed, Request, Work
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels, find_models
from grounded_seg.records import Detection, Image
from grounded_seg.settings import EngineKind, ModelSettings

LIMIT_GROWTH = 1.10
BATCH_SIZE = 16


class BlindDetector:
    """Finds nothing, in no time."""

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],  # noqa: ARG002  (the detector's signature)
        class_names: Sequence[str] | None = None,  # noqa: ARG002
        *,
        asked: Sequence[Collection[str]] | None = None,  # noqa: ARG002
    ) -> list[tuple[Detection, ...]]:
        """Give no box for each image."""
        return [() for _ in images]


def blind_chain(found: FoundModels) -> Chain:  # noqa: ARG001  (what an engine calls)
    """Load nothing."""
    return Chain(BlindDetector())


def line(processed: Processed) -> dict[str, Any]:
    """Make as much of an image as a line with some masks is."""
    return {"file_name": processed.request.name, "instances": [{"counts": "0" * 200, "n": n} for n in range(5)]}


def peak_mb(way: str, n_requests: int) -> float:
    """Go through so many requests in this process, and give its peak memory."""
    # By its own name, so that a worker can import it.
    import driver_memory

    def requests(path: Path) -> Iterator[Request]:
        prompts = prompts_from(["red car"])
        return (Request(index, f"{index:08}.png", path, prompts) for index in range(n_requests))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "one.png")
        Picture.new("RGB", (16, 16)).save(path)
        kind = EngineKind.RAY if way == "ray" else EngineKind.LOCAL
        devices = ("cpu",) if way == "devices" else None
        models = ModelSettings(preset="demo", device="cpu")
        work = Work(driver_memory.line, BATCH_SIZE)
        with open_engine(requests(path), work, kind, devices=devices, n_workers=1 if way == "ray" else None) as engine:
            engine.read_first()
            engine.load(find_models(models, runs_on=engine.runs_on(models)), driver_memory.blind_chain)
            n_bytes = sum(len(str(outcome.made)) for outcome in engine.outcomes())
    if n_bytes < 1000 * n_requests:
        raise ValueError(f"{n_bytes} bytes came of {n_requests} requests")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    """Measure and print; 1 if memory grows."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--requests", type=int, nargs="+", default=[1000, 100_000])
    options.add_argument("--ways", nargs="+", choices=("devices", "ray"), default=["devices", "ray"])
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    options.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.only:
        print(peak_mb(chosen.only[0], int(chosen.only[1])))
        return 0
    figures: dict[str, dict[str, float]] = {}
    places = os.pathsep.join(map(os.path.abspath, sys.path))
    for way in chosen.ways:
        figures[way] = {}
        for n_requests in chosen.requests:
            command = [sys.executable, __file__, "--only", way, str(n_requests)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": places}
            )
            figures[way][str(n_requests)] = round(float(done.stdout), 1)
            print(f"{way}: {n_requests} requests, peak {float(done.stdout):.1f} MB", flush=True)
    growths = {way: max(peaks.values()) / min(peaks.values()) for way, peaks in figures.items()}
    print("\n".join(f"{way}: peak memory grows by the factor {growth:.3f}" for way, growth in growths.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return int(max(growths.values()) > LIMIT_GROWTH or len(chosen.requests) < 2)


if __name__ == "__main__":
    sys.exit(main())
