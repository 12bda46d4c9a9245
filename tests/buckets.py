"""Storage elsewhere for tests: a local S3 server, and a web server that answers as it is told."""

import io
import itertools
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import PIL.Image
import pytest
from fakes import painted

_NUMBERS = itertools.count()
_ACCOUNT = "123456789012"


def picture(width: int = 40, **boxes_xyxy: tuple[int, int, int, int]) -> bytes:
    """A PNG of `fakes.painted`, 30 px high."""
    content = io.BytesIO()
    PIL.Image.fromarray(painted(width, 30, **boxes_xyxy)).save(content, "PNG")
    return content.getvalue()


@dataclass(frozen=True)
class Bucket:
    """A bucket of the local S3 server; written to without a request."""

    name: str
    backend: Any

    @property
    def url(self) -> str:
        return f"s3://{self.name}"

    def put(self, key: str, content: bytes = b"") -> str:
        """Store an object, and give its address."""
        self.backend.put_object(self.name, key, content)
        return f"{self.url}/{key}"

    def remove(self, key: str) -> None:
        self.backend.delete_object(self.name, key)

    def content(self) -> dict[str, bytes]:
        return {key: one.value for key, one in self.backend.buckets[self.name].keys.items()}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """Starts the server once, and has the environment name it and some credentials."""
    pytest.importorskip("moto", reason="the local S3 server is moto")
    pytest.importorskip("s3fs", reason="s3:// needs s3fs, of the extra cloud")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        s3_environment(patch, f"http://{host}:{port}")
        yield f"http://{host}:{port}"
    server.stop()


def s3_environment(patch: pytest.MonkeyPatch, url: str) -> None:
    """Have boto ask a server with some credentials, and look for none elsewhere."""
    values = {"AWS_ACCESS_KEY_ID": "one", "AWS_SECRET_ACCESS_KEY": "two", "AWS_DEFAULT_REGION": "us-east-1"}
    nowhere = dict.fromkeys(("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"), "/dev/null")
    for name, value in {**values, **nowhere, "AWS_ENDPOINT_URL": url, "AWS_EC2_METADATA_DISABLED": "true"}.items():
        patch.setenv(name, value)


@pytest.fixture
def bucket(s3_server: str) -> Bucket:
    """An empty bucket of its own."""
    from moto.s3.models import s3_backends

    backend = s3_backends[_ACCOUNT]["aws"]
    name = f"bucket-{next(_NUMBERS)}"
    backend.create_bucket(name, "us-east-1")
    return Bucket(name, backend)


@pytest.fixture
def new_connections() -> Iterator[None]:
    """Forget connections before and after a test that asks another server."""
    from s3fs import S3FileSystem

    from grounded_seg.images.remote import storage

    def forget() -> None:
        storage._storage.cache_clear()
        S3FileSystem.clear_instance_cache()

    forget()
    yield
    forget()


@dataclass
class Web:
    """A web server of this process."""

    url: str = ""
    pages: dict[str, bytes] = field(default_factory=dict)
    """Content by path."""
    statuses: list[int] = field(default_factory=list)
    """Answers of the next requests, before pages are served."""
    error_body: bytes = b""
    knows_ranges: bool = True
    asked: list[str] = field(default_factory=list)
    """Paths with their queries."""


class _Handler(BaseHTTPRequestHandler):
    web: Web

    def do_GET(self) -> None:
        self.web.asked.append(self.path)
        page = self.web.pages.get(self.path.partition("?")[0])
        status = self.web.statuses.pop(0) if self.web.statuses else 404 if page is None else 200
        body = page if status == 200 and page is not None else self.web.error_body
        wanted = self.headers.get("Range")
        if status == 200 and wanted and self.web.knows_ranges:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, body = 206, body[int(first) : int(last or len(body)) + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if self.web.knows_ranges:
            self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_PUT = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Web]:
    """Serves what a test puts into its pages."""
    told = Web()
    handler = type("Handler", (_Handler,), {"web": told})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told
        server.shutdown()
