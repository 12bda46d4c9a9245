"""A repository's configs and weights, fetched into the hub's own cache or into a plain folder."""

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Protocol

import huggingface_hub
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from grounded_seg.errors import WeightsError
from grounded_seg.files import one_process_at_a_time, whole_file
from grounded_seg.weights import hub
from grounded_seg.weights.files import INDEX_FILE, PICKLE_FILE, weight_files
from grounded_seg.weights.pins import PinnedFile
from grounded_seg.weights.sources import HubSource
from grounded_seg.weights.transfer import Progress, RemoteFile, check_room, download, has_digest

_TEXT_FILES = ("*.json", "*.txt")
"""Configs and vocabularies. Code (`.py`) isn't fetched."""
_MAX_TEXT_BYTES = 100 << 20


class Store(Protocol):
    """Where files go."""

    @property
    def folder(self) -> Path:
        """The folder that holds them by name."""

    def has(self, file: hub.HubFile) -> bool:
        """Whether a file is there."""

    def destination(self, file: hub.HubFile) -> Path:
        """Where it is downloaded to."""

    def finish(self, file: hub.HubFile) -> None:
        """Give a downloaded file its name in the folder."""


@dataclass(frozen=True)
class HubCache:
    """A commit of a repository in the hub's cache, laid out as the hub's own library does."""

    repo_id: str
    commit: str

    @property
    def root(self) -> Path:
        """The repository's folder."""
        return Path(huggingface_hub.constants.HF_HUB_CACHE) / repo_folder_name(repo_id=self.repo_id, repo_type="model")

    @property
    def folder(self) -> Path:
        """The commit's folder, of links to blobs."""
        return self.root / "snapshots" / self.commit

    def has(self, file: hub.HubFile) -> bool:
        """Whether a file of this size is there."""
        path = self.folder / file.name
        return os.path.isfile(path) and path.stat().st_size == file.n_bytes

    def destination(self, file: hub.HubFile) -> Path:
        """The blob, which is named by its hash."""
        return self.root / "blobs" / file.digest

    def finish(self, file: hub.HubFile) -> None:
        """Link the blob into the commit's folder; where the system knows no links, move it."""
        path, blob = self.folder / file.name, self.destination(file)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not self.has(file):
            path.unlink(missing_ok=True)
        try:
            path.symlink_to(Path("..", "..", "blobs", blob.name))
        except FileExistsError:
            # Another process was faster.
            return
        except (OSError, NotImplementedError):
            blob.replace(path)

    def name_revision(self, revision: str) -> None:
        """Have the hub's library find this commit by a branch or tag."""
        if revision == self.commit or hub.leaves_folder(revision):
            return
        ref = self.root / "refs" / revision
        ref.parent.mkdir(parents=True, exist_ok=True)
        lock = ref.with_name(f".{ref.name}.lock")
        with one_process_at_a_time(lock, partial(time.sleep, 0.05)), whole_file(ref) as file:
            file.write(self.commit.encode())


@dataclass(frozen=True)
class PlainFolder:
    """A folder to be copied to another machine."""

    folder: Path

    def has(self, file: hub.HubFile) -> bool:
        """Whether exactly this file is there; another one of its name is a `WeightsError`."""
        path = self.destination(file)
        if not os.path.exists(path):
            return False
        if not has_digest(path, file.digest):
            raise WeightsError(f"{path} is another file than the hub's; delete it, or name a new folder with --to")
        return True

    def destination(self, file: hub.HubFile) -> Path:
        """The file's place."""
        return self.folder / file.name

    def finish(self, file: hub.HubFile) -> None:
        """Do nothing: it has its name."""


def fetch_snapshot(
    source: HubSource, commit: str, names: Sequence[str], store: Store, progress: Progress | None = None
) -> dict[str, PinnedFile]:
    """Fetch a repository's configs and the best of its weights; what is there already isn't fetched again.

    Args:
        source: The repository.
        commit: Of it.
        names: Files that the weights may be read from, the best first; for an index, the files that it names.
        store: Where they go.
        progress: Called with the bytes of all files together.

    Returns:
        All files of it, by name.

    Raises:
        WeightsError: If the hub doesn't give them, or gives something else.
    """
    found = hub.listing(source, commit)
    texts = [one for name, one in found.files.items() if any(fnmatch(name, pattern) for pattern in _TEXT_FILES)]
    for one in texts:
        if one.n_bytes > _MAX_TEXT_BYTES:
            raise hub.refusal(source, f"its {one.name} has {one.n_bytes / 1e6:.0f} MB")
    best = next((name for name in names if name in found.files), None)
    if best is None:
        wanted = f"neither .safetensors nor {PICKLE_FILE}" if PICKLE_FILE in names else f"no {names[0]}"
        raise WeightsError(f"{source} has {wanted} on the hub. {hub.remedy(source)}")
    _fetch_all(source, commit, texts, store, None)
    weights = [found.files[best]] if best != INDEX_FILE else _shards(source, found, store)
    _fetch_all(source, commit, weights, store, progress)
    return {one.name: PinnedFile(one.n_bytes, one.digest) for one in (*texts, *weights)}


def _shards(source: HubSource, found: hub.Listing, store: Store) -> list[hub.HubFile]:
    """The files that a model's index names."""
    names = [path.name for path in weight_files(store.folder, (INDEX_FILE,))]
    missing = [name for name in names if name not in found.files]
    if missing or not names:
        raise hub.refusal(source, f"its {INDEX_FILE} names {(missing or ['nothing'])[0]}, which isn't there")
    return [found.files[name] for name in names]


def _fetch_all(
    source: HubSource, commit: str, files: Iterable[hub.HubFile], store: Store, progress: Progress | None
) -> None:
    missing = [one for one in files if not store.has(one)]
    n_all, n_before = sum(one.n_bytes for one in missing), 0
    if missing:
        check_room(store.folder, n_all, str(source))
    for one in missing:
        if one.is_large:
            hub.check_file(source, commit, one)
        url = hub.file_url(source.repo_id, commit, one.name)
        headers = build_hf_headers(library_name="grounded-seg")
        remote = RemoteFile(f"{source}: {one.name}", url, one.digest, one.n_bytes, hub.remedy(source), headers)

        def show(n_done: int, _: int | None, n_before: int = n_before) -> None:
            if progress is not None:
                progress(n_before + n_done, n_all)

        download(remote, store.destination(one), progress=show)
        store.finish(one)
        n_before += one.n_bytes
