"""Errors as answers: one form for all of them, with a status of 4xx or 5xx."""

import logging
from collections.abc import Mapping

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

_LOG = logging.getLogger(__name__)
_CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    413: "too_large",
    415: "unsupported_media_type",
    421: "wrong_host",
    422: "unreadable_image",
    500: "internal_error",
    503: "busy",
}


def fault(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Make the answer for an error: `{"success": false, "error": {"code", "message"}}`."""
    content = {"success": False, "error": {"code": _CODES.get(status, "error"), "message": message}}
    return JSONResponse(content, status, headers=headers)


def answer_faults(app: Starlette) -> None:
    """Have an application answer all of its errors in this form; one of ours is logged, and isn't its end."""
    app.add_exception_handler(HTTPException, _of_http)
    app.add_exception_handler(ClientDisconnect, _of_nobody)
    app.add_exception_handler(Exception, _of_ours)


async def _of_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    message = error.detail
    if error.status_code in (404, 405) and message in ("Not Found", "Method Not Allowed"):
        message = f"there is no {request.method} {request.url.path} here"
    return fault(error.status_code, message, error.headers)


async def _of_nobody(request: Request, error: Exception) -> Response:  # noqa: ARG001  (what a handler is given)
    return fault(400, "the caller went away in the middle of the request")


async def _of_ours(request: Request, error: Exception) -> Response:
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    _LOG.error("unexpected %s at %s; please report it, with the output of --debug", what, request.url.path)
    return fault(500, "unexpected error of the server; its log says more")
