"""Requests that are tried again: which faults pass, how long is waited, and where credentials may go."""

import errno
import http.client
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

_LOG = logging.getLogger(__name__)
_Answer = TypeVar("_Answer")

_TEMPORARY = {408, 425, 429, 500, 502, 503, 504}
"""HTTP codes after which it is tried again."""
_LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS}
_LONGEST_PAUSE_S = 300.0
"""A server that asks for more is given up."""
_MOST_TRIES = 1000
"""Of one request, even if each brings a few bytes."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    pauses_s: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 16.0)
    """Before each further try; they start again whenever bytes have arrived."""
    timeout_s: float = 30.0
    """Longest wait for the next bytes."""
    sleep: Callable[[float], None] = time.sleep


PATIENCE = Patience()
"""Where no other is given."""


class GivenUpError(Exception):
    """No answer came, and the message says why; the caller adds what and where."""


@dataclass(frozen=True)
class _Fault:
    reason: str
    passes: bool
    """Whether it may be gone at the next try."""
    pause_s: float = 0.0
    """What the server asks to wait."""


def persist(
    what: str,
    attempt: Callable[[], _Answer],
    *,
    n_done: Callable[[], int] = lambda: 0,
    patience: Patience | None = None,
) -> _Answer:
    """What `attempt` returns, called again with growing pauses while its faults may pass.

    Args:
        what: Name of what is asked for, for the log.
        attempt: Asks once; raises what urllib, http.client or the hub's client raise.
        n_done: Bytes that have arrived; while they grow, the pauses start again.
        patience: How long the server is waited for.

    Raises:
        GivenUpError: If a fault doesn't pass.
    """
    patience = patience or PATIENCE
    pauses = iter(patience.pauses_s)
    for _ in range(_MOST_TRIES):
        n_before = n_done()
        try:
            return attempt()
        # HTTPError is the base of all that the hub's client raises.
        except (OSError, http.client.HTTPException, HTTPError) as error:
            fault, cause = _fault_of(error), error
        if n_done() > n_before:
            pauses = iter(patience.pauses_s)
        pause_s = next(pauses, None)
        if pause_s is None or not fault.passes:
            raise GivenUpError(fault.reason) from cause
        pause_s = max(pause_s, fault.pause_s)
        # Without a terminal too the first one is told, or minutes would pass in silence.
        extra = None if n_done() else {"once": True}
        _LOG.info("%s: %s; trying again in %.0f s", what, fault.reason, pause_s, extra=extra)
        patience.sleep(pause_s)
    raise GivenUpError(f"it broke off {_MOST_TRIES} times")


def _fault_of(error: Exception) -> _Fault:
    if isinstance(error, urllib.error.HTTPError):
        # It is a response as well, and holds the connection.
        error.close()
        return _refused(error.code, dict(error.headers or {}), first_line(error))
    reason = getattr(error, "reason", None)
    if isinstance(error, urllib.error.URLError) and isinstance(reason, OSError):
        passes = not isinstance(reason, ssl.SSLCertVerificationError)
        return _Fault(f"no connection ({reason.strerror or first_line(reason)})", passes=passes)
    response = getattr(error, "response", None)
    if response is not None:
        return _refused(response.status_code, response.headers, f"HTTP Error {response.status_code}")
    is_other_server = isinstance(getattr(error, "reason", None), ssl.SSLCertVerificationError)
    return _Fault(first_line(error), passes=not is_of_disk(error) and not is_other_server)


def fault_of_disk(error: BaseException | None) -> OSError | None:
    """What of this machine's disk or folder an error came from; None if a server was at fault."""
    while error is not None and not is_of_disk(error):
        error = error.__cause__
    return error if isinstance(error, OSError) else None


def is_of_disk(error: BaseException | None) -> bool:
    """Whether this machine's disk or folder is at fault, and no server."""
    if isinstance(error, urllib.error.URLError):
        # Its filename is an address.
        return False
    return isinstance(error, OSError) and (error.filename is not None or error.errno in _LOCAL_FAULTS)


def _refused(code: int, headers: Mapping[str, str], said: str) -> _Fault:
    """What an HTTP code means, with the hub's own words for it."""
    if code in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        said += ": it isn't there, or needs an account with access; accept its terms on its page, and set HF_TOKEN"
    pause_s = 0.0
    with suppress(ValueError):
        # A date instead of seconds is left aside.
        pause_s = float(next((value for name, value in headers.items() if name.lower() == "retry-after"), 0))
    if pause_s > _LONGEST_PAUSE_S:
        return _Fault(f"{said}: the server asks to come back in {pause_s / 60:.0f} minutes", passes=False)
    return _Fault(said, passes=code in _TEMPORARY, pause_s=pause_s)


def first_line(error: Exception) -> str:
    """The first line of an error, or its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def request_for(url: str, headers: Mapping[str, str]) -> urllib.request.Request:
    """A request for an address, which `HF_ENDPOINT` or a mirror may be the start of.

    Raises:
        GivenUpError: If that is no address of the web.
    """
    try:
        if urlsplit(url).scheme not in ("http", "https"):
            raise ValueError("it doesn't begin with https://")
        return urllib.request.Request(url, headers=dict(headers))  # noqa: S310  (checked above)
    except ValueError as error:
        raise GivenUpError(f"{url} is no address: {error}") from error


def opener() -> urllib.request.OpenerDirector:
    """What opens addresses: follows redirects, but keeps `Authorization` for the host that it was meant for."""
    return urllib.request.build_opener(_Redirects())


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any) -> urllib.request.Request | None:
        before, target = args[0], args[-1]
        request = super().redirect_request(*args)
        if request is not None and origin(target) != origin(before.full_url):
            request.remove_header("Authorization")
        return request


def origin(url: str) -> tuple[str, str]:
    """Scheme and host of an address."""
    parts = urlsplit(url)
    return parts.scheme, parts.netloc
