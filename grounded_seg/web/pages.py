"""Pages of ours: plain HTML, CSS and JavaScript that come with the package."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
"""Named here: the system's own table differs from machine to machine, and a wrong type isn't run by the browser."""


def page_routes(folder: Path, names: Sequence[str], prefix: str = "/") -> list[Route]:
    """Give a route for each file of a folder that is named: `index.html` is the folder itself, `NAME.html` is NAME.

    Args:
        folder: Within the package.
        names: Files in it; nothing else there can be had.
        prefix: Path below which they are, with a slash at its end.
    """
    return [Route(_path_of(name, prefix), partial(_file, folder / name), methods=["GET"]) for name in names]


def _path_of(name: str, prefix: str) -> str:
    return prefix if name == "index.html" else prefix + name.removesuffix(".html")


async def _file(path: Path, request: Request) -> Response:  # noqa: ARG001  (what a route calls)
    # Kept by the browser, a page of the version before would ask this one.
    return Response(path.read_bytes(), media_type=_MEDIA_TYPES[path.suffix], headers={"Cache-Control": "no-cache"})
