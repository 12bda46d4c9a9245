"""A web server of this process that answers as it is told, and remembers what it was asked with which token."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class Elsewhere:
    """What it answers, by path."""

    port: int = 0
    pages: dict[str, bytes] = field(default_factory=dict)
    redirects: dict[str, str] = field(default_factory=dict)
    slow: set[str] = field(default_factory=set)
    """Paths whose content comes a byte at a time."""
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    """Path with query, and the header Authorization."""

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.host}{path}"


class _Handler(BaseHTTPRequestHandler):
    elsewhere: Elsewhere

    def do_GET(self) -> None:
        there, path = self.elsewhere, self.path.partition("?")[0]
        there.asked.append((self.path, self.headers.get("Authorization")))
        if path in there.redirects:
            self.send_response(302)
            self.send_header("Location", there.redirects[path])
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        body = there.pages.get(path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if path in there.slow:
            for byte in body or b"":
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.02)
        else:
            self.wfile.write(body or b"")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def elsewhere() -> Iterator[Elsewhere]:
    there = Elsewhere()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"elsewhere": there}))
    server.daemon_threads = True
    there.port = server.server_address[1]
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    yield there
    server.shutdown()
    thread.join()
    server.server_close()
