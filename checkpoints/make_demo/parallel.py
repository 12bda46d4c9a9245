"""Training on two processes with one core each: less waiting than two threads, for models as small as the demo's."""

import os
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pool import STATE
from torch import nn

N_PROCESSES = 2


def start(work: Callable[[int, Any], None], plan: object) -> None:
    """Run `work(rank, plan)` in each process and wait for all of them."""
    STATE.mkdir(parents=True, exist_ok=True)
    rendezvous = STATE / "rendezvous"
    rendezvous.unlink(missing_ok=True)
    mp.spawn(_joined, (work, plan, f"file://{rendezvous}"), N_PROCESSES)


def _joined(rank: int, work: Callable[[int, Any], None], plan: object, rendezvous: str) -> None:
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {rank % (os.cpu_count() or 1)})
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=N_PROCESSES)
    work(rank, plan)
    dist.destroy_process_group()


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Give every process the mean of all processes' gradients, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = flat.split([g.numel() for g in gradients])
    torch._foreach_copy_(gradients, [part.view_as(g) for part, g in zip(parts, gradients, strict=True)])


def shared_clock(start_time: float) -> float:
    """Minutes since `start_time`, the same in every process."""
    elapsed = torch.tensor([time.time() - start_time], dtype=torch.float64)
    dist.broadcast(elapsed, 0)
    return elapsed.item() / 60
