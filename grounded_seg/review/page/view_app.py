"""The application behind the page: JSON and pictures for the browser, decisions from it."""

import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from grounded_seg.coco.schema import JournalInstance
from grounded_seg.errors import GroundedSegError, ImageError, InputError, OutputError, UsageError
from grounded_seg.images.draw import PALETTE
from grounded_seg.records import Image
from grounded_seg.review.decisions import ABOUT_INSTANCES, Key, What
from grounded_seg.review.page.picture_cache import PICTURE_PX, THUMBNAIL_PX, Pictures
from grounded_seg.review.page.selection import Filter
from grounded_seg.review.page.static_page import FOLDER, SCRIPTS, STYLES
from grounded_seg.review.page.viewed_run import ViewedRun
from grounded_seg.setting_types import convert_values, refuse
from grounded_seg.text.documents import json_of
from grounded_seg.web.access import Access
from grounded_seg.web.error_answers import answer_faults, fault
from grounded_seg.web.guards import Guards
from grounded_seg.web.pages import page_routes

MAX_BODY_BYTES = 1 << 20
"""Of a decision."""
_MOST_ITEMS = 120
_MOST_LETTERS = 500
"""Of a class or a prompt."""
_STATUS = {UsageError: 400, ImageError: 404, InputError: 409, OutputError: 507}

Ask = Callable[[Image, str, list[JournalInstance]], list[JournalInstance]]
"""Asks the models about an image: with the prompt and what is known already, gives what is new."""


def view_app(run: ViewedRun, pictures: Pictures, access: Access, ask: Ask | None = None) -> Starlette:
    """Make the application for a run.

    Args:
        run: Open as long as the application is used.
        pictures: Of the same run.
        access: Who may ask.
        ask: Where the page asks again; None for never.
    """
    page = _Page(run, pictures, ask, secrets.token_hex(4))
    app = Starlette(
        routes=[
            *page_routes(FOLDER, ("index.html", *STYLES, *SCRIPTS)),
            Route("/api/run", page.run, methods=["GET"]),
            Route("/api/selection", page.selection, methods=["GET"]),
            Route("/api/items", page.items, methods=["GET"]),
            Route("/api/images/{image:int}/thumbnail", page.thumbnail, methods=["GET"]),
            Route("/api/images/{image:int}/picture", page.picture, methods=["GET"]),
            Route("/api/images/{image:int}/decision", page.decide, methods=["POST"]),
            Route("/api/images/{image:int}/question", page.ask, methods=["POST"]),
            Route("/api/threshold", page.threshold, methods=["POST"]),
            Route("/api/undo", page.undo, methods=["POST"]),
        ],
        middleware=[Middleware(Guards, access=access)],
    )
    answer_faults(app)
    app.add_exception_handler(GroundedSegError, _told)
    return app


async def _told(request: Request, error: Exception) -> Response:  # noqa: ARG001  (Starlette's signature)
    status = next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 500)
    # Names can hold what is no text, which the answer's encoding refuses.
    return fault(status, str(error).encode("utf-8", "backslashreplace").decode())


def _json(content: Any) -> Response:
    # In ASCII, as half characters of a name are no UTF-8.
    return Response(json.dumps(content, allow_nan=False), media_type="application/json")


