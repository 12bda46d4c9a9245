"""Keys of storage elsewhere, page by page: a listing of any length takes the memory of one page."""

import errno
import os
from collections.abc import Iterator
from typing import Any

from grounded_seg.errors import InputError
from grounded_seg.images.remote import storage
from grounded_seg.images.remote.faults import Fault, StorageError
from grounded_seg.images.remote.storage import Connected
from grounded_seg.records import Address

_PAGE = 5000
"""Keys asked for at once; storage may give fewer, S3 1,000."""


def keys_below(folder: Address, *, recursive: bool = True) -> Iterator[str]:
    """Yield the address of each object below a folder, as text, in no particular order.

    Raises:
        InputError: If it can't be listed.
        UsageError: If the package for this kind of storage isn't installed.
    """
    scheme, _, rest = folder.url.rstrip("/").partition("://")
    place, _, key = rest.partition("/")
    start, prefix = f"{scheme}://{place}/", f"{key}/" if key else ""
    mark: Any = None
    while True:
        try:
            keys, mark = storage.ask(folder, lambda at: _page(at, prefix, mark, recursive=recursive))  # noqa: B023
        except StorageError as error:
            raise _not_listed(folder, error) from error
        for one in keys:
            # An object that ends so stands for a folder.
            if not one.endswith("/") and (recursive or "/" not in one[len(prefix) :]):
                yield start + one
        if not mark:
            return


def is_folder(address: Address) -> bool:
    """Tell a folder from an object.

    Raises:
        InputError: If nothing is there, or it can't be asked for.
    """
    if address.url.endswith("/"):
        return True
    try:
        return bool(storage.ask(address, lambda at: at.storage.info(at.path))["type"] == "directory")
    except StorageError as error:
        if error.fault is Fault.FORBIDDEN and "/" in address.url.partition("://")[2]:
            # Who may read an object needn't be allowed to ask about it.
            return False
        raise _not_listed(address, error) from error


def check_bucket(address: Address) -> None:
    """Ask once about an object of a list, so that wrong credentials are told before the models are loaded.

    That it isn't there is told when it is read.

    Raises:
        InputError: If the credentials are refused, or there is no such bucket.
    """
    try:
        storage.ask(address, lambda at: at.storage.info(at.path))
    except StorageError as error:
        if error.fault in (Fault.REFUSED, Fault.BUCKET_MISSING, Fault.FORBIDDEN):
            raise _not_listed(address, error) from error


def _not_listed(address: Address, error: StorageError) -> InputError:
    if error.fault is Fault.MISSING:
        return InputError(f"nothing is at {str(address)!r}; check the bucket and the key")
    return InputError(str(storage.told(address, error)))


def _page(at: Connected, prefix: str, mark: Any, *, recursive: bool) -> tuple[list[str], Any]:
    """Give keys of a bucket, and what to ask the next page with; None after the last one."""
    bucket = at.path.lstrip("/").partition("/")[0]
    page = {"s3": _page_of_s3, "gs": _page_of_google, "abfs": _page_of_azure}.get(_protocol_of(at), _all_at_once)
    return page(at.storage, bucket, prefix, mark, "" if recursive else "/")


def _protocol_of(at: Connected) -> str:
    names = at.storage.protocol
    names = (names,) if isinstance(names, str) else names
    return next((name for name in ("s3", "gs", "abfs") if name in names), names[0])


def _page_of_s3(storage: Any, bucket: str, prefix: str, mark: Any, delimiter: str) -> tuple[list[str], Any]:
    more = {"ContinuationToken": mark} if mark else {}
    answer = storage.call_s3("list_objects_v2", Bucket=bucket, Prefix=prefix, Delimiter=delimiter, **more)
    return [one["Key"] for one in answer.get("Contents", ())], answer.get("NextContinuationToken")


def _page_of_google(storage: Any, bucket: str, prefix: str, mark: Any, delimiter: str) -> tuple[list[str], Any]:
    more = {name: value for name, value in (("pageToken", mark), ("delimiter", delimiter)) if value}
    answer = storage.call(
        "GET",
        "b/{}/o",
        bucket,
        prefix=prefix,
        maxResults=_PAGE,
        fields="items/name,nextPageToken",
        json_out=True,
        **more,
    )
    return [one["name"] for one in answer.get("items", ())], answer.get("nextPageToken")


def _page_of_azure(storage: Any, bucket: str, prefix: str, mark: Any, delimiter: str) -> tuple[list[str], Any]:  # noqa: ARG001  (one form for all)
    import fsspec.asyn

    async def ask() -> tuple[list[str], Any]:
        container = storage.service_client.get_container_client(bucket)
        pages = container.list_blobs(name_starts_with=prefix, results_per_page=_PAGE).by_page(mark)
        async for page in pages:
            return [one.name async for one in page if (one.metadata or {}).get("hdi_isfolder") != "true"], (
                pages.continuation_token
            )
        return [], None

    answer: tuple[list[str], Any] = fsspec.asyn.sync(storage.loop, ask)
    return answer


def _all_at_once(storage: Any, bucket: str, prefix: str, mark: Any, delimiter: str) -> tuple[list[str], Any]:  # noqa: ARG001
    folder = f"/{bucket}/{prefix}"
    found = storage.find(folder.rstrip("/"), maxdepth=1 if delimiter else None)
    if not found and not storage.isdir(folder.rstrip("/")):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return [one.lstrip("/")[len(bucket) + 1 :] for one in found], None
