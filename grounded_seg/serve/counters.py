"""What `/metrics` tells: requests, images and seconds so far, and what waits, in the text form of Prometheus."""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from grounded_seg.engine.collector import Collected

_OTHER = "other"
"""Stands for all paths that aren't ours, of which there is no end."""


class Counters:
    """Counts what goes through an application."""

    def __init__(self, app: ASGIApp, paths: frozenset[str]) -> None:
        """Stand before an application with these paths."""
        self._app = app
        self._paths = paths
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else _OTHER
        started, status = time.perf_counter(), 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            self._requests[path, status] += 1
            self._seconds[path] += time.perf_counter() - started

    def text(self, models: Collected, n_in_hand: int, capacity: int, stages: Mapping[str, float]) -> str:
        """Give all figures, with those of the models."""
        return "".join(f"{line}\n" for line in self._lines(models, n_in_hand, capacity, stages))

    def _lines(self, models: Collected, n_in_hand: int, capacity: int, stages: Mapping[str, float]) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests, by path and status; 0 is without an answer.")
        for (path, status), n in sorted(self._requests.items()):
            yield f'grounded_seg_requests_total{{path="{path}",status="{status}"}} {n}'
        yield from _head("request_seconds_total", "counter", "Seconds of all requests, by path.")
        for path, seconds in sorted(self._seconds.items()):
            yield f'grounded_seg_request_seconds_total{{path="{path}"}} {seconds:.6f}'
        yield from _head("stage_seconds_total", "counter", "Seconds of images in each stage, waiting included.")
        for stage, seconds in sorted(stages.items()):
            yield f'grounded_seg_stage_seconds_total{{stage="{stage}"}} {seconds:.6f}'
        single = (
            ("images_total", "counter", "Images that went through the models.", models.n_images),
            ("batches_total", "counter", "Batches of them.", models.n_batches),
            ("queue_waiting", "gauge", "Images that wait for the models.", models.n_waiting),
            ("requests_in_hand", "gauge", "Requests that are being answered.", n_in_hand),
            ("requests_in_hand_limit", "gauge", "Requests in hand above which more are refused.", capacity),
        )
        for name, kind, text, value in single:
            yield from _head(name, kind, text)
            yield f"grounded_seg_{name} {value}"


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP grounded_seg_{name} {text}"
    yield f"# TYPE grounded_seg_{name} {kind}"
