"""The findings about this machine: its device, memory and disk, the weights on it, and its network."""

import importlib
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from grounded_seg.device.choose import resolve_device, resolve_dtype
from grounded_seg.device.hardware import cards, cuda_build, memory_bytes, nvidia_driver
from grounded_seg.diagnosis.finding import Finding, State, checked
from grounded_seg.errors import WeightsError
from grounded_seg.geometry.outlines import opencv
from grounded_seg.settings import Precision
from grounded_seg.weights import hub
from grounded_seg.weights.fetch import cache_folder
from grounded_seg.weights.presets import preset_table
from grounded_seg.weights.sources import HubSource
from grounded_seg.weights.stored import everything, hub_cache_folder, preset_size, verify

_LITTLE_MEMORY_BYTES, _LITTLE_DISK_BYTES = 4 << 30, 5 << 30


def surroundings(device: str, dtype: str, *, online: bool = False) -> Iterator[Finding]:
    """The findings about all but what is installed, and the known answer; arguments as for `all_findings`."""
    yield checked("OpenCV", _opencv)
    yield checked("device", lambda: _device(device, dtype))
    yield _memory()
    yield checked("disk", _disk)
    for name in preset_table().presets:
        yield checked(f"preset {name}", partial(_preset, name))
    yield checked("downloaded weights", _stored)
    if online:
        yield checked("network", _network)


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
            remedy = "end other programs on this card, or use --preset fast with --batch-size 1"
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
        remedy = "use fast or base-ft instead of large-ft, and --batch-size 1"
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
    size = preset_size(name)
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
    files = list(verify(()))
    wrong = [one for one in files if one.problem is not None]
    told = [f"{one.model}: {one.path.name}: {one.problem}" for one in wrong]
    facts = {"files": len(files), "wrong": told}
    if wrong:
        models = sorted({one.model for one in wrong})
        remedy = f"grounded-seg models remove {models[0]}, then models fetch"
        return Finding(subject, State.ERROR, "; ".join(told), remedy, WeightsError.exit_code, facts)
    return Finding(subject, State.OK, f"{len(files)} files with the published hashes", facts=facts)


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
