"""Write behind: threads make files of what was found, and one thread records what is done, in order."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

_Made = TypeVar("_Made")


class OrderedWriter(Generic[_Made]):
    """Runs jobs on threads and records what they made in the order of the jobs; for a `with` statement.

    After the first failure nothing more is recorded, so that what was recorded has no gap. At the end of the block all
    jobs are done, whatever ended it.
    """

    def __init__(self, record: Callable[[_Made], None], *, n_threads: int, n_waiting: int) -> None:
        """Start the threads.

        Args:
            record: Called on one thread, with what one job after the other made.
            n_threads: For the jobs.
            n_waiting: Jobs that may be under way, which bounds the memory. At least 1.
        """
        self._record = record
        self._n_waiting = n_waiting
        self._makers = ThreadPoolExecutor(n_threads, thread_name_prefix="writer")
        self._recorder = ThreadPoolExecutor(1, thread_name_prefix="recorder")
        self._under_way: deque[Future[None]] = deque()
        self._has_failed = False

    def submit(self, job: Callable[[], _Made]) -> None:
        """Have a job done; wait first where too many are under way.

        Raises:
            Exception: What an earlier job, or recording it, has raised.
        """
        while len(self._under_way) >= self._n_waiting or (self._under_way and self._under_way[0].done()):
            self._under_way.popleft().result()
        self._under_way.append(self._recorder.submit(self._hand_on, self._makers.submit(job)))

    def wait(self) -> None:
        """Wait until all jobs are recorded.

        Raises:
            Exception: What a job, or recording it, has raised.
        """
        while self._under_way:
            self._under_way.popleft().result()

    def _hand_on(self, made: "Future[_Made]") -> None:
        if self._has_failed:
            made.cancel()
            return
        # Until it has gone well.
        self._has_failed = True
        self._record(made.result())
        self._has_failed = False

    def __enter__(self) -> "OrderedWriter[_Made]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._makers.shutdown()
        self._recorder.shutdown()
        # What ended the block counts for more than what went wrong afterwards.
        if error is None:
            self.wait()
