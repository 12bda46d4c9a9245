"""Weights of any source, found on this disk or fetched to it, with their hash."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

from grounded_seg.errors import WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.weights import hub
from grounded_seg.weights.fetch import address_of, cache_folder, fetch
from grounded_seg.weights.files import ADAPTER_FILE, ANY_WEIGHTS, PICKLE_FILE, sha256_of_weights, weight_files
from grounded_seg.weights.pins import Pin, pin_of, write_pin
from grounded_seg.weights.presets import preset_table
from grounded_seg.weights.retries import Patience
from grounded_seg.weights.snapshot import HubCache, fetch_snapshot
from grounded_seg.weights.sources import HubSource, LocalSource, PublishedSource, Source, resolve
from grounded_seg.weights.transfer import Progress

_LOG = logging.getLogger(__name__)

_HUB_FILES = ("*.json", "*.txt", "*.safetensors")
"""Files of a model in the hub's cache."""
_QUICK = Patience(pauses_s=(), timeout_s=5.0)
"""For the hub, where what it has is here already."""


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
    source: Source,
    *,
    is_adapter: bool = False,
    offline: bool = False,
    progress: Progress | None = None,
    update: bool = False,
) -> LocatedWeights:
    """The weights of `source`, found or fetched.

    Args:
        source: One of the fields of `sources.ModelSources`.
        is_adapter: Read only an adapter, whatever else is beside it. Otherwise a model, or in a folder without one an
            adapter.
        offline: Fetch nothing.
        progress: Called while weights arrive.
        update: Take what a branch of a repository holds now, and fix it from now on.
    """
    names = (ADAPTER_FILE,) if is_adapter else ANY_WEIGHTS
    if isinstance(source, PublishedSource):
        path = cache_folder() / source.file.file_name
        url, sha256, n_bytes = address_of(source.file.url), source.file.sha256, source.file.n_bytes
        fetch(url, sha256, path, n_bytes=n_bytes, offline=offline, progress=progress)
        return LocatedWeights(path=path, name=source.name, revision=None, sha256=source.file.sha256)
    if isinstance(source, HubSource):
        path = _hub_snapshot(source, names, offline=offline, progress=progress, update=update)
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
    return cached_folder(source) is not None


def cached_folder(source: HubSource) -> Path | None:
    """The folder of a repository in the hub's cache, at its fixed commit; None where its weights aren't all there."""
    return _cached(_pinned(source), ANY_WEIGHTS)


def _hub_snapshot(
    source: HubSource, names: Sequence[str], *, offline: bool, progress: Progress | None, update: bool = False
) -> Path:
    """A repository's configs and weights in the hub's own cache; a pickle only where there is nothing else.

    `names` are the files that the weights may be read from; there are some, also after an interrupted fetch. The commit
    that a branch stands for is fixed when it is first fetched; `update` fixes that of today.
    """
    pin = pin_of(source.repo_id, source.revision)
    fixed = source if update else _pinned(source)
    here = _cached(fixed, names)
    if offline or huggingface_hub.constants.HF_HUB_OFFLINE:
        if here is None:
            raise _not_here(source, fixed, names, "--offline" if offline else "HF_HUB_OFFLINE")
        return here
    if here is not None and pin is not None and not update and _has_all(here, pin):
        return here
    commit = fixed.revision
    if not hub.is_commit(commit):
        now = hub.commit_of(source, patience=_QUICK if here is not None and not update else None)
        if now is None and here is not None:
            _LOG.info("the hub can't be reached; taking %s as it is in the cache", source)
            return here
        commit = now or commit
    store = HubCache(source.repo_id, commit)
    try:
        files = fetch_snapshot(source, commit, names, store, progress)
        store.name_revision(source.revision)
    except OSError as error:
        raise hub.refusal(source, f"{error.filename or store.root}: {error.strerror or error}") from error
    write_pin(source.repo_id, source.revision, Pin(commit, files))
    return store.folder


def _pinned(source: HubSource) -> HubSource:
    """The repository at the commit that its revision is fixed to; as it is where that isn't fixed."""
    pin = pin_of(source.repo_id, source.revision)
    return source if pin is None or pin.commit is None else HubSource(source.repo_id, pin.commit)


def _cached(source: HubSource, names: Sequence[str]) -> Path | None:
    """The folder of a repository in the hub's cache, if its weights are all there."""
    try:
        folder = huggingface_hub.snapshot_download(
            source.repo_id, revision=source.revision, local_files_only=True, allow_patterns=[*_HUB_FILES]
        )
    # HTTPError is the base of all that the HTTP client raises; the hub passes it on, whichever client it uses.
    except (OSError, ValueError, EntryNotFoundError, HTTPError):
        return None
    return Path(folder) if _has_weights(Path(folder), names) else None


def _not_here(source: HubSource, fixed: HubSource, names: Sequence[str], forbids: str) -> WeightsError:
    """The error of a repository that would have to be fetched."""
    try:
        huggingface_hub.snapshot_download(fixed.repo_id, revision=fixed.revision, local_files_only=True)
    except (OSError, ValueError, EntryNotFoundError, HTTPError):
        return hub.refusal(source, f"{forbids} forbids fetching it")
    wanted = f"neither .safetensors nor {PICKLE_FILE}" if PICKLE_FILE in names else f"no {names[0]}"
    reason = f"in the hub's cache, and {forbids} forbids fetching the rest"
    return WeightsError(f"{source} has {wanted} {reason}. {hub.remedy(source)}")


def _has_weights(folder: Path, names: Sequence[str]) -> bool:
    files = weight_files(folder, names)
    return bool(files) and all(file.is_file() for file in files)


def _has_all(folder: Path, pin: Pin) -> bool:
    """Whether what was fetched is still there."""
    return bool(pin.files) and all((folder / name).is_file() for name in pin.files)
