"""One finding per subject: what is so, whether that is right, and what to do where it isn't."""

import importlib
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.hardware import cards, cuda_build, memory_bytes, nvidia_driver
from grounded_seg.errors import GroundedSegError, WeightsError
from grounded_seg.geometry.masks import opencv
from grounded_seg.settings import Precision
from grounded_seg.weights import hub
from grounded_seg.weights.fetch import cache_folder
from grounded_seg.weights.presets import preset_table
from grounded_seg.weights.sources import HubSource
from grounded_seg.weights.stored import everything, hub_cache_folder, preset_size, verify

TESTED: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "torch": ("2.6", "2.14"),
        "torchvision": ("0.21", "0.29"),
        "transformers": ("5.13", "5.24"),
        "peft": ("0.17", "0.21"),
        "accelerate": ("1.1", "1.15"),
        "huggingface_hub": ("0.30", "2.4"),
        "opencv-python": ("5.0", "5.0"),
        "numpy": ("1.26", "2.5"),
        "pillow": ("10.1", "13.0"),
        "pycocotools": ("2.0.8", "2.0.12"),
        "segment-anything": ("1.0", "1.0"),
    }
)
"""The lowest version that works, and the newest that was tested."""
_PYTHON = ((3, 11), (3, 13))
_LITTLE_MEMORY_BYTES, _LITTLE_DISK_BYTES = 4 << 30, 5 << 30


