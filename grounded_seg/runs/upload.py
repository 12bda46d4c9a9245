"""Copy a finished run to storage elsewhere: each file checked by its size, and by its MD5 where storage tells it."""

import base64
import hashlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from grounded_seg.engine.executors import read_ahead
from grounded_seg.errors import InputError, UploadError, UsageError
from grounded_seg.images.remote import storage
from grounded_seg.images.remote.addresses import WEB, address_from, below
from grounded_seg.images.remote.faults import Fault, StorageError
from grounded_seg.images.remote.storage import Connected
from grounded_seg.records import Address
from grounded_seg.runs.folder import RunFolder

_LOG = logging.getLogger(__name__)

_N_THREADS = 8
_MD5 = re.compile("[0-9a-f]{32}")


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


def upload_address(text: str) -> Address:
    """The address of a folder that files can be written to; asked for once, so that a wrong one is told early.

    Raises:
        UsageError: If it is none, or the package for this kind of storage isn't installed.
        InputError: If the credentials are refused, or there is no such bucket.
    """
    address = address_from(text)
    if address is None or address.scheme in WEB:
        raise UsageError(f"upload is {text!r}, it must be a folder of a bucket, such as s3://BUCKET/FOLDER")
    address = Address(address.url.rstrip("/"))
    scheme, _, rest = address.url.partition("://")
    bucket = Address(f"{scheme}://{rest.partition('/')[0]}")
    try:
        storage.ask(bucket, lambda at: at.storage.info(at.path))
    except StorageError as error:
        # Who may write needn't be allowed to look, and some storage makes a bucket that is missing.
        if error.fault in (Fault.REFUSED, Fault.BUCKET_MISSING) or (error.fault, scheme) == (Fault.MISSING, "s3"):
            raise InputError(f"--upload: {storage.told(bucket, error)}") from error
    return address


def put_file(path: Path, address: Address) -> None:
    """Write a file to an address, unless the same is there.

    Raises:
        UploadError: If it can't be written, or is another one there.
    """
    n_bytes, md5 = _size_and_md5(path)
    try:
        if _told_of(address) == (n_bytes, md5):
            return
        storage.ask(address, lambda at: at.storage.put_file(str(path), at.path))
        n_there, md5_there = _told_of(address)
    except StorageError as error:
        raise UploadError(f"{path} can't be uploaded: {storage.told(address, error)}") from error
    if n_there != n_bytes or md5_there not in (None, md5):
        raise UploadError(f"{path} was uploaded, but {str(address)!r} holds another file; upload it again")


def _size_and_md5(path: Path) -> tuple[int, str]:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
            return file.tell(), digest.hexdigest()
    except OSError as error:
        raise UploadError(f"{path} can't be read ({error.strerror}); check the disk") from error


def _told_of(address: Address) -> tuple[int | None, str | None]:
    """What storage says of size and MD5 of an object; None where it says nothing, or nothing is there."""
    try:
        return storage.ask(address, _size_and_md5_there)
    except StorageError as error:
        if error.fault is Fault.MISSING:
            return None, None
        raise


def _size_and_md5_there(at: Connected) -> tuple[int | None, str | None]:
    if hasattr(at.storage, "call_s3"):
        bucket, _, key = at.path.partition("/")
        head: dict[str, Any] = at.storage.call_s3("head_object", Bucket=bucket, Key=key)
        tag = str(head.get("ETag", "")).strip('"')
        # That of a file in parts, or under a key of one's own, is another hash.
        is_md5 = head.get("ServerSideEncryption") in (None, "AES256") and "SSECustomerAlgorithm" not in head
        return head["ContentLength"], tag if is_md5 and _MD5.fullmatch(tag) else None
    info: dict[str, Any] = at.storage.info(at.path)
    told = info.get("md5Hash") or (info.get("content_settings") or {}).get("content_md5")
    if isinstance(told, str):
        told = base64.b64decode(told)
    return info.get("size"), bytes(told).hex() if told else None
