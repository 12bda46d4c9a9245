"""One published file fetched into the cache, checked before it gets its name."""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from grounded_seg.errors import WeightsError
from grounded_seg.weights.files import sha256_of_file

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes fetched so far, and the bytes in all where the server gives them."""

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 30.0
"""Longest wait for the server's next bytes."""


def cache_folder() -> Path:
    """The folder for fetched files: `GROUNDED_SEG_CACHE`, or `grounded-seg` below `XDG_CACHE_HOME` or `~/.cache`."""
    if own := os.environ.get("GROUNDED_SEG_CACHE"):
        return Path(os.path.expanduser(own))
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grounded-seg"


def fetch(url: str, sha256: str, destination: Path, *, offline: bool = False, progress: Progress | None = None) -> Path:
    """The file published at `url`, at `destination`, fetched if it isn't there yet.

    An existing file is only checked. A new one is written under a temporary name and renamed once its hash is right, so
    that no other process ever sees half a file, and nothing is left of a failed attempt.

    Args:
        url: Where to fetch from; proxies are taken from the environment.
        sha256: Of the file, 64 lower-case hex digits. Another one is a `WeightsError`.
        destination: The file; its folder is made if missing.
        offline: Fetch nothing.
        progress: Called about once per MiB.
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
    try:
        found_sha256 = _download(url, destination, sha256, progress)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            # It is a response as well, and holds the connection.
            error.close()
        raise WeightsError(f"{destination.name} could not be fetched ({error}). {remedy}") from error
    if found_sha256 != sha256:
        raise WeightsError(f"{destination.name} arrived damaged or changed: its sha256 is {found_sha256}. {remedy}")
    return destination


def _download(url: str, destination: Path, sha256: str, progress: Progress | None) -> str:
    """Write the file to `destination` if its hash is right; return the hash."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary_name = tempfile.mkstemp(dir=destination.parent, prefix=f".{destination.name}.", suffix=".part")
    temporary = Path(temporary_name)
    digest, n_done = hashlib.sha256(), 0
    try:
        # The address comes from our own table, and nothing is trusted before the hash is right.
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(url, timeout=_TIMEOUT_S) as response:  # noqa: S310
            length = response.headers.get("Content-Length")
            n_total = int(length) if length and length.isdecimal() else None
            while chunk := response.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                n_done += len(chunk)
                if progress is not None:
                    progress(n_done, n_total)
        if digest.hexdigest() == sha256:
            temporary.replace(destination)
        return digest.hexdigest()
    finally:
        temporary.unlink(missing_ok=True)