class State(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What was found about one subject."""

    subject: str
    state: State
    what: str
    remedy: str | None = None
    """What to do; None where nothing has to be done."""
    exit_code: int = 0
    """Of the command, if this is an error."""
    facts: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """For programs."""


def surroundings(device: str, dtype: str, *, online: bool = False) -> Iterator[Finding]:
    """The findings about this machine and what is installed and stored on it, one by one as they are made.

    Args:
        device: As `ModelSettings.device`.
        dtype: As `ModelSettings.dtype`.
        online: Ask the hub too; nothing else needs a network.
    """
    yield _python()
    yield _versions()
    yield _checked("OpenCV", _opencv)
    yield _checked("device", lambda: _device(device, dtype))
    yield _memory()
    yield _disk()
    for name in preset_table().presets:
        yield _preset(name)
    yield _checked("downloaded weights", _stored)
    if online:
        yield _checked("network", _network)


def _checked(subject: str, look: Callable[[], Finding]) -> Finding:
    """A finding, or the error that was raised for it."""
    try:
        return look()
    # What is wrong here is the result of the command, not its end.
    except GroundedSegError as error:
        return error_finding(subject, error)


def error_finding(subject: str, error: GroundedSegError) -> Finding:
    """The finding of an error, whose message says what and what to do."""
    what, _, remedy = str(error).partition("; ")
    return Finding(subject, State.ERROR, what, remedy or "see the message", error.exit_code)


def _python() -> Finding:
    found, (lowest, newest) = sys.version_info[:2], _PYTHON
    what = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    facts = {"version": platform.python_version(), "system": platform.system(), "machine": platform.machine()}
    if not lowest <= found <= newest:
        span = f"{lowest[0]}.{lowest[1]} to {newest[0]}.{newest[1]}"
        return Finding(
            "Python", State.WARNING, what, f"tested with {span}: use one of these if something fails", 0, facts
        )
    return Finding("Python", State.OK, what, facts=facts)


def _versions() -> Finding:
    """The installed versions against the tested ones."""
    found = {name: installed(name) for name in TESTED}
    wrong, untested = [], []
    for name, (lowest, newest) in TESTED.items():
        here = found[name]
        if here is None:
            wrong.append(f"{name} is missing")
        elif numbers(here) < numbers(lowest):
            wrong.append(f"{name} {here} is older than {lowest}")
        elif numbers(here)[: len(numbers(newest))] > numbers(newest):
            untested.append(f"{name} {here} is newer than {newest}, the newest tested")
    if installed("opencv-python-headless") is not None:
        wrong.append("opencv-python-headless is beside opencv-python, and both own the folder cv2")
    if wrong:
        remedy = "install grounded-seg again, in a virtual environment of its own"
        return Finding(
            "versions", State.ERROR, "; ".join((*wrong, *untested)), remedy, GroundedSegError.exit_code, found
        )
    if untested:
        remedy = "if a model can't be loaded or finds nothing, install the tested version"
        return Finding("versions", State.WARNING, "; ".join(untested), remedy, 0, found)
    shown = ", ".join(f"{name} {found[name]}" for name in ("torch", "transformers", "peft"))
    return Finding("versions", State.OK, f"{shown}; all {len(found)} as tested", facts=found)


def installed(distribution: str) -> str | None:
    """The version of an installed package; None where it is missing."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def numbers(text: str) -> tuple[int, ...]:
    """The numbers at the start of a version, to compare.

    >>> numbers("2.14.1+cpu"), numbers("5.24.0rc1") > numbers("5.13")
    ((2, 14, 1), True)
    """
    found = re.match(r"\d+(?:\.\d+)*", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _opencv() -> Finding:
    opencv()
    here = importlib.import_module("cv2").__version__
    return Finding("OpenCV", State.OK, f"{here} can be imported", facts={"version": here})


def _device(device: str, dtype: str) -> Finding:
    """What models will run on, and in which dtype."""
    chosen = resolve_device(device)
    used = str(resolve_dtype(Precision(dtype), chosen)).removeprefix("torch.")
    found, driver, build = cards(), nvidia_driver(), cuda_build()
    facts = {
        "device": str(chosen),
        "dtype": used,
        "cards": [vars(one) for one in found],
        "driver": driver,
        "cuda_build": build,
    }
    what = f"{chosen}, {used}"
    if chosen.type == "cuda":
        card = found[chosen.index or 0]
        what += f"; {card.name}, {card.n_free / 2**30:.1f} of {card.n_bytes / 2**30:.1f} GiB free"
        what += f", compute capability {card.capability}, driver {driver or 'unknown'}, CUDA {build}"
        if card.n_free < _LITTLE_MEMORY_BYTES:
            remedy = "end other programs on this card, or use --preset base-ft with --batch-size 1"
            return Finding("device", State.WARNING, what, remedy, 0, facts)
        return Finding("device", State.OK, what, facts=facts)
    if driver is not None and not found:
        problem = "torch has no CUDA" if build is None else f"torch for CUDA {build} can't use the card"
        remedy = "install torch for CUDA, or a newer driver: https://pytorch.org/get-started/locally/"
        return Finding(
            "device", State.WARNING, f"{what}; there is an NVIDIA driver {driver}, but {problem}", remedy, 0, facts
        )
    return Finding("device", State.OK, what, facts=facts)


def _memory() -> Finding:
    n_bytes = memory_bytes()
    if n_bytes is None:
        return Finding("memory", State.OK, "unknown on this system")
    what, facts = f"{n_bytes / 2**30:.1f} GiB", {"bytes": n_bytes}
    if n_bytes < _LITTLE_MEMORY_BYTES:
        remedy = "use base-ft instead of large-ft, and --batch-size 1"
        return Finding("memory", State.WARNING, f"{what}: little for full-size models", remedy, 0, facts)
    return Finding("memory", State.OK, what, facts=facts)


def _disk() -> Finding:
    """The caches, and what is free there."""
    places = {"own": cache_folder(), "hub": hub_cache_folder()}
    free = {name: shutil.disk_usage(_existing(path)).free for name, path in places.items()}
    shown = "; ".join(f"{_home_as_tilde(path)}: {free[name] / 1e9:.1f} GB free" for name, path in places.items())
    facts = {name: {"path": _home_as_tilde(path), "free": free[name]} for name, path in places.items()}
    if min(free.values()) < _LITTLE_DISK_BYTES:
        remedy = "make room, or choose other disks with GROUNDED_SEG_CACHE and HF_HOME"
        return Finding("disk", State.WARNING, shown, remedy, 0, facts)
    return Finding("disk", State.OK, shown, facts=facts)


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.is_dir())


def _home_as_tilde(path: Path) -> str:
    """A path without a user's name, as it may go into a report."""
    try:
        return str(Path("~") / path.relative_to(Path.home()))
    except (ValueError, RuntimeError):
        return str(path)


def _preset(name: str) -> Finding:
    """Whether a preset is on this disk; a missing one is no fault, unless it comes with the project."""
    subject = f"preset {name}"
    try:
        size = preset_size(name)
    except WeightsError as error:
        return error_finding(subject, error)
    facts = {"bytes_here": size.n_here, "bytes_missing": list(size.n_missing)}
    if not any(size.n_missing):
        return Finding(subject, State.OK, f"on this disk, {size.n_here / 1e6:.0f} MB", facts=facts)
    least, most = (n_bytes / 1e9 for n_bytes in size.n_missing)
    what = f"not on this disk yet, {least:.1f} to {most:.1f} GB to fetch"
    return Finding(subject, State.OK, what, f"grounded-seg models fetch {name}", 0, facts)


def _stored() -> Finding:
    """All downloaded files against their hashes."""
    subject = "downloaded weights"
    if not everything():
        return Finding(subject, State.OK, "none")
    checked = list(verify(()))
    wrong = [one for one in checked if one.problem is not None]
    facts = {"files": len(checked), "wrong": [f"{one.model}: {one.path.name}: {one.problem}" for one in wrong]}
    if wrong:
        models = sorted({one.model for one in wrong})
        remedy = f"grounded-seg models remove {models[0]}, then models fetch"
        return Finding(subject, State.ERROR, "; ".join(facts["wrong"]), remedy, WeightsError.exit_code, facts)
    return Finding(subject, State.OK, f"{len(checked)} files with the published hashes", facts=facts)


def _network() -> Finding:
    commit = hub.commit_of(next(_hub_sources()))
    return Finding(
        "network", State.OK, f"{hub.endpoint()} answers", facts={"endpoint": hub.endpoint(), "commit": commit}
    )


def _hub_sources() -> Iterator[HubSource]:
    """The repositories of the presets."""
    for preset in preset_table().presets.values():
        if not preset.ships_with_project:
            yield HubSource(preset.detector, preset.revision or "main")


def exit_code_of(findings: list[Finding]) -> int:
    """The code of what is wrong, the first of all; 0 where nothing is."""
    return next((one.exit_code for one in findings if one.state is State.ERROR), 0)
