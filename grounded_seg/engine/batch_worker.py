"""What a worker does: reads, processes and finishes whole batches, several at once, beside one set of models.

It is the same in a process of this machine and in an actor of Ray. What goes in and comes out can be pickled.
"""

import gc
import logging
import math
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any, Generic

from grounded_seg.engine.batches import BatchProcessor, read_request
from grounded_seg.engine.request import Made, Outcome, Processed, Request, Work
from grounded_seg.errors import GroundedSegError
from grounded_seg.images.formats import only_own_limit
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.pipeline.result import PromptedResult

N_THREADS = min(8, os.cpu_count() or 1)
"""That read, and again as many that write. More wouldn't decode any faster, and hold more images."""
_PLAIN = (str, int, float, Path)
_PACKAGE_LOG = "grounded_seg"


def n_batches_at_once(batch_size: int) -> int:
    """Batches that a worker has at once: one in the models, one being finished, and those that are read meanwhile."""
    return 2 + math.ceil(N_THREADS / batch_size)


@dataclass(frozen=True, eq=False)
class Setup(Generic[Made]):
    """What a worker needs before its first batch."""

    work: Work[Made]
    found: FoundModels
    """With the worker's own device; torch's threads are set to its number."""
    load: Callable[[FoundModels], Chain]
    log_level: int
    """Of this package's log."""


@dataclass(frozen=True, eq=False)
class Answer(Generic[Made]):
    """What came of one batch."""

    outcomes: Sequence[Outcome[Made]]
    error: BaseException | None = None
    """What ended the work, after these outcomes."""
    said: Sequence[dict[str, Any]] = ()
    """Records of the worker's log since its last answer, for `logging.makeLogRecord`."""


class BatchWorker(Generic[Made]):
    """The models of one worker, and the threads around them."""

    def __init__(self, setup: Setup[Made]) -> None:
        """Load the models; lasts as long as its process."""
        # torch takes seconds to import, which the parent's process has no need for here.
        from grounded_seg.device.choose import set_n_threads

        self._said = _collected_log(setup.log_level)
        self._work = work = setup.work
        self._lasting = ExitStack()
        self._lasting.enter_context(only_own_limit())
        self._readers, self._models, self._writers = (
            ThreadPoolExecutor(n, thread_name_prefix=name)
            for name, n in (("reader", N_THREADS), ("models", 1), ("writer", N_THREADS))
        )
        set_n_threads(setup.found.threads)
        # On the thread that uses them: OpenMP counts the helpers of every thread that ever computed, and where those
        # are more than the cores they sleep between two steps, which costs a quarter of the time.
        chain = self._models.submit(setup.load, setup.found).result()
        self._processor = BatchProcessor(chain, work.n_at_once or work.batch_size)
        # What was imported and loaded stays to the end: the search for garbage needn't look at it again and again.
        gc.freeze()
        self._read = partial(read_request, max_pixels=work.max_pixels, skips=work.skips)

    def answer(self, batch: Sequence[Request], *, sends_files: bool = False) -> Answer[Made]:
        """Process a batch; may be called on several threads at once, whose batches share the models one by one.

        Args:
            batch: Its requests.
            sends_files: Give what the per-image function writes as bytes, and leave the output folder alone.
        """
        finish = _finished_with_files if sends_files else finished
        processed, n_at_once = self._models.submit(self._process, list(self._readers.map(self._read, batch))).result()
        wanted = [one for one in processed if not one.request.is_known]
        under_way = [self._writers.submit(finish, one, self._work, n_at_once) for one in wanted]
        del processed, wanted
        wait(under_way)
        done = list(takewhile(lambda one: one.exception() is None, under_way))
        error = None if len(done) == len(under_way) else under_way[len(done)].exception()
        return Answer([one.result() for one in done], error and portable(error), self.said())

    def said(self) -> list[dict[str, Any]]:
        """Take the log's records since the last time."""
        return [self._said.pop(0) for _ in range(len(self._said))]

    def _process(self, images: Sequence[Any]) -> tuple[list[Processed], int]:
        processed = self._processor.process(images)
        return processed, self._processor.n_at_once


def answer_of(future: "Future[Answer[Made]]") -> Answer[Made]:
    """Give what came of a batch, also where that is a failure."""
    error = future.exception()
    return future.result() if error is None else Answer((), portable(error))


def portable(error: BaseException) -> BaseException:
    """Bring an error into a form that can be pickled, with its traceback as a note."""
    portable_error: BaseException = error
    if not isinstance(error, GroundedSegError):
        portable_error = RuntimeError(f"{type(error).__name__}: {error}")
    if not getattr(portable_error, "__notes__", None):
        portable_error.add_note("".join(traceback.format_exception(error)))
    return portable_error


def finished(processed: Processed, work: Work[Made], n_at_once: int, output: Path | None = None) -> Outcome[Made]:
    """Have the per-image function do its part, into `output` instead of the work's own folder if that is given."""
    started = time.perf_counter()
    folder = output or work.output
    made = work.per_image(processed) if folder is None else work.per_image(processed, output=folder)
    seconds = {**processed.seconds, "write": time.perf_counter() - started}
    result = processed.result
    n_empty, n_unusable = (
        (result.n_empty_masks, result.n_unusable_boxes) if isinstance(result, PromptedResult) else (0, 0)
    )
    return Outcome(processed.request, made, n_empty, n_unusable, seconds, n_at_once)


def _finished_with_files(processed: Processed, work: Work[Made], n_at_once: int) -> Outcome[Made]:
    with tempfile.TemporaryDirectory(prefix="grounded-seg-") as folder:
        outcome = finished(processed, work, n_at_once, Path(folder))
        written = sorted(path for path in Path(folder).rglob("*") if path.is_file())
        files = tuple((path.relative_to(folder).as_posix(), path.read_bytes()) for path in written)
    return replace(outcome, files=files)


def _collected_log(level: int) -> list[dict[str, Any]]:
    """Collect what this package says, for the parent to tell; what libraries say stays unsaid."""
    records: list[dict[str, Any]] = []
    log = logging.getLogger(_PACKAGE_LOG)
    log.setLevel(level)
    log.handlers, log.propagate = [_Collecting(records)], False
    if level > logging.DEBUG:
        warnings.simplefilter("ignore")
        logging.getLogger().addHandler(logging.NullHandler())
    return records


class _Collecting(logging.Handler):
    """Keeps records in a form that can be pickled."""

    def __init__(self, records: list[dict[str, Any]]) -> None:
        super().__init__()
        self._records = records

    def emit(self, record: logging.LogRecord) -> None:
        # The template says which records are the same; `once` in the command line's log needs it.
        is_plain = isinstance(record.args, tuple) and all(isinstance(one, _PLAIN) for one in record.args)
        text, arguments = (record.msg, record.args) if is_plain else (record.getMessage(), ())
        kept = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        marks = {name: True for name in ("once", "is_hint") if hasattr(record, name)}
        self._records.append({**kept, "msg": text, "args": arguments, **marks})
