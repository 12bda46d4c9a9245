"""A server from its socket to its end; nothing here needs the extra `serve` before a server is run."""

import errno
import importlib.util
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from grounded_seg.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_LOG = logging.getLogger(__name__)
_PACKAGES = ("starlette", "uvicorn", "python_multipart")
_N_CONNECTIONS = 512
"""Above these, a connection is refused."""
_GRACE_S = 100
"""For requests in hand when the server is told to end: as long as Label Studio waits for a prediction."""


def require_web(command: str) -> None:
    """Refuse a command whose packages aren't installed.

    Raises:
        UsageError: With the command that installs them.
    """
    if any(importlib.util.find_spec(one) is None for one in _PACKAGES):
        raise UsageError(f"{command} needs a web server; install it with `pip install 'grounded-seg[serve]'`")


def is_this_machine(host: str) -> bool:
    """Whether a name or address is of this machine and can't be reached from another one.

    >>> [is_this_machine(one) for one in ("localhost", "127.0.0.1", "::1", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Refuse to listen for other machines without a token, and a token that can't be sent.

    Raises:
        UsageError: If either is so.
    """
    if token is not None and not (token.isascii() and token.isprintable() and token and " " not in token):
        raise UsageError("--token is empty, or has a blank or a letter beyond ASCII; give one such as 5kQ0vXz2")
    if token is None and not is_this_machine(host):
        raise UsageError(f"--host {host} lets other machines in, which needs a token; add --token T")


def bound_socket(host: str, port: int) -> socket.socket:
    """Take a port, without listening yet; port 0 takes a free one.

    Raises:
        UsageError: If it is taken, or isn't ours to take, or the host isn't an address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError) as error:
        raise UsageError(f"--host {host} is no address ({error}); give one such as 127.0.0.1") from error
    taken = socket.socket(family, kind, protocol)
    if os.name == "posix":
        # A port is free again right after a server's end.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind(address)
    except OSError as error:
        taken.close()
        raise _port_error(host, port, error) from error
    return taken


def _port_error(host: str, port: int, error: OSError) -> UsageError:
    if error.errno == errno.EADDRINUSE:
        return UsageError(
            f"port {port} of {host} is taken by another program; give another --port, or 0 for a free one"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return UsageError(f"--host {host} is no address of this machine; give 127.0.0.1, or 0.0.0.0 for all it has")
    return UsageError(f"port {port} of {host} can't be used ({error.strerror}); give another --port")


def url_of(taken: socket.socket, host: str, token: str | None = None) -> str:
    """Give the address of a server's page, with the token where there is one."""
    name = host.strip("[]")
    if name in ("0.0.0.0", "::", ""):  # noqa: S104  (compared, not listened on)
        name = socket.gethostname()
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{taken.getsockname()[1]}/" + (f"?token={quote(token, safe='')}" if token else "")


def run_server(app: "ASGIApp", taken: socket.socket, *, started: Callable[[], None] = lambda: None) -> None:
    """Serve an application until Ctrl-C or SIGTERM; what is in hand then is finished first.

    Args:
        app: The application; its lifespan begins before the first request and ends after the last.
        taken: From `bound_socket`; closed in the end.
        started: Called when requests are answered.

    Raises:
        UsageError: If another program has begun to listen on the port.
    """
    # Optional, and slow to load.
    import uvicorn

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                started()

    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="on",
        ws="none",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=_N_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    host, port = taken.getsockname()[:2]
    with taken:
        try:
            taken.listen()
        except OSError as error:
            raise _port_error(host, port, error) from error
        with _end_as_interrupt(), suppress(KeyboardInterrupt):
            Server(config).run(sockets=[taken])
        _LOG.debug("the server has ended")


@contextmanager
def _end_as_interrupt() -> Iterator[None]:
    """Have SIGTERM do what Ctrl-C does: after a clean end, uvicorn raises once more what ended it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
