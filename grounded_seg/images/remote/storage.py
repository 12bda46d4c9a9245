"""Storage elsewhere (s3, gs, az, https) through fsspec: connections, faults as errors of ours, bytes within bounds.

Nothing here takes an address for a path: fsspec gets its kind of storage and the rest of the address apart, so that
neither a lost `s3:` nor a `::` in a key leads to another file system.
"""

import io
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from grounded_seg.errors import ImageAccessError, ImageError, InputError, UsageError
from grounded_seg.images.remote.addresses import WEB
from grounded_seg.images.remote.faults import NO_RANGE, Fault, StorageError, codes_of, library_errors, problem_of
from grounded_seg.records import Address

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

PAUSES_S: tuple[float, ...] = (1.0, 4.0)
"""Before each further try; the libraries try a few times themselves within each."""
_LONGEST_S = 30.0
"""What took so long was tried often enough by its library."""
_PROTOCOLS = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs", "https": "http"}
_CREDENTIALS = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or FSSPEC_S3_ANON=true for a public bucket",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_GS_TOKEN=anon for a public bucket",
    "abfs": "set AZURE_STORAGE_ACCOUNT_NAME, and AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN",
}


@dataclass(frozen=True)
class Connected:
    """A file system of fsspec, and what an address is called there."""

    storage: Any
    path: str


def connected(address: Address) -> Connected:
    """Connect to where an address is; asks nothing yet.

    Raises:
        UsageError: If the package for this kind of storage isn't installed.
    """
    protocol = _PROTOCOLS.get(address.scheme, address.scheme)
    place, _, key = address.url.partition("://")[2].partition("/")
    if protocol == "http":
        # An address that is whole already stays so: its signature is of these very letters.
        is_whole = address.url.isascii() and " " not in address.url
        return Connected(_storage(os.getpid(), protocol, encoded=is_whole), address.url)
    account = None
    if protocol == "abfs" and "@" in place:
        place, _, host = place.partition("@")
        account = host.partition(".")[0]
    path = f"{place}/{key}" if key else place
    options = {} if account is None else {"account_name": account}
    return Connected(_storage(os.getpid(), protocol, **options), f"/{path}" if protocol == "memory" else path)


@lru_cache(maxsize=32)
def _storage(process: int, protocol: str, **options: Any) -> Any:  # noqa: ARG001  (connections aren't inherited)
    import fsspec

    try:
        kind = fsspec.get_filesystem_class(protocol)
    except ImportError as error:
        raise _not_installed(protocol, error) from error
    if protocol == "s3" and "config_kwargs" not in fsspec.config.conf.get("s3", {}):
        # A dead host is told after seconds; by itself the library tries for many minutes.
        options["config_kwargs"] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"max_attempts": 1}}
    if protocol in ("s3", "gs", "abfs"):
        options["use_listings_cache"] = False
    try:
        return kind(**options)
    except ImportError as error:
        raise _not_installed(protocol, error) from error
    except ValueError as error:
        # Azure's account has to be named.
        raise InputError(f"{protocol}:// can't be asked ({error}); {_CREDENTIALS.get(protocol, '')}") from error


def _not_installed(protocol: str, error: ImportError) -> UsageError:
    return UsageError(f"{protocol}:// needs a package that isn't installed ({error}); install grounded-seg[cloud]")


def ask(address: Address, question: Callable[[Connected], _Answer]) -> _Answer:
    """Give what `question` returns, asked again after a pause while its fault may pass.

    Raises:
        StorageError: If no answer comes.
        UsageError: If the package for this kind of storage isn't installed.
    """
    started = time.monotonic()
    for pause_s in (*PAUSES_S, None):
        try:
            return question(connected(address))
        except library_errors() as error:
            problem, cause = problem_of(error), error
        took_long = time.monotonic() > started + _LONGEST_S
        if pause_s is None or took_long or problem.fault is not Fault.PASSING:
            break
        _LOG.info("%s: %s; trying again in %.0f s", address, problem.because, pause_s)
        time.sleep(pause_s)
    raise problem from cause


