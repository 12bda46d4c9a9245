"""Images that come one by one from many callers, collected into batches for the models."""

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.batches import BatchProcessor, ReadImage
from grounded_seg.engine.request import Request
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image

_PATIENCE_S = 0.25
"""An incomplete batch waits at most so long for images that are being read."""


@dataclass(frozen=True)
class Thresholds:
    """What a single call may change; None for what the models were loaded with."""

    score: float | None = None
    """Of `DetectSettings.score_threshold`."""
    iou: float | None = None
    """Of `DetectSettings.iou_threshold`."""


@dataclass(frozen=True)
class Collected:
    """What a collector has done, and what waits."""

    n_batches: int
    n_images: int
    n_waiting: int


@dataclass(frozen=True, eq=False)
class _Waiting:
    image: Image
    prompts: PromptSet
    thresholds: Thresholds
    since: float
    future: "Future[PromptedResult]"

    def goes_with(self, others: Sequence["_Waiting"]) -> bool:
        """Whether one call of the models can answer this along with others, each as if it were alone."""
        if any(self.thresholds != other.thresholds for other in others):
            return False
        if any((self.prompts.rules or other.prompts.rules) and self.prompts != other.prompts for other in others):
            # What is unwanted for one may be wanted for another.
            return False
        own = self.prompts.class_by_prompt
        # Duplicates are looked for within a class.
        return all(
            own.get(prompt, name) == name for other in others for prompt, name in other.prompts.class_by_prompt.items()
        )


class Collector:
    """Asks the models about images from any thread: whatever waits when they are free goes through them together.

    A batch isn't padded, so the last bits of its numbers depend on how many images are in it.
    """

    def __init__(self, chain: Chain, batch_size: int) -> None:
        """Start the thread that the models run on."""
        self.batch_size = batch_size
        self._chain = chain
        self._n_at_once = batch_size
        self._waiting: deque[_Waiting] = deque()
        self._n_expected = 0
        self._n_batches = 0
        self._n_images = 0
        self._is_closed = False
        self._changed = threading.Condition()
        # A pool keeps what a call raises; the models stay on its one thread.
        self._models = ThreadPoolExecutor(1, thread_name_prefix="models")
        self._thread = threading.Thread(target=self._collect, name="collector", daemon=True)
        self._thread.start()

    @property
    def state(self) -> Collected:
        """What was done so far, and what waits now."""
        with self._changed:
            return Collected(self._n_batches, self._n_images, len(self._waiting))

    @contextmanager
    def expecting(self) -> Iterator[None]:
        """Say that an image is on its way, until the end of the block: a batch may wait for it a moment."""
        with self._changed:
            self._n_expected += 1
        try:
            yield
        finally:
            with self._changed:
                self._n_expected -= 1
                self._changed.notify_all()

    def submit(
        self,
        image: Image,
        prompts: PromptSet,
        thresholds: Thresholds = Thresholds(),
    ) -> "Future[PromptedResult]":
        """Ask about an image; a future that is cancelled in time costs the models nothing.

        The future raises what the models raise, such as `UsageError` for a prompt that is too long, and
        `DeviceMemoryError` if there is no memory for this image alone. `seconds` of its result has `wait` too.
        """
        one = _Waiting(image, prompts, thresholds, time.perf_counter(), Future())
        with self._changed:
            if self._is_closed:
                raise RuntimeError("the collector is closed")
            self._waiting.append(one)
            self._changed.notify_all()
        return one.future

    def close(self) -> None:
        """Finish what waits, and end the thread."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        self._models.shutdown()

    def _collect(self) -> None:
        while batch := self._next_batch():
            wanted = [one for one in batch if one.future.set_running_or_notify_cancel()]
            if not wanted or self._answer(wanted):
                continue
            # What is wrong with one of them is no reason to refuse the others.
            for one in wanted:
                self._answer([one])

    def _next_batch(self) -> list[_Waiting]:
        """Wait for images, and take those that go together, the one that has waited longest first; empty at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._is_closed)
            if not self._waiting:
                return []
            self._changed.wait_for(lambda: len(self._waiting) >= self.batch_size or not self._n_expected, _PATIENCE_S)
            batch: list[_Waiting] = []
            for one in tuple(self._waiting):
                if len(batch) < self.batch_size and one.goes_with(batch):
                    batch.append(one)
                    self._waiting.remove(one)
            return batch

    def _answer(self, batch: Sequence[_Waiting]) -> bool:
        """Settle the futures of a batch; False, and nothing is settled, if the batch fails and has several images."""
        started = time.perf_counter()
        asked = self._models.submit(self._results, batch)
        error = asked.exception()
        if error is not None and len(batch) > 1:
            return False
        with self._changed:
            self._n_batches += 1
            self._n_images += len(batch)
        if error is not None:
            batch[0].future.set_exception(error)
            return True
        for one, result in zip(batch, asked.result(), strict=True):
            order = {prompt: index for index, prompt in enumerate(one.prompts.prompts)}
            found = sorted(result.instances, key=lambda instance: order[instance.prompt])
            seconds = {"wait": started - one.since, **result.seconds}
            one.future.set_result(replace(result, instances=tuple(found), seconds=seconds))
        return True

    def _results(self, batch: Sequence[_Waiting]) -> list[PromptedResult]:
        chain, thresholds = self._chain, batch[0].thresholds
        if thresholds.score is not None:
            chain = chain.with_score_threshold(thresholds.score)
        if thresholds.iou is not None:
            chain = chain.with_iou_threshold(thresholds.iou)
        processor = BatchProcessor(chain, self._n_at_once, pads=False)
        read = [
            ReadImage(Request(index, one.image.path.name, one.image.path, one.prompts), one.image, 0.0)
            for index, one in enumerate(batch)
        ]
        processed = processor.process(read)
        self._n_at_once = processor.n_at_once
        return [one.result for one in processed if isinstance(one.result, PromptedResult)]
