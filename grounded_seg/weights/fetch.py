"""A published file in the cache: found, or fetched from its publisher or a mirror."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import sha256_of_file
from grounded_seg.weights.retries import Patience
from grounded_seg.weights.transfer import Progress, RemoteFile, download


def cache_folder() -> Path:
    """The folder for fetched files: `GROUNDED_SEG_CACHE`, or `grounded-seg` below `XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("GROUNDED_SEG_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grounded-seg"


def address_of(url: str) -> str:
    """Where a published file is fetched from: its own address, or `GROUNDED_SEG_MIRROR` and its name."""
    mirror = os.environ.get("GROUNDED_SEG_MIRROR")
    return f"{mirror.rstrip('/')}/{urlsplit(url).path.rpartition('/')[2]}" if mirror else url


def fetch(
    url: str,
    sha256: str,
    destination: Path,
    *,
    n_bytes: int | None = None,
    offline: bool = False,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """The file published at `url`, at `destination`, fetched if it isn't there yet.

    An existing file is only checked. A new one is fetched by `transfer.download`, so that no other process ever sees
    half a file.

    Args:
        url: Where to fetch from; proxies are taken from the environment.
        sha256: Of the file, 64 lower-case hex digits. Another one is a `WeightsError`.
        destination: The file; its folder is made if missing.
        n_bytes: Its size, where that is known; room on the disk is checked then.
        offline: Fetch nothing.
        progress: Called whenever bytes arrive.
        patience: How long the server is waited for.
    """
    if destination.exists():
        if sha256_of_file(destination) != sha256:
            raise WeightsError(
                f"{destination} is damaged or another file than {url}: its sha256 differs. "
                "Delete it to have it fetched again, or use --preset demo, which works offline."
            )
        return destination
    remedy = f"Download {url} and put it at {destination}, or use --preset demo, which works offline."
    if offline:
        raise WeightsError(f"{destination.name} is not on this disk, and --offline forbids fetching it. {remedy}")
    remote = RemoteFile(destination.name, url, sha256, n_bytes, remedy)
    download(remote, destination, progress=progress, patience=patience)
    return destination
