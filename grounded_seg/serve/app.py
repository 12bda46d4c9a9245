"""The application: which path answers what."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from grounded_seg.errors import DeviceError, GroundedSegError, ImageAccessError, ImageError
from grounded_seg.serve.anylabeling import models_answer, prediction_answer, prediction_from
from grounded_seg.serve.counters import Counters
from grounded_seg.serve.label_studio import Connection, LabelStudioBackend
from grounded_seg.serve.openapi import docs_page, openapi
from grounded_seg.serve.segment_request import answer_to, json_object, read_segment_request
from grounded_seg.serve.service import Service, while_connected
from grounded_seg.web.access import Access
from grounded_seg.web.error_answers import answer_faults, fault
from grounded_seg.web.guards import Guards
from grounded_seg.web.pages import page_routes

_PAGE = Path(__file__).parent / "page"
_PAGE_FILES = ("index.html", "page.css", "page.js", "masks.js", "icon.svg")
_STATUS: tuple[tuple[type[GroundedSegError], int], ...] = (
    (ImageAccessError, 503),
    (ImageError, 422),
    (DeviceError, 503),
)
"""Of errors that aren't the request's own fault, which is 400."""
_MODEL_CLASS = "grounded-seg"


class Endpoints:
    """What is done for each path."""

    def __init__(self, service: Service, connection: Connection | None) -> None:
        self._service = service
        self._label_studio = LabelStudioBackend(service, connection)
        self.counters: Counters | None = None

    async def segment(self, request: Request) -> Response:
        """`POST /v1/segment`."""
        with self._service.admitted():
            asked = await read_segment_request(request, self._service.settings)

            make = partial(answer_to, asked)
            work = self._service.ask(asked.read, asked.prompts, asked.thresholds, make)
            return await while_connected(request, work)

    async def models(self, request: Request) -> Response:  # noqa: ARG002  (what a route calls)
        """`GET /v1/models`."""
        threshold = self._service.settings.detect.score_threshold
        return JSONResponse(models_answer(self._service.model_version, threshold))

    async def predict_shapes(self, request: Request) -> Response:
        """`POST /v1/predict` of X-AnyLabeling."""
        with self._service.admitted():
            asked = prediction_from(await json_object(request), self._service.settings)
            make = partial(prediction_answer, asked)
            work = self._service.ask(asked.read, asked.prompts, asked.thresholds, make)
            return JSONResponse(await while_connected(request, work))

    async def health(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /health`."""
        return JSONResponse({"status": "UP", "model_class": _MODEL_CLASS, "success": True})

    async def set_up(self, request: Request) -> Response:
        """`POST /setup` of Label Studio."""
        return JSONResponse(self._label_studio.set_up(await json_object(request)))

    async def predict_regions(self, request: Request) -> Response:
        """`POST /predict` of Label Studio."""
        with self._service.admitted():
            work = self._label_studio.predict(await json_object(request))
            return JSONResponse(await while_connected(request, work))

    async def webhook(self, request: Request) -> Response:
        """`POST /webhook` of Label Studio: nothing is trained here."""
        await request.body()
        return JSONResponse({}, 201)

    async def metrics(self, request: Request) -> Response:  # noqa: ARG002
        """`GET /metrics`."""
        service = self._service
        limit, stages = service.settings.queue_size, service.stage_seconds
        text = self.counters.text(service.collector.state, service.n_in_hand, limit, stages) if self.counters else ""
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


def make_app(service: Service, access: Access, connection: Connection | None = None) -> ASGIApp:
    """Make the application; the service is closed when it ends.

    Args:
        service: The loaded models.
        access: Who may ask.
        connection: The Label Studio that images are fetched from until it sets this server up.
    """

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    endpoints = Endpoints(service, connection)
    routes = _routes(endpoints)
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={GroundedSegError: _of_ours})
    answer_faults(app)
    endpoints.counters = Counters(Guards(app, access), frozenset(one.path for one in routes))
    return endpoints.counters


def _routes(endpoints: Endpoints) -> list[Route]:
    description, page = openapi(), docs_page()

    def fixed(answer: Callable[[], Response]) -> Callable[[Request], Awaitable[Response]]:
        async def give(request: Request) -> Response:  # noqa: ARG001
            return answer()

        return give

    return [
        *page_routes(_PAGE, _PAGE_FILES),
        Route("/v1/segment", endpoints.segment, methods=["POST"]),
        Route("/v1/models", endpoints.models),
        Route("/v1/predict", endpoints.predict_shapes, methods=["POST"]),
        Route("/health", endpoints.health),
        Route("/setup", endpoints.set_up, methods=["POST"]),
        Route("/predict", endpoints.predict_regions, methods=["POST"]),
        Route("/webhook", endpoints.webhook, methods=["POST"]),
        Route("/metrics", endpoints.metrics),
        Route("/openapi.json", fixed(lambda: JSONResponse(description))),
        Route("/docs", fixed(lambda: HTMLResponse(page))),
    ]


async def _of_ours(request: Request, error: Exception) -> Response:  # noqa: ARG001  (what a handler is given)
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return fault(status, str(error))
