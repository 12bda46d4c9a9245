"""How long something takes, and how fast this machine multiplies: what benchmarks hold their times against."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch


def seconds_of(work: Callable[[], Any], device: torch.device, repeats: int = 3) -> float:
    """Give the median of several times, after one that doesn't count."""
    work()
    _finish(device)
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        _finish(device)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def tflops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the rate of a large matrix product, in 10^12 operations a second."""
    side = 8192 if device.type == "cuda" else 2048
    left, right = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    return 2 * side**3 / seconds_of(lambda: left @ right, device, 5) / 1e12


def _finish(device: torch.device) -> None:
    """Wait for what a GPU has still to do: its work is only queued when a call comes back."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
