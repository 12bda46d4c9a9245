"""Weights on this disk: their sizes, their hashes against those published, and their removal."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.file_download import repo_folder_name

from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.files import UNFINISHED
from grounded_seg.settings import ModelSettings
from grounded_seg.weights.fetch import cache_folder
from grounded_seg.weights.hub import leaves_folder
from grounded_seg.weights.locate import cached_folder, is_on_disk
from grounded_seg.weights.pins import LOCK_FILE, PinnedFile, lock_path, pin_of, read_pins, write_pin
from grounded_seg.weights.presets import preset_by_name, preset_table
from grounded_seg.weights.sources import (
    HubSource,
    LocalSource,
    PublishedSource,
    Source,
    hub_source,
    named_source,
    resolve,
)
from grounded_seg.weights.transfer import has_digest

_BYTES_PER_PARAMETER = (2, 4)


@dataclass(frozen=True)
class CheckedFile:
    """One file that was compared with its published hash."""

    model: str
    path: Path
    n_bytes: int
    problem: str | None
    """None where it is right."""


@dataclass(frozen=True)
class PresetSize:
    """How much of a preset is here, and how much is to be fetched."""

    n_here: int
    n_missing: tuple[int, int]
    """At least and at most."""


def sources_of(name: str) -> list[Source]:
    """The parts of a preset, or the repository or segmenter of this name.

    Raises:
        UsageError: If it is neither.
    """
    if name in preset_table().presets:
        parts = resolve(ModelSettings(preset=name))
        return [part for part in (parts.detector, parts.adapter, parts.segmenter) if part is not None]
    if name in preset_table().segmenters:
        return [PublishedSource(preset_table().segmenters[name])]
    if name and os.path.isdir(os.path.expanduser(name)):
        return [named_source(name, "PRESET|ID")]
    source = hub_source(name)
    if source is None:
        preset_names = ", ".join((*preset_table().presets, *preset_table().segmenters))
        raise UsageError(f"{name!r} is neither of {preset_names} nor a hub id such as owner/name")
    return [source]


def folder_of(source: Source) -> Path | None:
    """Where a source's files are on this disk; None where it isn't there."""
    if isinstance(source, HubSource):
        return cached_folder(source)
    path = source.path if isinstance(source, LocalSource) else cache_folder() / source.file.file_name
    return path if os.path.exists(path) else None


def hub_cache_folder() -> Path:
    """The hub's cache, which other tools use too."""
    return Path(huggingface_hub.constants.HF_HUB_CACHE)


