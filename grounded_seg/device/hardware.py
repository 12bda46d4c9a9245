"""The machine's memory, cards and drivers, as far as they can be asked for without a setting up of their own."""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_DRIVER_VERSION = re.compile(r"\b\d{3}\.\d+(?:\.\d+)?\b")


@dataclass(frozen=True)
class Card:
    """One card that torch can use."""

    name: str
    n_bytes: int
    n_free: int
    capability: str
    """CUDA's compute capability, such as 8.0."""


def cards() -> list[Card]:
    """The CUDA cards that torch sees."""
    if not torch.cuda.is_available():
        return []
    found = []
    for index in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(index)
        n_free, n_bytes = torch.cuda.mem_get_info(index)
        found.append(Card(about.name, n_bytes, n_free, f"{about.major}.{about.minor}"))
    return found


def cuda_build() -> str | None:
    """The version of CUDA that torch was built for; None for a build without."""
    return torch.version.cuda


def nvidia_driver() -> str | None:
    """Version of the driver of NVIDIA cards; None where none is loaded, or the system doesn't tell."""
    try:
        found = _DRIVER_VERSION.search(_NVIDIA_DRIVER.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found[0] if found else None


def memory_bytes() -> int | None:
    """Memory that this process may use: the machine's, or less in a container; None where the system doesn't tell."""
    if sys.platform == "win32":
        return None
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
    for path in _CGROUP_LIMITS:
        try:
            limit = path.read_text(encoding="utf-8").strip()
        except OSError:
            continue
        if limit.isdecimal():
            found = min(found, int(limit))
    return found
