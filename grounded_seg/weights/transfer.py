"""One file over HTTP: resumed where it broke, tried again, checked, and never there by half."""

import hashlib
import http.client
import json
import logging
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from grounded_seg.errors import WeightsError
from grounded_seg.files import UNFINISHED, one_process_at_a_time
from grounded_seg.text.documents import json_in
from grounded_seg.weights import retries
from grounded_seg.weights.retries import GivenUpError, Patience, first_line, is_of_disk, opener, persist, request_for

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the bytes fetched so far, and the bytes in all where the server gives them."""

_LOG = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_SPARE_BYTES = 16 << 20
"""Room on the disk that stays free beside the file."""
_SHA256_DIGITS = 64


@dataclass(frozen=True)
class RemoteFile:
    """A published file, and what its bytes have to be."""

    name: str
    """In messages."""
    url: str
    digest: str
    """64 hex digits of its sha256, or 40 of the hash by which git knows it."""
    n_bytes: int | None
    """None where it isn't known beforehand; always known for git's hash."""
    remedy: str
    """What to do where it can't be fetched."""
    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """`Authorization` goes to the host of `url` alone, wherever that redirects to."""


class _UnexpectedError(Exception):
    """The server's answer isn't the file; the message says why."""


def hasher_of(digest: str, n_bytes: int | None) -> Any:
    """A hash object that ends with `digest` if it is fed the right bytes."""
    if len(digest) == _SHA256_DIGITS:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % (n_bytes or 0), usedforsecurity=False)


def has_digest(path: Path, digest: str) -> bool:
    """Whether a file has this hash; a `WeightsError` if it can't be read."""
    try:
        hasher = hasher_of(digest, path.stat().st_size)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                hasher.update(chunk)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}.") from error
    return bool(hasher.hexdigest() == digest)


def check_room(folder: Path, n_bytes: int, what: str) -> None:
    """Refuse a file that is larger than what is free on the disk of `folder`, which may not be there yet."""
    existing = next(one for one in (folder, *folder.parents) if os.path.isdir(one))
    n_free = shutil.disk_usage(existing).free
    if n_bytes + _SPARE_BYTES > n_free:
        raise WeightsError(
            f"{what} takes {n_bytes / 1e6:.0f} MB, and {n_free / 1e6:.0f} MB are free in {existing}; "
            "make room there, or choose another disk with GROUNDED_SEG_CACHE and HF_HOME"
        )


def download(
    file: RemoteFile, destination: Path, *, progress: Progress | None = None, patience: Patience | None = None
) -> None:
    """Fetch a file to where none is yet; what has arrived of it before is kept and completed.

    Bytes go into a hidden file beside `destination`, which gets that name once its hash is right. A transfer that ends
    early leaves the hidden file if the server can complete it later (it names an `ETag`), and nothing otherwise. A
    second process waits for the first, and finds the file.

    Raises:
        WeightsError: If the file can't be fetched, or isn't what it should be.
    """
    patience = patience or retries.PATIENCE
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        told = partial(_LOG.info, "another process is fetching %s; waiting for it", file.name)
        waiting = _Waiting(told, patience.sleep)
        with one_process_at_a_time(destination.with_name(f".{destination.name}.lock"), waiting):
            if not destination.exists():
                _Transfer(file, destination, progress, patience).run()
    except OSError as error:
        # A folder that can't be made.
        raise _failed(file, first_line(error), error) from error


@dataclass
class _Waiting:
    """Says once that it waits."""

    tell: Callable[[], None]
    sleep: Callable[[float], None]
    told: bool = False

    def __call__(self) -> None:
        if not self.told:
            self.tell()
        self.told = True
        self.sleep(0.2)


def _failed(file: RemoteFile, reason: str, cause: BaseException | None = None) -> WeightsError:
    if is_of_disk(cause):
        remedy = "Make room or get permission there, or choose another disk with GROUNDED_SEG_CACHE and HF_HOME."
        return WeightsError(f"{file.name} could not be fetched ({reason}). {remedy}")
    return WeightsError(f"{file.name} could not be fetched ({reason}). {file.remedy}")


