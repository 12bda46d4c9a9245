"""Run all fifteen tasks at full size on one photo, and say what each takes in time and memory.

    python benchmarks/detector_tasks.py --tokenizer FOLDER --photo FILE [--size base --size large] [--output tasks.json]

The weights are random and the tokenizer is Florence-2's own. Answers are cut off at 64 tokens, which random weights
always reach. Memory is the peak during the task, model included: the process's own on the CPU (where the system keeps
no such peak for a while, the peak so far), and what torch held on a GPU. The limit is what the arithmetic of vision
tower and text encoder takes at the rate of a large matrix product in the same number format, measured in the same run;
the 64 tokens, which are written one after the other, are bound by memory and come on top.
"""

import argparse
import json
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import torch
from full_size_florence import SIZES, TFLOP, full_size_model
from timing import tflops

from grounded_seg.detect.ask import ask
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS, TaskInput
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype
from grounded_seg.images.read import read_image
from grounded_seg.records import Image
from grounded_seg.settings import Precision

N_TOKENS = 64
_FORGET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
"""Linux's: where the peak is set back, and where it is told."""
TEXTS = {TaskInput.NOTHING: "", TaskInput.PHRASE: "the largest thing", TaskInput.REGION: "20,20,200,150"}


def forget_peak(device: torch.device) -> None:
    """Begin to look for a new peak, where the system can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _FORGET.exists():
        with suppress(OSError):
            _FORGET.write_text("5", encoding="ascii")


def peak_gib(device: torch.device) -> float:
    """Give the most memory that was held since the last `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20
    # Kilobytes, but on macOS bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def measured(model: FlorenceModel, image: Image, n_tokens: int) -> list[dict[str, object]]:
    """Ask every task once."""
    rows: list[dict[str, object]] = []
    for task in TASKS.values():
        forget_peak(model.network.device)
        start = time.perf_counter()
        answer = ask(model, task, image, TEXTS[task.takes], max_new_tokens=n_tokens)
        seconds = time.perf_counter() - start
        found = {"boxes": answer.boxes, "polygons": answer.polygons, "quads": answer.quads}
        said = ", ".join(f"{len(items)} {kind}" for kind, items in found.items() if items)
        rows.append(
            {
                "task": task.name,
                "seconds": round(seconds, 2),
                "peak_gib": round(peak_gib(model.network.device), 2),
                "answer": said or f"{len(answer.text)} letters",
            }
        )
    return rows


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--tokenizer", type=Path, required=True, help="folder of Florence-2's tokenizer.json")
    options.add_argument("--photo", type=Path, required=True)
    options.add_argument("--size", choices=SIZES, action="append", help="default: base and large")
    options.add_argument("--device", default="auto")
    options.add_argument("--dtype", type=Precision, default=Precision.AUTO)
    options.add_argument("--tokens", type=int, default=N_TOKENS, help="longest answer")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(chosen.dtype, device)
    image = read_image(chosen.photo)
    results = {}
    for size in chosen.size or ("base", "large"):
        model = full_size_model(size, chosen.tokenizer)
        model.to(device, dtype)
        rate = tflops(device, dtype)
        limit_s = sum(TFLOP[size]) / rate
        print(f"{size}, {device}, {dtype}, {n_threads()} threads, at most {chosen.tokens} tokens")
        print(f"  image and question alone take at least {limit_s:.3f} s at {rate:.2f} TFLOP/s")
        rows = measured(model, image, chosen.tokens)
        results[size] = {"matmul_tflops": rate, "limit_s": limit_s, "tasks": rows}
        for row in rows:
            times = f"{row['seconds']:>8} s, limit {limit_s:.2f} s"
            print(f"  {row['task']:34}{times}{row['peak_gib']:>8} GiB  {row['answer']}")
        del model
    if chosen.output:
        where = {"device": str(device), "dtype": str(dtype), "threads": n_threads(), "tokens": chosen.tokens}
        chosen.output.write_text(json.dumps({**where, "sizes": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
