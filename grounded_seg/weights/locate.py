"""Weights of any source, found on this disk or fetched to it, with their hash."""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]
from huggingface_hub.utils.tqdm import disable_progress_bars

from grounded_seg.errors import WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.weights.fetch import cache_folder, fetch
from grounded_seg.weights.files import (
    ADAPTER_FILE,
    ANY_WEIGHTS,
    NATIVE_WEIGHT_FILES,
    PICKLE_FILE,
    sha256_of_weights,
    weight_files,
)
from grounded_seg.weights.presets import preset_table
from grounded_seg.weights.sources import HubSource, LocalSource, PublishedSource, Source, resolve
from grounded_seg.weights.transfer import Progress

_LOG = logging.getLogger(__name__)

_HUB_FILES = ("*.json", "*.txt", "*.safetensors")
"""Files of a model. Code (`.py`) isn't fetched."""


@dataclass(frozen=True)
class LocatedWeights:
    """Weights on this disk, a file or a folder, as a run's manifest names them."""

    path: Path
    name: str
    """Hub id, file name, or the path as it was given."""
    revision: str | None
    """Commit on the hub, where they come from there."""
    sha256: str
    """Of the weights alone, see `files.sha256_of_weights`."""


def locate(
    source: Source, *, is_adapter: bool = False, offline: bool = False, progress: Progress | None = None
) -> LocatedWeights:
    """The weights of `source`, found or fetched.

    Args:
        source: One of the fields of `sources.ModelSources`.
        is_adapter: Read only an adapter, whatever else is beside it. Otherwise a model, or in a folder without one an
            adapter.
        offline: Fetch nothing.
        progress: Called while a Segment Anything file arrives.
    """
    names = (ADAPTER_FILE,) if is_adapter else ANY_WEIGHTS
    if isinstance(source, PublishedSource):
        path = cache_folder() / source.file.file_name
        fetch(source.file.url, source.file.sha256, path, offline=offline, progress=progress)
        return LocatedWeights(path=path, name=source.name, revision=None, sha256=source.file.sha256)
    if isinstance(source, HubSource):
        path = _hub_snapshot(source, names, offline=offline)
        # A snapshot's folder is named after its commit.
        return LocatedWeights(path=path, name=source.name, revision=path.name, sha256=sha256_of_weights(path, names))
    sha256 = sha256_of_weights(source.path, names)
    if source.path.is_file() and sha256 not in {file.sha256 for file in preset_table().segmenters.values()}:
        _LOG.info("%s is none of the published Segment Anything files; its sha256 is %s.", source.path, sha256)
    return LocatedWeights(path=source.path, name=source.name, revision=None, sha256=sha256)


@dataclass(frozen=True)
class PresetParts:
    """The weights of a preset, by name, and whether they are on this disk."""

    name: str
    detector: str | None
    """None, as of the segmenter, where the preset's own part is missing from the installation."""
    adapter: str | None
    """None where it has none."""
    segmenter: str | None
    is_on_disk: bool
    """Nothing would be fetched."""


def presets() -> tuple[PresetParts, ...]:
    """List the presets for `GroundedSegmenter.from_preset`, their parts, and whether they are on this disk."""
    return tuple(_parts_of(name) for name in preset_table().presets)


def _parts_of(preset: str) -> PresetParts:
    try:
        sources = resolve(ModelSettings(preset=preset))
    except WeightsError:
        return PresetParts(preset, None, None, None, is_on_disk=False)
    parts = (sources.detector, sources.adapter, sources.segmenter)
    detector, adapter, segmenter = (None if part is None else part.name for part in parts)
    are_here = all(is_on_disk(part) for part in parts if part is not None)
    return PresetParts(preset, detector, adapter, segmenter, is_on_disk=are_here)


def is_on_disk(source: Source) -> bool:
    """Whether `locate` would fetch nothing; the weights aren't read."""
    if isinstance(source, PublishedSource):
        return (cache_folder() / source.file.file_name).is_file()
    if isinstance(source, LocalSource):
        return source.path.exists()
    try:
        _hub_snapshot(source, ANY_WEIGHTS, offline=True)
    except WeightsError:
        return False
    return True


def _hub_snapshot(source: HubSource, names: Sequence[str], *, offline: bool) -> Path:
    """A repository's configs and weights in the hub's own cache; a pickle only where there is nothing else.

    `names` are the files that the weights may be read from; there are some, also after an interrupted fetch.
    """
    remedy = f"Download {source.url} elsewhere and name its folder instead, or use --preset demo, which works offline."
    if not sys.stderr.isatty():
        disable_progress_bars()
    snapshot = partial(
        huggingface_hub.snapshot_download, source.repo_id, revision=source.revision, local_files_only=offline
    )
    try:
        folder = Path(snapshot(allow_patterns=[*_HUB_FILES]))
        if PICKLE_FILE in names and not _has_weights(folder, NATIVE_WEIGHT_FILES):
            folder = Path(snapshot(allow_patterns=[*_HUB_FILES, PICKLE_FILE]))
    # HTTPError is the base of all that the HTTP client raises; the hub passes it on, whichever client it uses.
    except (OSError, ValueError, EntryNotFoundError, HTTPError) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        reason = "--offline forbids fetching it" if offline else said
        raise WeightsError(
            f"{source} is neither a folder here nor in the hub's cache and could not be fetched ({reason}). {remedy}"
        ) from error
    if not _has_weights(folder, names):
        reason = "in the hub's cache, and --offline forbids fetching the rest" if offline else "on the hub"
        wanted = f"neither .safetensors nor {PICKLE_FILE}" if PICKLE_FILE in names else f"no {names[0]}"
        raise WeightsError(f"{source} has {wanted} {reason}. {remedy}")
    return folder


def _has_weights(folder: Path, names: Sequence[str]) -> bool:
    files = weight_files(folder, names)
    return bool(files) and all(file.is_file() for file in files)