def told(address: Address, problem: StorageError) -> InputError:
    """The error of ours for a fault: an `ImageError` where other images may be better off, else it ends the work."""
    place, because, fault = repr(str(address)), problem.because, problem.fault
    if fault is Fault.REFUSED and address.scheme in WEB:
        # Each address of the web has its own rights.
        fault = Fault.FORBIDDEN
    match fault:
        case Fault.REFUSED:
            advice = _CREDENTIALS.get(_PROTOCOLS.get(address.scheme, address.scheme), "check them")
            return InputError(f"{place}: the credentials are refused or missing ({because}); {advice}")
        case Fault.BUCKET_MISSING:
            return InputError(f"{place}: there is no such bucket ({because}); check the address")
        case Fault.FORBIDDEN:
            return ImageAccessError(f"{place}: access is denied ({because}); check the credentials and their rights")
        case Fault.MISSING:
            return ImageError(f"nothing is at {place}; check the address")
        case Fault.PASSING:
            return ImageAccessError(f"{place} can't be read now ({because}); try again")
        case _:
            return ImageError(f"{place} can't be read ({because}); check the address")


def read_range(address: Address, start: int, n_bytes: int) -> bytes:
    """Read at most `n_bytes` from a position on; fewer at the end, none beyond it.

    Raises:
        StorageError: If that can't be read.
    """
    read = _web_range if address.scheme in WEB else _range
    return ask(address, lambda place: read(place, start, n_bytes))


def n_bytes_of(address: Address) -> int:
    """Size of what is at an address.

    Raises:
        StorageError: If nothing is there, it isn't known, or can't be asked.
    """
    info = ask(address, lambda place: place.storage.info(place.path))
    if info.get("type") == "directory":
        raise StorageError(Fault.MISSING, "it is a folder")
    if info.get("size") is None:
        raise StorageError(Fault.OTHER, "the server doesn't tell its size")
    return int(info["size"])


class RemoteFile(io.RawIOBase):
    """What is at an address as a file to read from any position, whatever its size; wrap it in a `BufferedReader`.

    Storage's faults are those of `told`.
    """

    def __init__(self, address: Address) -> None:
        """Ask for its size."""
        self._address = address
        self._n_bytes = self._answered(lambda: n_bytes_of(address))
        self._position = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move, without asking."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._n_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """Give the position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Read the next bytes."""
        n_wanted = min(len(buffer), self._n_bytes - self._position)
        if n_wanted <= 0:
            return 0
        found = self._answered(lambda: read_range(self._address, self._position, n_wanted))
        buffer[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _answered(self, question: Callable[[], _Answer]) -> _Answer:
        try:
            return question()
        except StorageError as error:
            raise told(self._address, error) from error


def _range(place: Connected, start: int, n_bytes: int) -> bytes:
    try:
        content: bytes = place.storage.cat_file(place.path, start=start, end=start + n_bytes)
    except library_errors() as error:
        if codes_of(error) & NO_RANGE:
            return b""
        raise
    return content


def _web_range(place: Connected, start: int, n_bytes: int) -> bytes:
    """Read from a server, which may not know ranges, or send more than it was asked for."""
    import fsspec.asyn

    async def read() -> bytes:
        session = await place.storage.set_session()
        headers = {"Range": f"bytes={start}-{start + n_bytes - 1}"} if start else {}
        async with session.get(place.storage.encode_url(place.path), headers=headers) as response:
            if response.status == 416:
                return b""
            response.raise_for_status()
            if start and response.status != 206:
                raise StorageError(Fault.OTHER, "its server can't send a part of it")
            content = bytearray()
            while len(content) < n_bytes and (more := await response.content.read(n_bytes - len(content))):
                content += more
            return bytes(content)

    content: bytes = fsspec.asyn.sync(place.storage.loop, read)
    return content
