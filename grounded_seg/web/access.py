"""Who may ask a server of this machine: names it answers to, its token, and where a page may come from."""

import base64
import hashlib
import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from grounded_seg.web.launch import is_this_machine

MAX_BODY_BYTES = 64 << 20
"""Of a request, by default: an image of 48 MB as base64."""
_READING = ("GET", "HEAD", "OPTIONS")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[^:\[\]@/\s]+)(:[0-9]{1,5})?")


@dataclass(frozen=True)
class Access:
    """What a server asks of its callers."""

    host: str = "127.0.0.1"
    """The address that it listens on."""
    token: str | None = field(default=None, repr=False)
    """What every caller has to give; None for none, which is for this machine only."""
    open_paths: frozenset[str] = frozenset()
    """Paths that need no token, such as "/health"; a wrong token is refused there too."""
    max_body_bytes: int = MAX_BODY_BYTES
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Signs the page's cookie, so that the token itself isn't kept in the browser."""

    @property
    def cookie_name(self) -> str:
        """Name of the page's cookie; browsers send a cookie to all ports of a machine, so each server has its own."""
        return f"grounded_seg_{hashlib.sha256(self.secret).hexdigest()[:12]}"

    @property
    def cookie_value(self) -> str:
        """What the page's cookie has to hold."""
        return hmac.new(self.secret, (self.token or "").encode(), "sha256").hexdigest()


def host_of(header: str) -> str | None:
    """Give the name in a Host header, in lower case and without its port; None if it is none.

    >>> host_of("LocalHost:8765"), host_of("[::1]:80"), host_of("a b")
    ('localhost', '::1', None)
    """
    found = _HOST.fullmatch(header.strip())
    return None if found is None else found[1].strip("[]").rstrip(".").lower()


def tokens_given(headers: Headers) -> Iterator[str]:
    """Give the tokens of a request: `Authorization: Bearer` or `Token`, the password of `Basic`, and header `Token`."""
    if (own := headers.get("token")) is not None:
        yield own
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() in ("bearer", "token"):
        yield value.strip()
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except ValueError:
            yield ""


def is_right(token: str, access: Access) -> bool:
    """Whether a token is the server's, in a time that tells nothing about it."""
    return access.token is not None and hmac.compare_digest(token.encode(), access.token.encode())


def token_state(headers: Headers, cookies: dict[str, str], access: Access) -> bool | None:
    """Say whether a request has the token: True if so or if none is needed, False for a wrong one, None without one."""
    if access.token is None:
        return True
    cookie, given = cookies.get(access.cookie_name), list(tokens_given(headers))
    if any(is_right(one, access) for one in given):
        return True
    if cookie is not None and hmac.compare_digest(cookie.encode(), access.cookie_value.encode()):
        return True
    # A cookie of an earlier start is no attempt.
    return False if given else None


def knows_host(host: str, access: Access, *, has_token: bool) -> bool:
    """Whether a caller may use this name for the server.

    A page elsewhere can have its own name point to this machine, and ask through the browser of somebody here (DNS
    rebinding). It can use neither an address without a name nor the name of this machine, and it doesn't have the
    token.
    """
    if is_this_machine(host):
        return True
    if access.token is None:
        return False
    return has_token or host == access.host.lower() or host == socket.gethostname().lower() or _is_address(host)


def is_from_elsewhere(method: str, headers: Headers) -> bool:
    """Whether a browser says that the page of another server wants to write something here."""
    if method in _READING:
        return False
    origin = headers.get("origin")
    if origin is not None:
        return urlsplit(origin).netloc.lower() != headers.get("host", "").lower() or origin == "null"
    return headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
