"""From the options to two loaded models: find, fetch, check and load their weights."""

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

from grounded_seg.detect.model.record import check_questions
from grounded_seg.device.memory import collection_paused
from grounded_seg.pipeline.chain import Chain
from grounded_seg.scoring.score_maps import ScoreCalibration, check_calibration, read_calibration
from grounded_seg.settings import DetectSettings, ModelSettings, SegmentSettings, TileSettings, check_device_name

if TYPE_CHECKING:
    from grounded_seg.detect.detector import FlorenceDetector
    from grounded_seg.device.choose import Versions
    from grounded_seg.device.kernels import Kernels
    from grounded_seg.weights.locate import LocatedWeights
    from grounded_seg.weights.sources import ModelSources
    from grounded_seg.weights.transfer import Progress


@dataclass(frozen=True)
class RunsOn:
    """What models run on, as far as their numbers depend on it."""

    device: str
    dtype: str
    threads: int
    versions: "Versions"
    kernels: "Kernels | None" = None
    """See `FoundModels`."""
    allocator: str = "system"
    """See `FoundModels`."""
    workers: tuple[str, ...] = ()
    """The device of each worker; empty where the models run in this process."""


def runs_here(models: ModelSettings) -> RunsOn:
    """Say what models would run on in this process.

    Raises:
        UsageError: If the device's name makes no sense.
        DeviceError: If the device isn't there or can't compute in the dtype.
    """
    check_device_name(models.device)
    # This imports torch, which takes seconds: not before a model is really wanted.
    with collection_paused():
        from grounded_seg.device.allocator import keep_large_buffers
        from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype, versions
        from grounded_seg.device.kernels import choose_kernels

    device = resolve_device(models.device)
    dtype = resolve_dtype(models.dtype, device)
    return RunsOn(
        str(device),
        str(dtype).removeprefix("torch."),
        n_threads(),
        versions(),
        kernels=choose_kernels(device, dtype),
        allocator=keep_large_buffers() if device.type == "cpu" else "system",
    )


@dataclass(frozen=True)
class FoundModels:
    """Exactly which weights are to be loaded, and where they run; for a run's manifest."""

    detector: "LocatedWeights"
    adapter: "LocatedWeights | None"
    segmenter: "LocatedWeights | None"
    device: str
    dtype: str
    threads: int
    """CPU threads that one operation may use."""
    versions: "Versions"
    kernels: "Kernels | None" = None
    """In which of several ways products are computed; whoever loads the same models elsewhere is given them."""
    allocator: str = "system"
    """`kept` where glibc keeps large buffers for the next operation; it changes no result."""
    logits_dtype: str = "float32"
    """Of the detector; `dtype` is that of its vision tower and language model, and of the segmenter's encoder."""
    workers: tuple[str, ...] = ()
    """See `RunsOn`."""
    calibration: ScoreCalibration | None = None
    """Read already, so that whoever loads the models elsewhere needs no file for it."""


