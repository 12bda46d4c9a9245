"""A server on a real socket, from its port to its end."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import pytest

from grounded_seg.errors import UsageError
from grounded_seg.web.launch import bound_socket, check_exposure, require_web, url_of

PROGRAM = """
import asyncio, sys
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from grounded_seg.web.access import Access
from grounded_seg.web.error_answers import answer_faults
from grounded_seg.web.guards import Guards
from grounded_seg.web.launch import bound_socket, run_server, url_of

async def slow(request):
    await request.body()
    print("working", flush=True)
    await asyncio.sleep(1)
    return PlainTextResponse("finished")

async def size(request):
    return PlainTextResponse(str(len(await request.body())))

app = Starlette(routes=[Route("/slow", slow), Route("/size", size, methods=["POST"])])
answer_faults(app)
taken = bound_socket("127.0.0.1", 0)
guarded = Guards(app, Access(max_body_bytes=1 << 20))
run_server(guarded, taken, started=lambda: print(url_of(taken, "127.0.0.1"), flush=True))
print("ended", flush=True)
"""


@contextmanager
def running() -> Iterator[tuple["subprocess.Popen[str]", int]]:
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.fullmatch(r"http://127\.0\.0\.1:(\d+)/\n", process.stdout.readline())
            assert found is not None
            yield process, int(found[1])
        finally:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="the signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_lets_the_server_finish_what_is_in_hand(name: str) -> None:
    with running() as (process, port):
        assert process.stdout is not None
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as asked:
            asked.request("GET", "/slow")
            assert process.stdout.readline() == "working\n"
            process.send_signal(signal.Signals[name])
            time.sleep(0.3)
            with pytest.raises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
            assert asked.getresponse().read() == b"finished"
        assert process.stdout.readline() == "ended\n"
        assert process.wait(30) == 0


def answered(port: int, body: Any) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as asked:
        asked.request("POST", "/size", body=body, encode_chunked=not isinstance(body, bytes))
        answer = asked.getresponse()
        return answer.status, answer.read()


def test_a_huge_request_is_refused_before_it_is_read_and_the_server_goes_on() -> None:
    with running() as (_, port):
        with socket.create_connection(("127.0.0.1", port), timeout=30) as asked:
            asked.sendall(b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000000\r\n\r\n")
            answer = asked.recv(65536)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"connection: close" in answer.lower()
            # One that sends on is listened to for a moment only.
            part, n_sent = b"x" * 1_000_000, 0
            with suppress(OSError):
                while n_sent < 1_000_000_000:
                    n_sent += asked.send(part)
            assert n_sent < 500_000_000
        # In parts without a length, the answer comes as soon as there are too many; it isn't lost on its way.
        assert answered(port, (b"x" * 100_000 for _ in range(30)))[0] == 413
        assert answered(port, b"x" * 1000) == (200, b"1000")


def test_a_caller_that_goes_away_is_no_end() -> None:
    with running() as (_, port):
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as gone:
                gone.sendall(b"POST /size HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nabc")
        assert answered(port, b"x") == (200, b"1")


def test_a_taken_port_is_one_line_and_port_0_is_a_free_one() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        assert port > 0
        with pytest.raises(UsageError, match=rf"port {port} of 127\.0\.0\.1 is taken by another program; .*--port"):
            bound_socket("127.0.0.1", port)
    with bound_socket("127.0.0.1", port) as again:
        assert again.getsockname()[1] == port


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid", "a" * 300])
def test_a_host_that_is_none_is_one_line(host: str) -> None:
    with pytest.raises(UsageError, match=r"^--host "):
        bound_socket(host, 0)


def test_other_machines_are_let_in_with_a_token_only() -> None:
    for host in ("127.0.0.1", "localhost", "::1", "[::1]"):
        check_exposure(host, None)
    for host in ("0.0.0.0", "::", "10.0.0.1", "gpu-box"):
        check_exposure(host, "s3cret")
        with pytest.raises(UsageError, match=r"needs a token; add --token"):
            check_exposure(host, None)
    for token in ("", "a b", "ключ", "a\nb"):
        with pytest.raises(UsageError, match=r"^--token is empty, or has a blank"):
            check_exposure("127.0.0.1", token)


def test_the_address_that_is_printed() -> None:
    with bound_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url_of(taken, "127.0.0.1") == f"http://127.0.0.1:{port}/"
        assert url_of(taken, "::1", "a&b") == f"http://[::1]:{port}/?token=a%26b"
        assert url_of(taken, "0.0.0.0") == f"http://{socket.gethostname()}:{port}/"


def test_a_missing_extra_is_one_line_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    require_web("serve")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(UsageError, match=r"^view needs a web server; .*pip install 'grounded-seg\[serve\]'"):
        require_web("view")
