"""What a repository on the Hugging Face hub holds at a commit, asked for with limits on every answer."""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import huggingface_hub
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from grounded_seg.errors import WeightsError
from grounded_seg.text.documents import json_of
from grounded_seg.weights import retries
from grounded_seg.weights.sources import HubSource

_MAX_ANSWER_BYTES = 8 << 20
_MAX_PAGES = 200
_MAX_FILES = 100_000
_NEXT_PAGE = re.compile(r'<([^>]+)>;\s*rel="next"')
_COMMIT = re.compile(r"[0-9a-f]{40}")
_DIGESTS = {"lfs": re.compile(r"[0-9a-f]{64}"), "git": re.compile(r"[0-9a-f]{40}")}


@dataclass(frozen=True)
class HubFile:
    """One file at the top of a repository."""

    name: str
    n_bytes: int
    digest: str
    """sha256 of a large file, git's hash of a small one; also the name of its blob in the hub's cache."""
    is_large: bool
    """Git keeps only a pointer to it; every file of 10 MB or more is such a one."""


@dataclass(frozen=True)
class Listing:
    """The files at the top of a repository, at one commit."""

    repo_id: str
    commit: str
    files: Mapping[str, HubFile]


def endpoint() -> str:
    """Address of the hub: `HF_ENDPOINT`, or huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or huggingface_hub.constants.ENDPOINT).rstrip("/")


def file_url(repo_id: str, commit: str, name: str) -> str:
    """Address of a file."""
    return f"{endpoint()}/{repo_id}/resolve/{commit}/{quote(name)}"


def is_commit(revision: str) -> bool:
    """Whether a revision is a commit, which never changes."""
    return _COMMIT.fullmatch(revision) is not None


def commit_of(source: HubSource, patience: retries.Patience | None = None) -> str | None:
    """The commit that a branch or tag stands for now; with a `patience`, None where the hub can't be reached in it."""
    url = f"{endpoint()}/api/models/{source.repo_id}/revision/{quote(source.revision, safe='')}"
    try:
        answer, _ = retries.persist(str(source), lambda: _asked_once(source, url), patience=patience)
    except retries.GivenUpError as error:
        if patience is not None:
            return None
        raise refusal(source, str(error)) from error
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not is_commit(commit):
        raise refusal(source, "the hub's answer names no commit")
    return commit


def listing(source: HubSource, commit: str) -> Listing:
    """What a repository holds at a commit; folders in it are left out."""
    url: str | None = f"{endpoint()}/api/models/{source.repo_id}/tree/{commit}?recursive=true"
    files: dict[str, HubFile] = {}
    for _ in range(_MAX_PAGES):
        if url is None:
            return Listing(source.repo_id, commit, files)
        page, next_url = _asked(source, url)
        if not isinstance(page, list):
            raise refusal(source, "the hub's list of its files can't be read")
        for one in _files_of(source, page):
            files[one.name] = one
        if next_url is not None and retries.origin(next_url) != retries.origin(url):
            raise refusal(source, "the hub's list goes on at another host")
        url = next_url
        if len(files) > _MAX_FILES:
            break
    raise refusal(source, "the hub's list of its files has no end")


def check_file(source: HubSource, commit: str, file: HubFile) -> None:
    """Ask for a large file's own size and hash, before it is fetched.

    Raises:
        WeightsError: If access is refused, or they aren't those of the list.
    """
    url = file_url(source.repo_id, commit, file.name)
    timeout_s = retries.PATIENCE.timeout_s
    try:
        metadata = retries.persist(file.name, lambda: huggingface_hub.get_hf_file_metadata(url, timeout=timeout_s))
    except retries.GivenUpError as error:
        raise refusal(source, f"{file.name}: {error}") from error
    differs = metadata.size not in (None, file.n_bytes) or metadata.etag not in (None, file.digest)
    if differs or metadata.commit_hash not in (None, commit):
        raise refusal(source, f"the hub's list and its headers differ about {file.name}")


def refusal(source: HubSource, reason: str) -> WeightsError:
    """The error of a repository that can't be fetched."""
    what = f"{source} is neither a folder here nor in the hub's cache and could not be fetched"
    return WeightsError(f"{what} ({reason}). {remedy(source)}")


def remedy(source: HubSource) -> str:
    """What to do where a repository can't be fetched."""
    return f"Download {source.url} elsewhere and name its folder instead, or use --preset demo, which works offline."


def _asked(source: HubSource, url: str) -> tuple[Any, str | None]:
    """A JSON answer of the hub, and the address of its next page."""
    try:
        return retries.persist(str(source), lambda: _asked_once(source, url))
    except retries.GivenUpError as error:
        raise refusal(source, str(error)) from error


def _asked_once(source: HubSource, url: str) -> tuple[Any, str | None]:
    request = retries.request_for(url, build_hf_headers(library_name="grounded-seg"))
    with retries.opener().open(request, timeout=retries.PATIENCE.timeout_s) as response:
        text = response.read(_MAX_ANSWER_BYTES + 1)
        following = _NEXT_PAGE.search(response.headers.get("Link", ""))
    if len(text) > _MAX_ANSWER_BYTES:
        raise refusal(source, f"the hub's answer is longer than {_MAX_ANSWER_BYTES >> 20} MiB")
    try:
        return json_of(text), following[1] if following else None
    except ValueError as error:
        raise refusal(source, "the hub's answer isn't JSON") from error


def _files_of(source: HubSource, page: Any) -> Iterator[HubFile]:
    """The files of one page of a list, without those in folders."""
    try:
        for entry in page:
            name = entry["path"]
            if leaves_folder(name):
                raise refusal(source, f"its list has a file that leaves its folder: {name!r}")
            if entry["type"] != "file" or "/" in name or ":" in name or not name.isprintable():
                continue
            large = entry.get("lfs")
            digest, n_bytes = (large["oid"], large["size"]) if large else (entry["oid"], entry["size"])
            is_right_kind = _DIGESTS["lfs" if large else "git"].fullmatch(digest) is not None
            if not is_right_kind or type(n_bytes) is not int or n_bytes < 0:
                raise refusal(source, f"its list gives no hash or size of {name!r}")
            yield HubFile(name, n_bytes, digest, is_large=bool(large))
    except (LookupError, TypeError, AttributeError, ValueError) as error:
        raise refusal(source, "the hub's list of its files can't be read") from error


def leaves_folder(name: str) -> bool:
    r"""Whether a file's name could lead out of its folder, on any system.

    >>> [leaves_folder(name) for name in ("a/b.json", "a..b", "../a", "/a", "a\\b", "a/./b", "")]
    [False, False, True, True, True, True, True]
    """
    return "\\" in name or any(part in ("", ".", "..") for part in name.split("/"))