def find_models(
    models: ModelSettings,
    *,
    boxes_only: bool = False,
    sources: "ModelSources | None" = None,
    progress: "Progress | None" = None,
    runs_on: RunsOn | None = None,
    compiled: bool = False,
) -> FoundModels:
    """Find or fetch the weights that `models` names, and what they will run on; nothing is loaded yet.

    Args:
        models: Which weights, and where they run.
        boxes_only: Look for no segmenter.
        sources: What `models` was resolved to, where the caller has done so.
        progress: Called while a weight file is fetched.
        runs_on: What they will run on; None for what `models` names in this process.
        compiled: An image encoder goes through torch.compile.

    Raises:
        UsageError: If there is no such preset, or the device's name makes no sense.
        WeightsError: If weights are missing, or can't be fetched.
        DeviceError: If the device isn't there or can't run this.
        InputError: If the calibration can't be read; a WeightsError if it was made with other weights.
    """
    from grounded_seg.weights.locate import locate
    from grounded_seg.weights.sources import resolve

    # What is quick comes first: wrong names are told before anything is imported, a missing device before a download.
    check_device_name(models.device)
    calibration = None if models.calibration is None else read_calibration(models.calibration)
    sources, offline = sources or resolve(models), models.offline
    runs_on = runs_on or runs_here(models)
    kernels = runs_on.kernels
    if compiled and kernels is not None:
        kernels = kernels.compiled()
    detector = locate(sources.detector, offline=offline, progress=progress)
    adapter: LocatedWeights | None = None
    if sources.adapter:
        adapter = locate(sources.adapter, is_adapter=True, offline=offline, progress=progress)
    if calibration is not None:
        check_calibration(calibration, detector, adapter, allow_mismatch=models.allow_base_mismatch)
    return FoundModels(
        detector=detector,
        adapter=adapter,
        calibration=calibration,
        segmenter=None if boxes_only else locate(sources.segmenter, offline=offline, progress=progress),
        device=runs_on.device,
        dtype=runs_on.dtype,
        threads=runs_on.threads,
        versions=runs_on.versions,
        workers=runs_on.workers,
        kernels=kernels,
        allocator=runs_on.allocator,
    )


@collection_paused()
def load_found_detector(
    found: FoundModels, detect: DetectSettings, *, allow_base_mismatch: bool = False
) -> "FlorenceDetector":
    """Load the detector alone to where it runs; arguments and errors as for `load_chain`."""
    from grounded_seg.detect.detector import load_detector
    from grounded_seg.device.allocator import keep_large_buffers
    from grounded_seg.device.choose import dtype_named, resolve_device

    if found.allocator == "kept":
        # Whoever is handed `found` in another process has an allocator of its own.
        keep_large_buffers()
    device, dtype = resolve_device(found.device), dtype_named(found.dtype)
    return load_detector(
        found.detector,
        found.adapter,
        detect,
        device=device,
        dtype=dtype,
        kernels=found.kernels,
        allow_base_mismatch=allow_base_mismatch,
    )


@collection_paused()
def load_chain(
    found: FoundModels,
    detect: DetectSettings,
    segment: SegmentSettings,
    tiles: TileSettings | None = None,
    *,
    allow_base_mismatch: bool = False,
) -> Chain:
    """Load both models to where they run.

    Args:
        found: What `find_models` gave; without a segmenter the chain stops at the boxes.
        detect: How the detector is asked.
        segment: Which masks are taken, and what is done to them.
        tiles: Look at images larger than a tile in tiles, too.
        allow_base_mismatch: Load an adapter although it says that it was trained on another base.

    Raises:
        WeightsError: If weights are missing or wrong.
        DeviceError: If the device has too little memory.
    """
    from grounded_seg.device.choose import dtype_named, resolve_device
    from grounded_seg.segment import load_segmenter

    check_questions((found.adapter or found.detector).path, _options_of(found))
    detector = load_found_detector(found, detect, allow_base_mismatch=allow_base_mismatch)
    if found.segmenter is None:
        return Chain(detector, tiles=tiles, detect=detect, calibration=found.calibration)
    device, dtype = resolve_device(found.device), dtype_named(found.dtype)
    segmenter = load_segmenter(found.segmenter.path, device, dtype, segment, found.kernels)
    return Chain(detector, segmenter, tiles=tiles, detect=detect, calibration=found.calibration)


def _options_of(found: FoundModels) -> str:
    """The options of a command that name this detector and its adapter."""
    from grounded_seg.weights.presets import preset_with

    name = found.detector.name
    preset = preset_with(name)
    detector = f"--detector {shlex.quote(name)}" if preset is None else f"--preset {preset.name}"
    if found.adapter is not None:
        return f"{detector} --adapter {shlex.quote(found.adapter.name)}"
    return f"{detector} --adapter none" if preset and preset.adapter else detector