@dataclass(frozen=True)
class _Page:
    """Answers the browser's requests; what blocks runs in threads."""

    viewed: ViewedRun
    pictures: Pictures
    models: Ask | None
    start: str
    """Of this process: a browser that kept another run's pictures doesn't show them."""

    def run(self, request: Request) -> Response:  # noqa: ARG002  (Starlette's signature)
        """How far the run is, and its classes."""
        self.viewed.refresh()
        about = {"palette": [list(one) for one in PALETTE], "can_ask": self.models is not None, "start": self.start}
        return _json(self.viewed.summary() | about)

    def selection(self, request: Request) -> Response:
        """The images that a filter lets through."""
        kinds: dict[str, Any] = {one.name: one.type for one in fields(Filter)}
        given = dict(request.query_params)
        if unknown := given.keys() - kinds.keys():
            raise UsageError(f"there is no filter {', '.join(sorted(unknown))}; there are {', '.join(kinds)}")
        values, problems = convert_values(given, kinds, numbers_as_text=True)
        refuse(problems)
        return _json({"images": self.viewed.selection(Filter(**values))})

    def items(self, request: Request) -> Response:
        """All about some images."""
        texts = request.query_params.get("images", "").split(",")
        if len(texts) > _MOST_ITEMS or not all(text.isascii() and text.isdecimal() for text in texts):
            raise UsageError(f"images is none of 1 to {_MOST_ITEMS} numbers with commas between them")
        return _json({"items": [self.viewed.item(int(text)) for text in texts]})

    def thumbnail(self, request: Request) -> Response:
        """An image for the grid."""
        return self._jpeg(request, THUMBNAIL_PX)

    def picture(self, request: Request) -> Response:
        """An image by itself."""
        return self._jpeg(request, PICTURE_PX)

    def _jpeg(self, request: Request, longest_side_px: int) -> Response:
        name = self.viewed.file_name(request.path_params["image"])
        kept = {"Cache-Control": "private, max-age=3600"}
        return Response(self.pictures.jpeg(name, longest_side_px), media_type="image/jpeg", headers=kept)

    async def decide(self, request: Request) -> Response:
        """Accept, reject, relabel, or take back."""
        content, image = await _content(request), request.path_params["image"]
        values, problems = convert_values({"what": content.get("what")}, {"what": What})
        refuse(problems)
        what, keys = values["what"], content.get("keys")
        if what not in ABOUT_INSTANCES or not isinstance(keys, list) or not all(map(_is_key, keys)):
            raise UsageError("what isn't accept, reject, relabel or clear, or keys is no list of instances")
        name = _text(content, "class") if what is What.RELABEL else None
        return await run_in_threadpool(self._decide, image, what, keys, name)

    def _decide(self, image: int, what: What, keys: list[Key], class_name: str | None) -> Response:
        self.viewed.decide(image, what, keys, class_name)
        return self._changed(image)

    async def ask(self, request: Request) -> Response:
        """Another prompt for an image; what it finds is added."""
        if self.models is None:
            raise UsageError("no models are loaded; start view with --preset or --detector")
        content, image = await _content(request), request.path_params["image"]
        class_name = _text(content, "class") if content.get("class") else None
        return await run_in_threadpool(self._ask, self.models, image, _text(content, "prompt"), class_name)

    def _ask(self, ask: Ask, image: int, prompt: str, class_name: str | None) -> Response:
        pixels = self.pictures.image(self.viewed.file_name(image))
        new = ask(pixels, prompt, self.viewed.instances(image))
        self.viewed.add(image, new, class_name)
        return self._changed(image, n_new=len(new))

    async def threshold(self, request: Request) -> Response:
        """Set a class's threshold, or take it away."""
        content = await _content(request)
        name, score = _text(content, "class"), content.get("score")
        if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
            raise UsageError("score is none of 0 to 1")
        await run_in_threadpool(self.viewed.set_threshold, name, score)
        return self._changed(None)

    async def undo(self, request: Request) -> Response:  # noqa: ARG002  (Starlette's signature)
        """Undo the last decision."""
        return await run_in_threadpool(self._undo)

    def _undo(self) -> Response:
        undone = self.viewed.undo()
        if undone is None:
            return self._changed(None, undone=None)
        event, image = undone
        what = {"what": event.what, "class": event.class_name, "n": len(event.instances), "image": event.image}
        return self._changed(image, undone=what)

    def _changed(self, image: int | None, **more: Any) -> Response:
        """Answer with what may look otherwise now."""
        item = None if image is None else self.viewed.item(image)
        return _json({"item": item, "classes": self.viewed.summary()["classes"], **more})


async def _content(request: Request) -> Mapping[str, Any]:
    try:
        content = json_of(await request.body())
    except ValueError as error:
        raise UsageError("the request is no JSON") from error
    if not isinstance(content, Mapping):
        raise UsageError("the request is no JSON object")
    return content


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not 0 < len(value.strip()) <= _MOST_LETTERS:
        raise UsageError(f"{key} is no text of 1 to {_MOST_LETTERS} letters")
    return value.strip()


def _is_key(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))