class _Transfer:
    """The attempts at one file, and what they have of it."""

    def __init__(self, file: RemoteFile, destination: Path, progress: Progress | None, patience: Patience) -> None:
        self._file, self._destination, self._patience = file, destination, patience
        self._progress = progress or (lambda _done, _total: None)
        self._part = destination.with_name(f".{destination.name}{UNFINISHED}")
        self._note = destination.with_name(f".{destination.name}{UNFINISHED}.json")
        self._opener = opener()
        self._validator: str | None = None
        self._n_done = 0
        self._hasher = hasher_of(file.digest, file.n_bytes)
        self._find_part()

    def run(self) -> None:
        """Fetch until the file is whole and right."""
        is_finished = False
        try:
            is_resumed = self._n_done > 0
            if self._file.n_bytes is not None:
                check_room(self._part.parent, self._file.n_bytes - self._n_done, self._file.name)
            self._fetch()
            if is_resumed and not self._is_right():
                _LOG.info("%s: its first part was from another version; fetching it again", self._file.name)
                self._restart(None)
                self._fetch()
            is_finished = True
        finally:
            if not is_finished and not (self._validator and self._n_done):
                self._forget()
        if not self._is_right():
            self._forget()
            kind = "sha256" if len(self._file.digest) == _SHA256_DIGITS else "hash"
            found = self._hasher.hexdigest()
            raise WeightsError(
                f"{self._file.name} arrived damaged or changed: its {kind} is {found}. {self._file.remedy}"
            )
        self._part.replace(self._destination)
        self._forget()

    def _fetch(self) -> None:
        """Try until all bytes are here."""
        if self._n_done == self._file.n_bytes and self._part.exists():
            return
        try:
            persist(self._file.name, self._attempt, n_done=lambda: self._n_done, patience=self._patience)
        except _UnexpectedError as error:
            self._restart(None)
            raise _failed(self._file, str(error)) from error
        except GivenUpError as error:
            raise _failed(self._file, f"{error}{self._kept()}", error.__cause__) from error

    def _attempt(self) -> None:
        """Ask for what is missing, and append what comes."""
        headers = {"Accept-Encoding": "identity", **self._file.headers}
        if self._n_done and self._validator:
            headers |= {"Range": f"bytes={self._n_done}-", "If-Range": self._validator}
        with self._open(request_for(self._file.url, headers)) as response:
            if not self._continues(response):
                self._restart(_validator_of(response))
            n_all = self._n_all(response)
            with self._part.open("ab") as part:
                # What is there at once: a standstill mustn't lose what came before it.
                while chunk := response.read1(_CHUNK_BYTES):
                    part.write(chunk)
                    self._hasher.update(chunk)
                    self._n_done += len(chunk)
                    if n_all is not None and self._n_done > n_all:
                        raise _UnexpectedError(f"more than its {n_all} bytes came")
                    self._progress(self._n_done, n_all)
                part.flush()
                os.fsync(part.fileno())
        if n_all is not None and self._n_done < n_all:
            raise ConnectionError(f"the connection ended after {self._n_done} of {n_all} bytes")

    def _open(self, request: urllib.request.Request) -> Any:
        try:
            return self._opener.open(request, timeout=self._patience.timeout_s)
        except urllib.error.HTTPError as error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and self._n_done:
                self._restart(None)
                raise ConnectionError("the server has less of it than is here; starting again") from error
            raise

    def _continues(self, response: Any) -> bool:
        """Whether an answer starts where the part ends."""
        if response.status != http.client.PARTIAL_CONTENT:
            return False
        span = response.headers.get("Content-Range", "")
        if not self._n_done or not span.startswith(f"bytes {self._n_done}-"):
            raise _UnexpectedError(f"the server sent another part of it ({span or 'it does not say which'})")
        return True

    def _n_all(self, response: Any) -> int | None:
        """Bytes of the whole file, by what is known of it and by what the server says."""
        said = response.headers.get("Content-Length", "")
        n_said = self._n_done + int(said) if said.isdecimal() and len(said) < _SHA256_DIGITS else None
        n_known = self._file.n_bytes
        if n_known is not None and n_said is not None and n_said != n_known:
            raise _UnexpectedError(f"the server has {n_said} bytes of it instead of {n_known}")
        return n_said if n_known is None else n_known

    def _find_part(self) -> None:
        """Take over what an earlier process left of the same file."""
        try:
            note = json_in(self._note)
            validator = note["etag"] if note["digest"] == self._file.digest else None
            if not isinstance(validator, str) or not self._part.is_file():
                return
            with self._part.open("rb") as part:
                while chunk := part.read(_CHUNK_BYTES):
                    self._hasher.update(chunk)
                    self._n_done += len(chunk)
            self._validator = validator
        except (OSError, ValueError, LookupError, TypeError):
            # Nothing was left, or it can't be used.
            self._n_done, self._hasher = 0, hasher_of(self._file.digest, self._file.n_bytes)
        if self._file.n_bytes is not None and self._n_done > self._file.n_bytes:
            self._restart(None)

    def _restart(self, validator: str | None) -> None:
        """Begin with an empty part, of the version that the server calls `validator`."""
        self._n_done, self._validator = 0, validator
        self._hasher = hasher_of(self._file.digest, self._file.n_bytes)
        self._forget()
        self._part.touch()
        if validator is not None:
            self._note.write_text(json.dumps({"etag": validator, "digest": self._file.digest}), encoding="utf-8")

    def _forget(self) -> None:
        for path in (self._part, self._note):
            path.unlink(missing_ok=True)

    def _is_right(self) -> bool:
        return bool(self._hasher.hexdigest() == self._file.digest)

    def _kept(self) -> str:
        """What a message says of the part that stays."""
        if not self._validator or not self._n_done:
            return ""
        of_all = f" of {self._file.n_bytes / 1e6:.1f}" if self._file.n_bytes else ""
        return f"; {self._n_done / 1e6:.1f}{of_all} MB are kept, and the same command resumes there"


def _validator_of(response: Any) -> str | None:
    """The `ETag` of an answer, if it stands for exactly these bytes."""
    etag = response.headers.get("ETag")
    return etag if etag and not etag.startswith("W/") else None
