"""What every interface of the server asks: an image and prompts in, what the models found out."""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.collector import Collector, Thresholds
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image
from grounded_seg.serve.settings import ServeSettings

_Made = TypeVar("_Made")
_N_THREADS = 4
"""That decode images, and make answers of results."""


class Service:
    """The loaded models, and the requests that wait for them."""

    def __init__(self, collector: Collector, settings: ServeSettings, model_version: str) -> None:
        """Begin with nothing in hand.

        Args:
            collector: Asks the models; closed with `close`.
            settings: The limits.
            model_version: Names the weights, for those who ask for it.
        """
        self.settings = settings
        self.model_version = model_version
        self.collector = collector
        self.n_in_hand = 0
        self.stage_seconds: defaultdict[str, float] = defaultdict(float)
        """Of all images so far."""
        self._threads = ThreadPoolExecutor(_N_THREADS, thread_name_prefix="images")
        # Decoded images are large: one batch with the models, and one that waits for them.
        self._decoded = asyncio.Semaphore(2 * settings.batch_size)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Take a request in hand before it is read.

        Raises:
            HTTPException: 503 at once, if there are too many.
        """
        if self.n_in_hand >= self.settings.queue_size:
            message = f"{self.n_in_hand} requests are in hand, which is as many as this server takes; try again later"
            raise HTTPException(503, message, {"Retry-After": "1"})
        self.n_in_hand += 1
        try:
            yield
        finally:
            self.n_in_hand -= 1

    async def ask(
        self,
        read: Callable[[], Image],
        prompts: PromptSet,
        thresholds: Thresholds,
        make: Callable[[Image, PromptedResult], _Made],
    ) -> _Made:
        """Ask about one image.

        Args:
            read: Gives the image, on a thread.
            prompts: What is asked.
            thresholds: Of this call.
            make: Makes the answer, on a thread, while the pixels are at hand.

        Raises:
            HTTPException: What `read` raises.
            GroundedSegError: Likewise, and what the models raise.
        """
        loop = asyncio.get_running_loop()
        async with self._decoded:
            with self.collector.expecting():
                image = await loop.run_in_executor(self._threads, read)
                asked = self.collector.submit(image, prompts, thresholds)
            result = await asyncio.wrap_future(asked)
            for stage, seconds in result.seconds.items():
                self.stage_seconds[stage] += seconds
            return await loop.run_in_executor(self._threads, make, image, result)

    def close(self) -> None:
        """Finish what waits, and end the threads."""
        self.collector.close()
        self._threads.shutdown()


async def while_connected(request: Request, work: Awaitable[_Made]) -> _Made:
    """Do work for a request that has been read; it is given up if the caller goes away.

    Raises:
        ClientDisconnect: If that is so.
    """
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        for one in (task, gone):
            if not one.done():
                one.cancel()
                with suppress(asyncio.CancelledError):
                    await one


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
