"""The engine over several workers, each with models of its own: batches go out in order, outcomes come back in order.

Where the workers are is a crew's part: processes of this machine (`processes.py`), or actors of Ray (`ray_actors.py`).
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain as chained
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeAlias

from grounded_seg.engine.batch_worker import Answer, Setup, n_batches_at_once
from grounded_seg.engine.batches import batches, read_request
from grounded_seg.engine.hand_out import HandOut, LostBatch
from grounded_seg.engine.request import Made, Outcome, Request, Work
from grounded_seg.errors import OutputError, WorkerError
from grounded_seg.files import as_output_error
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels, RunsOn
from grounded_seg.settings import ModelSettings

_LOG = logging.getLogger(__name__)
_MOST_FRUITLESS = 3
"""Workers in a row that may die, or fail to start again, in one place without an answer; then it stays empty."""
_WHAT_NEXT = "if memory ran out, lower --batch-size or use fewer workers"

Batch: TypeAlias = tuple[Request, ...]


@dataclass(frozen=True)
class Ready:
    """A worker has loaded its models."""

    worker: int


@dataclass(frozen=True, eq=False)
class Answered:
    """A worker is done with a batch."""

    worker: int
    number: int
    answer: Answer[Any]


@dataclass(frozen=True, eq=False)
class Lost:
    """A worker is gone."""

    worker: int
    why: str
    """Which it was, and how it ended: "the worker on cuda:1 (process 123) was killed by SIGKILL"."""
    error: BaseException | None = None
    """What kept it from starting; None where it died."""


Event: TypeAlias = Ready | Answered | Lost


class Crew(Protocol):
    """Some workers, numbered from 0, and the way to them."""

    n_workers: int

    def runs_on(self, models: ModelSettings) -> RunsOn:
        """Say what the workers run on, which is the same for all; comes first."""

    def set_up(self, setup: Setup[Any], first: Batch) -> None:
        """Take what each worker is started with, and the first batch, whose images each has to see."""

    def start(self, worker: int) -> None:
        """Begin to start a worker, or another one in its place; `Ready` or `Lost` will tell."""

    def begin(self) -> None:
        """Take notice that the output folder is there."""

    def send(self, worker: int, number: int, batch: Batch) -> None:
        """Give a worker a batch; `Answered` or `Lost` will tell."""

    def wait(self) -> Sequence[Event]:
        """Wait until something happens. After a worker's `Lost` nothing more is told of it."""

    def name(self, worker: int) -> str:
        """Tell where a worker is."""

    def close(self) -> None:
        """End all workers."""


