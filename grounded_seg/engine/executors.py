"""Executors: requests in a fixed order in, one outcome for each in the same order out, wherever the models run.

Here is the one of this process: the models on the calling thread, reading ahead and writing behind on others. That of
several workers is in `several_workers.py`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import chain as chained
from itertools import islice
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

from grounded_seg.engine.batch_worker import N_THREADS, finished
from grounded_seg.engine.batches import BatchProcessor, batches, read_request
from grounded_seg.engine.processes import Processes
from grounded_seg.engine.ray_actors import RayActors
from grounded_seg.engine.request import Made, Outcome, Request, Work
from grounded_seg.engine.several_workers import SeveralWorkers
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels, RunsOn
from grounded_seg.settings import EngineKind, ModelSettings

_Item = TypeVar("_Item")
_Read = TypeVar("_Read")

_PATIENCE_S = 10.0
"""To wait for an image before it is asked whether the threads that read are still there."""
_WAITED_SHARE = 0.02
"""Of a batch's time, to wait for what is done with its images."""


class Executor(Protocol[Made]):
    """Where images go through the models; for a `with` statement, whose steps come in this order."""

    def read_first(self) -> bool:
        """Read the first batch, so that a single bad image is told before the models are loaded; False without one."""

    def runs_on(self, models: ModelSettings) -> RunsOn | None:
        """Say what the models will run on, as `models` asks; None for this process, where they are found anyway."""

    def load(self, found: FoundModels, load: Callable[[FoundModels], Chain]) -> None:
        """Load the models that were found, by a function that can be pickled."""

    def outcomes(self) -> Iterator[Outcome[Made]]:
        """Give the outcomes as they are done, in the order of the requests; those before a failure come first."""

    def __enter__(self) -> Self:
        """Start to read ahead."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop all threads and processes."""


def open_engine(
    requests: Iterable[Request],
    work: Work[Made],
    kind: EngineKind = EngineKind.LOCAL,
    *,
    devices: Sequence[str] | None = None,
    n_workers: int | None = None,
) -> Executor[Made]:
    """Give what executes the requests: this process, processes on several devices, or workers of Ray.

    Which images go through the models together is fixed by position: the requests are cut into batches from their
    first on and at each new group, and a short batch is padded. So the same requests give the same numbers, whoever
    executes them.

    Args:
        requests: Taken as they are needed, a batch or two ahead. Only the last batch of a group may be short.
        work: What is done with each image.
        kind: This machine, or Ray.
        devices: Devices of this machine, a process each; None for this process.
        n_workers: Workers of Ray; None for as many as fit.

    Raises:
        UsageError, DeviceError: If the devices aren't there or don't go together, or Ray isn't installed.
    """
    if kind is EngineKind.RAY:
        return SeveralWorkers(requests, work, RayActors(n_workers))
    if devices is not None:
        return SeveralWorkers(requests, work, Processes(devices))
    return ThisProcess(requests, work)


class ThisProcess(Generic[Made]):
    """Works through requests in this process; see `Executor`."""

    def __init__(self, requests: Iterable[Request], work: Work[Made]) -> None:
        """Put requests and work together; nothing starts yet."""
        self._requests = requests
        self._work = work
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        n_ahead = self._work.batch_size + N_THREADS
        read = partial(read_request, max_pixels=self._work.max_pixels, skips=self._work.skips)
        images = self._stack.enter_context(read_ahead(self._requests, read, n_threads=N_THREADS, n_ahead=n_ahead))
        self._batches = batches(images, self._work.batch_size, lambda one: one.request.group)
        self._writers = self._stack.enter_context(ThreadPoolExecutor(N_THREADS, thread_name_prefix="writer"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def read_first(self) -> bool:
        """Read the first batch; see `Executor`."""
        first = next(self._batches, None)
        if first is not None:
            self._batches = chained([first], self._batches)
        return first is not None

    def runs_on(self, models: ModelSettings) -> RunsOn | None:  # noqa: ARG002  (the protocol's signature)
        """Leave it to who finds the models; see `Executor`."""
        return None

    def load(self, found: FoundModels, load: Callable[[FoundModels], Chain]) -> None:
        """Load the models; see `Executor`."""
        self._processor = BatchProcessor(load(found), self._work.n_at_once or self._work.batch_size)

    def outcomes(self) -> Iterator[Outcome[Made]]:
        """Give the outcomes in the order of the requests; see `Executor`."""
        under_way: deque[Future[Outcome[Made]]] = deque()
        # Handed over, so that a batch's images don't stay in memory to the end.
        all_batches, self._batches, is_first = self._batches, iter(()), True
        while True:
            try:
                batch = next(all_batches, None)
                started = time.perf_counter()
                processed = [] if batch is None else self._processor.process(batch)
                seconds = time.perf_counter() - started
            except BaseException:
                # What is done already is told first, so that it doesn't have to be done again.
                yield from _taken(under_way, n_left=0)
                raise
            if batch is None:
                break
            n_at_once = self._processor.n_at_once
            wanted = (one for one in processed if not one.request.is_known)
            under_way.extend(self._writers.submit(finished, one, self._work, n_at_once) for one in wanted)
            del batch, processed
            # So short a time isn't missed, and lets most images be done before the next batch instead of after it. The
            # first batch is waited for: its writers load what they need.
            wait(under_way, timeout=None if is_first else seconds * _WAITED_SHARE)
            is_first = False
            yield from _taken(under_way, n_left=self._work.batch_size + N_THREADS)
        yield from _taken(under_way, n_left=0)


def _taken(under_way: "deque[Future[Outcome[Made]]]", n_left: int) -> Iterator[Outcome[Made]]:
    """Take the outcomes that are done, and wait for more where too many are under way: what bounds the memory."""
    while under_way and (len(under_way) > n_left or under_way[0].done()):
        yield under_way.popleft().result()


@contextmanager
def read_ahead(
    items: Iterable[_Item], read: Callable[[_Item], _Read], *, n_threads: int, n_ahead: int
) -> Iterator[Iterator[_Read]]:
    """Give what `read` makes of each item, in the order of the items.

    What `read` raises is raised where its item would have come. At the end of the block reading stops.

    Args:
        items: Taken as they are needed.
        read: Called on several threads at once.
        n_threads: How many.
        n_ahead: Items that are read, or being read, and not yet taken: what bounds the memory. At least 1.
    """
    begun: list[threading.Thread] = []
    pool = ThreadPoolExecutor(n_threads, "reader", initializer=lambda: begun.append(threading.current_thread()))
    try:
        yield _in_order(items, lambda item: pool.submit(read, item), n_ahead, begun)
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(
    items: Iterable[_Item],
    submit: Callable[[_Item], "Future[_Read]"],
    n_ahead: int,
    threads: Sequence[threading.Thread],
) -> Iterator[_Read]:
    iterator = iter(items)
    waiting = deque(submit(item) for item in islice(iterator, n_ahead))
    while waiting:
        read = _awaited(waiting.popleft(), threads)
        waiting.extend(submit(item) for item in islice(iterator, 1))
        yield read


def _awaited(future: "Future[_Read]", threads: Sequence[threading.Thread]) -> _Read:
    """What a thread reads; a `MemoryError` if one ended without a word, as those do for which there is no memory."""
    while not wait([future], timeout=_PATIENCE_S).done:
        if not threads or not all(one.is_alive() for one in threads):
            raise MemoryError("a thread that reads images ended")
    return future.result()
