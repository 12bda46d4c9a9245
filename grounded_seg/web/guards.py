"""ASGI middleware before every application of ours: access, the size of a request, and the headers of its answer."""

import asyncio
import time
from collections.abc import Mapping
from types import MappingProxyType
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grounded_seg.web.access import Access, host_of, is_from_elsewhere, is_right, knows_host, token_state
from grounded_seg.web.error_answers import fault

_POLICY = {
    "default-src": "'none'",
    "script-src": "'self'",
    "style-src": "'self'",
    "img-src": "'self' blob: data:",
    "connect-src": "'self'",
    "form-action": "'self'",
    "base-uri": "'none'",
    "frame-ancestors": "'none'",
}
"""Of every page: its own files, and pictures that it makes itself; nothing from outside, and no script in its text."""
SECURITY_HEADERS: Mapping[str, str] = MappingProxyType(
    {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in _POLICY.items()),
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-store",
    }
)
"""Of every answer that has no such header of its own."""
_SILENCE_S = 30.0
"""A caller that sends nothing for so long in the middle of a request is given up."""
_LINGER_S, _LINGER_BYTES = 2.0, 32 << 20
"""A caller whose request isn't read to its end is listened to so long, that it may see the answer."""


class Guards:
    """Lets through what `Access` allows; everything else is answered here."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        """Stand before an application."""
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            exchange = _Exchange(scope, receive, send, self._access.max_body_bytes)
            answer = self._answer(Request(scope)) or exchange.refusal()
            await (answer or self._app)(scope, exchange.receive, exchange.send)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _answer(self, request: Request) -> Response | None:
        """Give the answer to what isn't allowed, and to the page's address with the token; None for all else."""
        access, path = self._access, request.url.path
        linked = request.query_params.get("token") if access.token and request.method == "GET" else None
        state = token_state(request.headers, request.cookies, access)
        if linked is not None:
            state = is_right(linked, access)
        host = host_of(request.headers.get("host", ""))
        if host is None or not knows_host(host, access, has_token=bool(state)):
            name = "without a name" if host is None else f"named {host}"
            return fault(421, f"this server isn't one {name}; use the address that it printed at its start")
        if state is False or (state is None and path not in access.open_paths):
            what = "the token is wrong" if state is False else "a token is needed"
            how = "give it as `Authorization: Bearer TOKEN`, as header `Token`, or as a password with any user name"
            return fault(401, f"{what}; {how}", {"WWW-Authenticate": 'Basic realm="grounded-seg", charset="UTF-8"'})
        if is_from_elsewhere(request.method, request.headers):
            return fault(403, "a page of another server asked for this; use this server's own page")
        return self._with_cookie(request) if linked is not None else None

    def _with_cookie(self, request: Request) -> Response:
        """Send the browser to the address without the token, which it keeps as a cookie from now on."""
        rest = [(name, value) for name, value in parse_qsl(request.url.query) if name != "token"]
        # A path of two slashes would be the address of another server.
        where = "/" + request.url.path.lstrip("/") + (f"?{urlencode(rest)}" if rest else "")
        answer = RedirectResponse(where, 303)
        access = self._access
        answer.set_cookie(access.cookie_name, access.cookie_value, httponly=True, samesite="strict", path="/")
        return answer


class _Exchange:
    """One request and its answer: counts what is read, and adds headers to what is sent."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int) -> None:
        headers = Headers(scope=scope)
        self._receive = receive
        self._send = send
        self._max_bytes = max_bytes
        self._announced = headers.get("content-length", "0")
        self._n_read = 0
        self._is_read = self._announced == "0" and "transfer-encoding" not in headers

    def refusal(self) -> Response | None:
        """Give the answer to a request that says itself that it is too large; None for others."""
        if not self._announced.isdecimal():
            return fault(400, "Content-Length is no number")
        return self._too_large() if int(self._announced) > self._max_bytes else None

    def _too_large(self) -> Response:
        return fault(413, self._what_is_too_large())

    def _what_is_too_large(self) -> str:
        return f"the request is larger than {self._max_bytes} bytes; send a smaller image"

    async def receive(self) -> Message:
        """Give the next part of the request."""
        if self._is_read:
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), _SILENCE_S)
        except TimeoutError as error:
            raise HTTPException(408, f"nothing came for {_SILENCE_S:.0f} s in the middle of the request") from error
        self._count(message)
        if self._n_read > self._max_bytes:
            raise HTTPException(413, self._what_is_too_large())
        return message

    def _count(self, message: Message) -> None:
        self._n_read += len(message.get("body", b""))
        self._is_read = not message.get("more_body", False)

    async def send(self, message: Message) -> None:
        """Send a part of the answer."""
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if not self._is_read:
                headers["Connection"] = "close"
        if self._is_read or message["type"] != "http.response.body" or message.get("more_body", False):
            await self._send(message)
            return
        # Closed at once, the connection would be reset, and the answer lost on its way.
        await self._send({**message, "more_body": True})
        await self._linger()
        await self._send({"type": "http.response.body", "body": b""})

    async def _linger(self) -> None:
        """Read on for a moment, and keep nothing of it."""
        end, most = time.monotonic() + _LINGER_S, self._n_read + _LINGER_BYTES
        while not self._is_read and self._n_read < most and (left := end - time.monotonic()) > 0:
            try:
                self._count(await asyncio.wait_for(self._receive(), left))
            except TimeoutError:
                return