class SeveralWorkers(Generic[Made]):
    """Works through requests in several workers; see `executors.Executor`."""

    def __init__(self, requests: Iterable[Request], work: Work[Made], crew: Crew) -> None:
        """Put requests, work and workers together; nothing starts yet."""
        self._requests, self._work, self._crew = requests, work, crew
        self._staff: set[int] = set()
        """Workers that are ready."""
        self._n_fruitless = dict.fromkeys(range(crew.n_workers), 0)
        """Deaths in each place since its last answer; places that stay empty aren't in it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._crew.close()

    def read_first(self) -> bool:
        """Take the first batch, and read it here if a bad image would end the work; see `Executor`."""
        all_batches = batches(self._requests, self._work.batch_size, lambda one: one.group)
        first = next(all_batches, None)
        if first is None:
            return False
        if not self._work.skips:
            for request in first:
                read_request(request, max_pixels=self._work.max_pixels, skips=False)
        self._first = first
        n_each = n_batches_at_once(self._work.batch_size)
        n_ahead = 2 * self._crew.n_workers * n_each
        self._hand_out = HandOut[Batch, Answer[Made]](chained([first], all_batches), n_each=n_each, n_ahead=n_ahead)
        return True

    def runs_on(self, models: ModelSettings) -> RunsOn:
        """Say what the workers run on; see `Executor`."""
        return self._crew.runs_on(models)

    def load(self, found: FoundModels, load: Callable[[FoundModels], Chain]) -> None:
        """Start all workers, and wait until each has loaded the models; see `Executor`.

        Raises:
            GroundedSegError: If one can't.
            WorkerError: If one dies again and again.
        """
        level = logging.getLogger("grounded_seg").getEffectiveLevel()
        self._crew.set_up(Setup(self._work, found, load, level), self._first)
        for worker in range(self._crew.n_workers):
            self._crew.start(worker)
        while len(self._staff) < self._crew.n_workers:
            for event in self._crew.wait():
                if isinstance(event, Lost) and event.error is not None:
                    raise event.error
                self._take(event)
                if len(self._n_fruitless) < self._crew.n_workers and isinstance(event, Lost):
                    raise WorkerError(f"{event.why} while it loaded the models; {_WHAT_NEXT}")

    def outcomes(self) -> Iterator[Outcome[Made]]:
        """Give the outcomes in the order of the requests; see `Executor`."""
        self._crew.begin()
        while not self._hand_out.is_finished:
            try:
                self._send_all()
                for event in () if self._hand_out.is_finished else self._crew.wait():
                    self._take(event)
            except BaseException:
                # What is done already is told first, so that it doesn't have to be done again.
                yield from self._given()
                raise
            yield from self._given()

    def _send_all(self) -> None:
        # In turns, so that the first batches don't all wait for one worker.
        has_sent = True
        while has_sent:
            has_sent = False
            for worker in sorted(self._staff):
                handed = self._hand_out.next_for(worker)
                if handed is not None:
                    self._crew.send(worker, *handed)
                    has_sent = True

    def _take(self, event: Event) -> None:
        match event:
            case Ready(worker):
                self._staff.add(worker)
            case Answered(worker, number, answer):
                self._n_fruitless[worker] = 0
                self._hand_out.answered(worker, number, answer)
                self._tell(worker, answer)
                if answer.error is not None:
                    self._hand_out.stop()
            case Lost():
                self._bury(event)

    def _bury(self, event: Lost) -> None:
        """Take a dead worker's batches back, and start another one in its place unless that was in vain before."""
        self._staff.discard(event.worker)
        lost = self._hand_out.lost(event.worker)
        again = [one for one in lost if not one.is_second]
        for one in lost:
            if one.is_second:
                self._hand_out.give_up(one.number, Answer((), _died_twice(event, one)))
                self._hand_out.stop()
        self._n_fruitless[event.worker] += 1
        stays_empty = self._n_fruitless[event.worker] >= _MOST_FRUITLESS
        what = f"; its {_images(again)} run again" if again else ""
        cause = f" ({event.error})" if event.error is not None else ""
        _LOG.warning("%s%s%s%s", event.why, cause, what, "; it isn't started again" if stays_empty else "")
        if stays_empty:
            del self._n_fruitless[event.worker]
            if not self._n_fruitless:
                raise WorkerError(f"no worker is left: {event.why}{cause}; {_WHAT_NEXT}")
        else:
            self._crew.start(event.worker)

    def _tell(self, worker: int, answer: Answer[Made]) -> None:
        """Say here what a worker has said."""
        for said in answer.said:
            record = logging.makeLogRecord(dict(said))
            if not hasattr(record, "once"):
                record.msg, record.args = f"{self._crew.name(worker)}: {record.getMessage()}", ()
            logging.getLogger(record.name).handle(record)

    def _given(self) -> Iterator[Outcome[Made]]:
        """Give the outcomes whose turn has come, and raise what ended the work in its turn."""
        for answer in self._hand_out.ready():
            for outcome in answer.outcomes:
                _write(outcome, self._work.output)
                yield outcome
            if answer.error is not None:
                raise answer.error


def _write(outcome: Outcome[Any], folder: Path | None) -> None:
    """Write the files of an image that were made where the output folder isn't in reach."""
    for name, content in outcome.files:
        if folder is None or ".." in Path(name).parts or Path(name).is_absolute():
            raise OutputError(f"a worker has sent a file of the name {name!r}, outside of the output folder")
        with as_output_error(folder / name):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def _images(lost: Sequence[LostBatch[Batch]]) -> str:
    n_images = sum(len(one.batch) for one in lost)
    return "image is" if n_images == 1 else f"{n_images} images are"


def _died_twice(event: Lost, lost: LostBatch[Batch]) -> WorkerError:
    first, *others = [one.name for one in lost.batch]
    more = f" and {len(others)} more" if others else ""
    return WorkerError(
        f"{event.why} with {first!r}{more}, as another worker had before; {_WHAT_NEXT}, or take that image out"
    )
