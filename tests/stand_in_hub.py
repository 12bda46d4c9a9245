"""The Hugging Face hub and Meta's file server on this machine, as far as weights are fetched from them; with faults.

Large files are redirected to another host, as the hub does it. What goes out is counted.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import huggingface_hub.constants
import pytest

from grounded_seg.weights import retries

LARGE_ENDINGS = (".safetensors", ".bin", ".pth")
PAGE = 4
"""Files of one page of a list."""
TOKEN = "hf_secret"


@dataclass
class Fault:
    """What goes wrong with the next requests for a path."""

    path: str
    """A part of it."""
    times: int = 1
    code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    cut_at: float | None = None
    """Share of the content after which the connection ends."""
    chunk: int | None = None
    """Bytes that are sent at once, with pauses of `pause_s`."""
    pause_s: float = 0.0
    change: Callable[[bytes], bytes] | None = None
    """Of the content."""
    method: str = "GET"


@dataclass
class Seen:
    """A request, and the bytes of content that were sent for it."""

    method: str
    host: str
    """hub or files."""
    path: str
    headers: Mapping[str, str]
    n_sent: int = 0


@dataclass
class StandInHub:
    """What the servers have, and what they were asked."""

    hub_url: str = ""
    files_url: str = ""
    repos: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    """Files by repository and commit."""
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    published: dict[str, bytes] = field(default_factory=dict)
    """Files of Meta's server, by name."""
    needs_token: set[str] = field(default_factory=set)
    faults: list[Fault] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    has_etags: bool = True

    def add(self, repo_id: str, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Commit files to a branch; gives the commit."""
        content = "".join(f"{name} {hashlib.sha1(data).hexdigest()}\n" for name, data in sorted(files.items()))  # noqa: S324
        commit = hashlib.sha1(f"{repo_id}\n{content}".encode()).hexdigest()  # noqa: S324
        self.repos.setdefault(repo_id, {})[commit] = dict(files)
        self.branches[repo_id, branch] = commit
        return commit

    def fail(self, path: str, **how: Any) -> None:
        """Let the next requests whose path has this in it go wrong."""
        self.faults.append(Fault(path, **how))

    def n_sent(self, path: str = "") -> int:
        """Bytes of content sent for paths that have this in them."""
        return sum(one.n_sent for one in self.seen if path in one.path)

    def paths(self, method: str = "GET") -> list[str]:
        return [one.path for one in self.seen if one.method == method]

    def files_of(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """The commit and its files that a revision stands for."""
        commit = self.branches.get((repo_id, revision), revision)
        files = self.repos.get(repo_id, {}).get(commit)
        return None if files is None else (commit, files)

    def fault_of(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.path in path and fault.method == method and fault.times > 0:
                fault.times -= 1
                return fault
        return None


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324


def entry(name: str, data: bytes) -> dict[str, Any]:
    """A file in the list of a repository."""
    listed: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
    if name.endswith(LARGE_ENDINGS):
        listed |= {"oid": "0" * 40, "lfs": {"oid": hashlib.sha256(data).hexdigest(), "size": len(data)}}
    return listed


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stand_in: StandInHub
    host: str

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        # Noted down before anything is sent: a test may look as soon as it has all.
        self.seen = Seen(self.command, self.host, path, {name.lower(): value for name, value in self.headers.items()})
        self.stand_in.seen.append(self.seen)
        fault = self.stand_in.fault_of(self.command, path)
        try:
            if fault is not None and fault.code is not None:
                self._say(fault.code, b"", fault.headers)
            elif self.host == "files":
                self._file(path, fault)
            elif path.startswith("/api/models/"):
                self._api(path.removeprefix("/api/models/"), fault)
            else:
                self._resolve(path, fault)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _say(self, code: int, content: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        if fault is not None and fault.change is not None:
            content = fault.change(content)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content) if fault is None or fault.cut_at is None else int(len(content) * fault.cut_at)
        size = end if fault is None or fault.chunk is None else fault.chunk
        for start in range(0, end, size or 1):
            self.seen.n_sent = min(start + size, end)
            self.wfile.write(content[start : min(start + size, end)])
            self.wfile.flush()
            if fault is not None and fault.pause_s:
                time.sleep(fault.pause_s)
        if end < len(content):
            self.close_connection = True

    def _is_allowed(self, repo_id: str) -> bool:
        if repo_id not in self.stand_in.needs_token or self.headers.get("Authorization") == f"Bearer {TOKEN}":
            return True
        self._say(401, b"", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted"})
        return False

    def _api(self, path: str, fault: Fault | None) -> None:
        owner, name, kind, revision, *_ = [*path.split("/", 3), "", "", ""]
        repo_id = f"{owner}/{name}"
        if not self._is_allowed(repo_id):
            return
        found = self.stand_in.files_of(repo_id, revision)
        if found is None:
            code = "RevisionNotFound" if repo_id in self.stand_in.repos else "RepoNotFound"
            self._say(404, b'{"error": "not found"}', {"X-Error-Code": code})
            return
        commit, files = found
        if kind == "revision":
            self._say(200, json.dumps({"id": repo_id, "sha": commit}).encode(), {}, fault)
            return
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        entries = [{"type": "directory", "path": "folder", "oid": "0" * 40, "size": 0}]
        entries += [entry(file, data) for file, data in files.items()]
        headers = {}
        if start + PAGE < len(entries):
            at = f"{self.stand_in.hub_url}/api/models/{repo_id}/tree/{revision}"
            headers["Link"] = f'<{at}?recursive=true&cursor={start + PAGE}>; rel="next"'
        self._say(200, json.dumps(entries[start : start + PAGE]).encode(), headers, fault)

    def _resolve(self, path: str, fault: Fault | None) -> None:
        repo_id, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        if not self._is_allowed(repo_id):
            return
        found = self.stand_in.files_of(repo_id, revision)
        if found is None or name not in found[1]:
            self._say(404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        commit, data = found[0], found[1][name]
        headers = {"X-Repo-Commit": commit}
        if name.endswith(LARGE_ENDINGS):
            sha256 = hashlib.sha256(data).hexdigest()
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            self._say(302, b"", headers | {"Location": f"{self.stand_in.files_url}/blobs/{sha256}/{name}"}, fault)
        else:
            self._say(200, data, headers | {"ETag": f'"{git_hash(data)}"'}, fault)

    def _file(self, path: str, fault: Fault | None) -> None:
        name = path.rpartition("/")[2]
        blobs = {hashlib.sha256(data).hexdigest(): data for data in self._all_files()}
        data = blobs.get(path.split("/")[2]) if path.startswith("/blobs/") else self.stand_in.published.get(name)
        if data is None:
            self._say(404, b"", {})
            return
        etag = f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324
        headers = {"ETag": etag, "Accept-Ranges": "bytes"} if self.stand_in.has_etags else {}
        wanted = self.headers.get("Range", "")
        if wanted and self.stand_in.has_etags and self.headers.get("If-Range") in (None, etag):
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= len(data):
                self._say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
                return
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self._say(206, data[start:], headers, fault)
            return
        self._say(200, data, headers, fault)

    def _all_files(self) -> Iterator[bytes]:
        for commits in self.stand_in.repos.values():
            for files in commits.values():
                yield from files.values()

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[StandInHub]:
    """Both servers, on two ports of this machine and under two of its names."""
    stand_in = StandInHub()
    servers = []
    for host, name in (("hub", "127.0.0.1"), ("files", "localhost")):
        handler = type("Handler", (_Handler,), {"stand_in": stand_in, "host": host})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        servers.append((server, thread))
        setattr(stand_in, f"{host}_url", f"http://{name}:{server.server_port}")
    try:
        yield stand_in
    finally:
        for server, thread in servers:
            server.shutdown()
            server.server_close()
            thread.join()


@pytest.fixture
def caches(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of this test's own: `own` in it is this package's cache, `hub` the hub's."""
    folder = tmp_path_factory.mktemp("caches")
    monkeypatch.setenv("GROUNDED_SEG_CACHE", str(folder / "own"))
    for name in ("GROUNDED_SEG_MIRROR", "HF_TOKEN", "HF_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder / "hub"))
    # A proxy of the environment isn't asked about this machine.
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    return folder


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between tries, which take no time here."""
    slept: list[float] = []
    monkeypatch.setattr(retries, "PATIENCE", retries.Patience(sleep=slept.append))
    return slept


@pytest.fixture
def hub(caches: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[StandInHub]:
    """A hub on this machine, and Meta's files beside it."""
    with serving() as stand_in:
        monkeypatch.setenv("HF_ENDPOINT", stand_in.hub_url)
        monkeypatch.setenv("GROUNDED_SEG_MIRROR", stand_in.files_url)
        yield stand_in
