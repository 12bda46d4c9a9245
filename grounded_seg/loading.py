"""From the options to two loaded models: find, fetch, check and load their weights."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grounded_seg.settings import DetectSettings, ModelSettings, SegmentSettings

if TYPE_CHECKING:
    from grounded_seg.detect.detector import FlorenceDetector
    from grounded_seg.runtime import Versions
    from grounded_seg.segment.segmenter import SamSegmenter
    from grounded_seg.weights.fetch import Progress
    from grounded_seg.weights.locate import LocatedWeights


@dataclass(frozen=True)
class LoadedModels:
    """Exactly which weights are loaded, and where they run; for a run's manifest."""

    detector: "LocatedWeights"
    adapter: "LocatedWeights | None"
    segmenter: "LocatedWeights | None"
    device: str
    dtype: str
    threads: int
    """CPU threads that one operation may use."""
    versions: "Versions"


def load_models(
    models: ModelSettings,
    detect: DetectSettings,
    segment: SegmentSettings,
    *,
    boxes_only: bool = False,
    progress: "Progress | None" = None,
) -> "tuple[FlorenceDetector, SamSegmenter | None, LoadedModels]":
    """Load the weights that `models` names to where they are to run.

    Args:
        models: Which weights, and where they run.
        detect: How the detector is asked.
        segment: Which masks are taken, and what is done to them.
        boxes_only: Load no segmenter.
        progress: Called while a weight file arrives, with the bytes so far and in all.

    Raises:
        UsageError: If there is no such preset, or the device's name makes no sense.
        WeightsError: If weights are missing or wrong.
        DeviceError: If the device isn't there or can't run this.
    """
    # These import torch, which takes seconds: not before a model is really wanted.
    from grounded_seg.detect.detector import load_detector
    from grounded_seg.runtime import n_threads, resolve_device, resolve_dtype, versions
    from grounded_seg.segment import load_segmenter
    from grounded_seg.weights.locate import locate
    from grounded_seg.weights.sources import resolve

    # What is quick comes first: a wrong device is told before weights are fetched, a missing file before any is loaded.
    device = resolve_device(models.device)
    dtype = resolve_dtype(models.dtype, device)
    sources = resolve(models)
    weights = locate(sources.detector, offline=models.offline)
    adapter = None if sources.adapter is None else locate(sources.adapter, offline=models.offline)
    segmenter = None if boxes_only else locate(sources.segmenter, offline=models.offline, progress=progress)
    loaded = LoadedModels(
        detector=weights,
        adapter=adapter,
        segmenter=segmenter,
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        threads=n_threads(),
        versions=versions(),
    )
    return (
        load_detector(
            weights, adapter, detect, device=device, dtype=dtype, allow_base_mismatch=models.allow_base_mismatch
        ),
        None if segmenter is None else load_segmenter(segmenter.path, device, dtype, segment),
        loaded,
    )