def n_bytes_of(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what can't be read counts as nothing."""
    files = [path] if os.path.isfile(path) else [Path(at, name) for at, _, names in os.walk(path) for name in names]
    return sum(one.stat().st_size for one in files if os.path.isfile(one))


def preset_size(name: str) -> PresetSize:
    """The size of a preset's parts, of what is missing as far as it is known beforehand."""
    n_here, least, most = 0, 0, 0
    for source in sources_of(name):
        path = folder_of(source)
        if path is not None:
            n_here += n_bytes_of(path)
        elif isinstance(source, PublishedSource):
            least, most = least + (source.file.n_bytes or 0), most + (source.file.n_bytes or 0)
        else:
            preset = preset_by_name(name)
            is_detector = source.name == preset.detector
            parameters = (preset.parameters if is_detector else preset.segmenter_parameters) or 0
            least, most = least + _BYTES_PER_PARAMETER[0] * parameters, most + _BYTES_PER_PARAMETER[1] * parameters
    return PresetSize(n_here, (least, most))


def verify(names: Sequence[str]) -> Iterator[CheckedFile]:
    """Compare files on this disk with their published hashes.

    Args:
        names: Presets, segmenters, hub ids, and folders that `models fetch --to` made; without any, all that were
            fetched to this disk.

    Raises:
        WeightsError: If one that is named isn't on this disk.
    """
    for name in names:
        if os.path.isdir(os.path.expanduser(name)):
            yield from _verify_folder(Path(os.path.expanduser(name)))
            continue
        for source in sources_of(name):
            if not isinstance(source, LocalSource) and not is_on_disk(source):
                raise WeightsError(
                    f"{source.name} is not on this disk; fetch it with `grounded-seg models fetch {name}`"
                )
            yield from _verify_source(source)
    if not names:
        for found in everything():
            yield from _verify_source(found)


def everything() -> list[Source]:
    """All that was fetched to this disk: repositories of the lock file and of presets, and published segmenters."""
    table = preset_table()
    hub = {HubSource(repo_id, revision) for repo_id, revision in read_pins(lock_path())}
    hub |= {part for name in table.presets for part in _fetched_parts(name) if isinstance(part, HubSource)}
    found: list[Source] = [*sorted(hub, key=str), *map(PublishedSource, table.segmenters.values())]
    return [one for one in found if is_on_disk(one)]


def _verify_source(source: Source) -> Iterator[CheckedFile]:
    """Check the files of one source; a folder of one's own has no published hash and gives none."""
    path = folder_of(source)
    if path is None or isinstance(source, LocalSource):
        return
    if isinstance(source, PublishedSource):
        yield _checked(source.name, path, PinnedFile(source.file.n_bytes or path.stat().st_size, source.file.sha256))
        return
    pin = pin_of(source.repo_id, source.revision)
    for file in sorted(path.iterdir()):
        # The hub's cache names a blob by its hash.
        blob = file.resolve()
        if pin is not None and file.name in pin.files:
            yield _checked(source.name, file, pin.files[file.name])
        elif len(blob.name) in (40, 64) and blob.is_file():
            yield _checked(source.name, file, PinnedFile(blob.stat().st_size, blob.name))
    for name in sorted((pin.files.keys() if pin else set()) - {file.name for file in path.iterdir()}):
        yield CheckedFile(source.name, path / name, 0, "missing")


def _verify_folder(folder: Path) -> Iterator[CheckedFile]:
    pins = read_pins(folder / LOCK_FILE)
    if not pins:
        raise WeightsError(f"{folder} has no {LOCK_FILE}: only folders of `models fetch --to` can be verified")
    for (model, _), pin in pins.items():
        for name, file in pin.files.items():
            if leaves_folder(name):
                raise WeightsError(f"{folder / LOCK_FILE} names {name!r}, which leaves the folder; fetch it again")
            yield _checked(model, folder / name, file)


def _checked(model: str, path: Path, expected: PinnedFile) -> CheckedFile:
    if not path.is_file():
        return CheckedFile(model, path, 0, "missing")
    n_bytes = path.stat().st_size
    if n_bytes != expected.n_bytes:
        return CheckedFile(model, path, n_bytes, f"{n_bytes} bytes instead of {expected.n_bytes}")
    return CheckedFile(model, path, n_bytes, None if has_digest(path, expected.digest) else "its hash differs")


def remove(name: str) -> tuple[int, list[str]]:
    """Delete a preset, segmenter or repository from this disk, and what an interrupted fetch left of it.

    A preset's part stays as long as another preset that uses it is here. Of a repository all versions go.

    Returns:
        The bytes that became free, and the names of what stays.

    Raises:
        UsageError: If it comes with the project, or is a folder of one's own.
    """
    n_freed, kept = 0, []
    for source in sources_of(name):
        if isinstance(source, LocalSource):
            what = "comes with the project" if name in preset_table().presets else "is a folder of your own"
            raise UsageError(f"{name} {what}; only what was fetched can be removed")
        if user := _other_user(source, name):
            kept.append(f"{source.name}, which {user} uses")
        elif isinstance(source, PublishedSource):
            n_freed += sum(_delete(path) for path in _files_of(cache_folder() / source.file.file_name))
        else:
            n_freed += _delete(hub_cache_folder() / repo_folder_name(repo_id=source.repo_id, repo_type="model"))
            for repo_id, revision in read_pins(lock_path()):
                if repo_id == source.repo_id:
                    write_pin(repo_id, revision, None)
    return n_freed, kept


def _other_user(source: Source, name: str) -> str | None:
    """Another preset with this part whose other parts are on this disk; None too where a part is removed by itself."""
    if name not in preset_table().presets:
        return None
    for other in preset_table().presets:
        parts = _fetched_parts(other)
        if other != name and source in parts and all(is_on_disk(one) for one in parts if one != source):
            return other
    return None


def _fetched_parts(preset: str) -> list[Source]:
    """The parts of a preset that have to be fetched: of one that comes with the project none."""
    return [] if preset_by_name(preset).ships_with_project else sources_of(preset)


def _files_of(path: Path) -> list[Path]:
    return [path, *(path.with_name(f".{path.name}{UNFINISHED}{ending}") for ending in ("", ".json"))]


def _delete(path: Path) -> int:
    """Delete a file or folder, and give its bytes; 0 where there is none."""
    try:
        if path.is_dir():
            n_bytes = sum(one.lstat().st_size for one in path.rglob("*") if one.is_file() and not one.is_symlink())
            shutil.rmtree(path)
            return n_bytes
        n_bytes = path.stat().st_size if path.exists() else 0
        path.unlink(missing_ok=True)
    except OSError as error:
        raise WeightsError(
            f"{error.filename or path} can't be deleted ({error.strerror}); delete it yourself"
        ) from error
    return n_bytes
