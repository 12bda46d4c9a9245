"""Weights fetched into a plain folder, which works offline on another machine."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from grounded_seg.errors import OutputError, UsageError, WeightsError
from grounded_seg.settings import ModelSettings
from grounded_seg.text.documents import json_in
from grounded_seg.weights import hub
from grounded_seg.weights.fetch import address_of, cache_folder, fetch
from grounded_seg.weights.files import ADAPTER_FILE, ANY_WEIGHTS, sha256_of_file
from grounded_seg.weights.locate import cached_folder
from grounded_seg.weights.pins import LOCK_FILE, Pin, PinnedFile, pin_of, write_pin
from grounded_seg.weights.presets import preset_table
from grounded_seg.weights.retries import fault_of_disk
from grounded_seg.weights.snapshot import PlainFolder, fetch_snapshot
from grounded_seg.weights.sources import HubSource, LocalSource, PublishedSource, Source, resolve
from grounded_seg.weights.stored import sources_of
from grounded_seg.weights.transfer import Progress, has_digest


@dataclass(frozen=True)
class Taken:
    """One part in the folder."""

    name: str
    option: str
    """That takes it, such as "--detector"."""
    path: Path
    commit: str | None


def fetch_into(
    name: str, folder: Path, *, update: bool = False, progress: Callable[[str], Progress] | None = None
) -> list[Taken]:
    """Fetch a preset, a segmenter or a repository into a folder of plain files, with a lock file of their hashes.

    What the caches have is copied, and what the folder has already stays; an interrupted fetch is resumed.

    Args:
        name: As `stored.sources_of` reads it.
        folder: Made if missing. A preset's parts get subfolders; a repository's files lie directly in it.
        update: Take what the branch holds now instead of the commit that it was fixed to.
        progress: Gives the function to call while a part of this name arrives.

    Raises:
        UsageError: If there is nothing of that name, or it is a folder already.
        WeightsError: If it can't be fetched, or the folder holds other files of the same names.
        OutputError: If the folder can't be written.
    """
    taken = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for option, inside, source in _parts(name):
            told = progress(source.name) if progress else None
            taken.append(_take(source, option, folder, inside, update=update, progress=told))
    except OSError as error:
        raise _unwritable(folder, error) from error
    except WeightsError as error:
        if (fault := fault_of_disk(error)) is not None:
            raise _unwritable(folder, fault) from error
        raise
    return taken


def _unwritable(folder: Path, error: OSError) -> OutputError:
    what = f"{error.filename or folder} can't be written ({error.strerror or error})"
    return OutputError(f"{what}; make room or get permission there, or name another folder with --to")


def _parts(name: str) -> list[tuple[str, str, Source]]:
    """The options that take a name's parts, their places in the folder, and their sources."""
    if name in preset_table().presets:
        parts = resolve(ModelSettings(preset=name))
        found = [("--detector", "detector", parts.detector), ("--segmenter", "segmenter", parts.segmenter)]
        return found + ([("--adapter", "adapter", parts.adapter)] if parts.adapter else [])
    [source] = sources_of(name)
    if isinstance(source, LocalSource):
        raise UsageError(f"{name} is a folder on this disk already: copy it")
    return [("--segmenter" if isinstance(source, PublishedSource) else "--detector", "", source)]


def _take(source: Source, option: str, folder: Path, inside: str, *, update: bool, progress: Progress | None) -> Taken:
    if isinstance(source, LocalSource):
        shutil.copytree(source.path, folder / inside, dirs_exist_ok=True)
        return Taken(source.name, option, folder / inside, None)
    lock = folder / LOCK_FILE
    if isinstance(source, PublishedSource):
        path = folder / source.file.file_name
        cached = cache_folder() / path.name
        if not path.exists() and cached.is_file() and sha256_of_file(cached) == source.file.sha256:
            _copy(cached, path)
        fetch(address_of(source.file.url), source.file.sha256, path, n_bytes=source.file.n_bytes, progress=progress)
        pinned = {path.name: PinnedFile(path.stat().st_size, source.file.sha256)}
        write_pin(source.name, "published", Pin(None, pinned), lock)
        return Taken(source.name, option, path, None)
    pin = pin_of(source.repo_id, source.revision)
    commit = pin.commit if pin is not None and pin.commit and not update else _commit(source)
    store = PlainFolder(folder / inside)
    files = _copied(source, commit, store.folder) or fetch_snapshot(source, commit, ANY_WEIGHTS, store, progress)
    pinned = {f"{inside}/{name}" if inside else name: file for name, file in files.items()}
    write_pin(source.repo_id, source.revision, Pin(commit, pinned), lock)
    return Taken(source.name, _option_of(store.folder, files), store.folder, commit)


def _option_of(folder: Path, files: Mapping[str, PinnedFile]) -> str:
    """The option that takes a repository's files."""
    if ADAPTER_FILE in files:
        return "--adapter"
    try:
        kind = json_in(folder / "config.json")["model_type"]
    except (OSError, ValueError, LookupError, TypeError):
        return "--detector"
    return "--detector" if kind == "florence2" else "--segmenter"


def _commit(source: HubSource) -> str:
    if hub.is_commit(source.revision):
        return source.revision
    commit = hub.commit_of(source)
    if commit is None:
        raise WeightsError(f"{source} names no commit")
    return commit


def _copied(source: HubSource, commit: str, folder: Path) -> Mapping[str, PinnedFile] | None:
    """Copy what the hub's cache has of a commit; its files, if the folder has all that were once fetched of it."""
    pin, cached = pin_of(source.repo_id, source.revision), cached_folder(HubSource(source.repo_id, commit))
    if pin is None or cached is None or pin.commit != commit:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in pin.files.items():
        path = cached / name
        if not (folder / name).exists() and path.is_file() and has_digest(path, file.digest):
            _copy(path, folder / name)
    has_all = all(
        (folder / name).is_file() and has_digest(folder / name, one.digest) for name, one in pin.files.items()
    )
    return pin.files if has_all else None


def _copy(path: Path, destination: Path) -> None:
    """Copy a file whole or not at all."""
    unfinished = destination.with_name(f".{destination.name}.copy")
    try:
        shutil.copyfile(path, unfinished)
        unfinished.replace(destination)
    finally:
        unfinished.unlink(missing_ok=True)
