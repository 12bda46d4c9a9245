"""Images from hosts that the server's owner has named, and from nowhere else."""

import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException as BrokenAnswer
from typing import Any
from urllib.parse import urljoin, urlsplit

from starlette.exceptions import HTTPException

from grounded_seg.errors import UsageError

_PORTS = {"http": 80, "https": 443}
_MOST_REDIRECTS = 3
_TIMEOUT_S = 10.0
"""Of a connection, and of each wait for bytes."""
_LONGEST_S = 30.0
"""Of a whole image."""
_CHUNK = 1 << 20

Host = tuple[str, int | None]
"""Name in lower case, and the only port; None for all of them."""


def allowed_host(text: str) -> Host:
    """Read NAME, NAME:PORT, or the address of a server's root.

    Raises:
        UsageError: If it is none of these.

    >>> allowed_host("Labels.lan"), allowed_host("labels.lan:8080"), allowed_host("https://labels.lan/")
    (('labels.lan', None), ('labels.lan', 8080), ('labels.lan', 443))
    """
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        port = parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        parts, port = urlsplit(""), None
    is_root = parts.path in ("", "/") and not parts.query and "@" not in parts.netloc
    if not parts.hostname or not is_root or parts.scheme not in ("", *_PORTS) or "*" in text:
        raise UsageError(f"--allow-host {text} is no host; give a name, or a name and a port, such as labels.lan:8080")
    return parts.hostname.rstrip("."), port


def is_allowed(url: str, allowed: Sequence[Host]) -> bool:
    """Whether an address is one of http or https on an allowed host."""
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        return False
    return parts.scheme in _PORTS and any(name == one and of_it in (None, port) for one, of_it in allowed)


def host_and_port(url: str) -> tuple[str | None, int | None]:
    """Give what two addresses of one server have in common."""
    parts = urlsplit(url)
    return parts.hostname, parts.port or _PORTS.get(parts.scheme)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Leaves redirects to the caller, who looks at each."""

    def redirect_request(self, *_: Any) -> None:
        """Go nowhere."""


def fetched_from(url: str, allowed: Sequence[Host], max_bytes: int, headers: Mapping[str, str] | None = None) -> bytes:
    """Fetch an image; redirects are followed as long as they lead to allowed hosts.

    Args:
        url: Its address.
        allowed: From `allowed_host`.
        max_bytes: The most that it may have.
        headers: Sent to the host of `url` alone, such as its token.

    Raises:
        HTTPException: 403 if a host isn't allowed, 413 if the image is too large, 502 if it can't be had.
    """
    opener = urllib.request.build_opener(_NoRedirect)
    end, where = time.monotonic() + _LONGEST_S, url
    for _ in range(_MOST_REDIRECTS + 1):
        if not is_allowed(where, allowed):
            name = urlsplit(where).netloc.rpartition("@")[2] or "an address without a host"
            raise HTTPException(403, f"images of {name} aren't fetched; start the server with --allow-host {name}")
        own = dict(headers or {}) if host_and_port(where) == host_and_port(url) else {}
        # Its scheme was looked at, just before.
        request = urllib.request.Request(where, headers=own)  # noqa: S310
        try:
            with opener.open(request, timeout=_TIMEOUT_S) as answer:
                return _read(answer, max_bytes, end, where)
        except urllib.error.HTTPError as error:
            with error:
                next_one = error.headers.get("location") if error.code in (301, 302, 303, 307, 308) else None
            if next_one is None:
                raise HTTPException(502, f"{_shown(where)} answered with status {error.code}") from error
            where = urljoin(where, next_one)
        except (OSError, BrokenAnswer, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise HTTPException(502, f"{_shown(where)} can't be fetched ({reason})") from error
    raise HTTPException(502, f"{_shown(url)} was redirected more than {_MOST_REDIRECTS} times")


def _read(answer: Any, max_bytes: int, end: float, where: str) -> bytes:
    parts, n_bytes = [], 0
    # A part as it comes, so that a host that sends a byte a second doesn't keep a thread.
    while part := answer.read1(_CHUNK):
        n_bytes += len(part)
        if n_bytes > max_bytes:
            raise HTTPException(413, f"{_shown(where)} has more than {max_bytes} bytes; the limit is --max-mb")
        if time.monotonic() > end:
            raise HTTPException(502, f"{_shown(where)} wasn't fetched within {_LONGEST_S:.0f} s")
        parts.append(part)
    return b"".join(parts)


def _shown(url: str) -> str:
    """An address without what it may carry of signatures and passwords."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
