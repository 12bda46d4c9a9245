"""Copy a finished run to storage elsewhere."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from grounded_seg.engine.executors import read_ahead
from grounded_seg.errors import UploadError
from grounded_seg.images.remote.addresses import below
from grounded_seg.images.remote.put import put_file
from grounded_seg.records import Address
from grounded_seg.runs.folder import RunFolder

_LOG = logging.getLogger(__name__)

_N_THREADS = 8


def upload_results(folder: RunFolder, address: Address) -> None:
    """Copy all that a run wrote to below an address: `annotations.json` and `run.json` last, when the rest is there.

    What is there already with the same size and MD5 isn't copied again.

    Raises:
        UploadError: If a file can't be copied; the run's folder stays as it is.
    """
    last = [path for path in (folder.annotations, folder.manifest) if path.exists()]
    n_files = 0

    def put(path: Path) -> None:
        put_file(path, below(address, path.relative_to(folder.root).as_posix()))

    _LOG.info("uploading the run in %s to %s", folder.root, address)
    try:
        with read_ahead(_files_of(folder, last), put, n_threads=_N_THREADS, n_ahead=2 * _N_THREADS) as done:
            n_files = sum(1 for _ in done)
        for path in last:
            put(path)
            n_files += 1
    except UploadError as error:
        raise UploadError(f"{error}; the run in {folder.root} is finished, and --resume uploads it again") from error
    _LOG.info("uploaded %d files to %s", n_files, address)


def _files_of(folder: RunFolder, left_out: list[Path]) -> Iterator[Path]:
    for place in sorted(set(folder.written()) - set(left_out)):
        if place.is_file():
            yield place
        for root, folders, names in os.walk(place):
            folders.sort()
            yield from (Path(root, name) for name in sorted(names))
