"""Workers in processes of this machine, one for each device."""

import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import Pipe, connection
from typing import Any

from grounded_seg.engine.batch_worker import Answer, BatchWorker, Setup, n_batches_at_once, portable
from grounded_seg.engine.several_workers import Answered, Batch, Event, Lost, Ready
from grounded_seg.errors import UsageError
from grounded_seg.pipeline.load import RunsOn, runs_here
from grounded_seg.settings import ModelSettings

_LOG = logging.getLogger(__name__)
_PROGRAM = "import sys; from grounded_seg.engine.processes import serve; serve(int(sys.argv[1]))"
"""A process of its own from its start on: a fork has none of torch's threads and no CUDA, and what multiprocessing
spawns runs the caller's script again."""
PATIENCE_S = 5.0
"""For a process to end by itself."""
_SIGNALS = {signal.SIGINT, signal.SIGTERM}
"""Both are the parent's to answer: a terminal or a cluster sends them to all processes at once."""


@dataclass(frozen=True, eq=False)
class _Worker:
    process: "subprocess.Popen[bytes]"
    connection: "connection.Connection[Any, Any]"


class Processes:
    """A process for each of some devices; see `several_workers.Crew`.

    Each is started afresh and loads the models itself. It ends when its pipe to this process is closed, also by this
    process's death.
    """

    def __init__(self, devices: Sequence[str]) -> None:
        """Take the names of the devices, each as often as a process is to use it; or "all" for every CUDA device.

        Raises:
            DeviceError: If this machine doesn't have them.
            UsageError: If they aren't of one kind.
        """
        if sys.platform == "win32":
            raise UsageError("--devices needs Linux or macOS; leave it out, and name one device with --device")
        # torch takes seconds to import.
        from grounded_seg.device.choose import resolve_devices

        self._devices = resolve_devices(devices)
        self.n_workers = len(self._devices)
        self._workers: dict[int, _Worker] = {}

    def runs_on(self, models: ModelSettings) -> RunsOn:
        """Say what the first device is, to which the others are alike; see `Crew`."""
        from grounded_seg.device.choose import check_alike

        check_alike(self._devices, models.dtype)
        here = runs_here(replace(models, device=self._devices[0]))
        n_cores = os.cpu_count() or 1
        if here.device == "cpu" and self.n_workers > 1 and n_cores < here.threads * self.n_workers:
            _LOG.warning(
                "%d processes of %d threads each share %d cores; OMP_NUM_THREADS=%d is faster",
                self.n_workers,
                here.threads,
                n_cores,
                max(1, n_cores // self.n_workers),
            )
        return replace(here, workers=self._devices)

    def set_up(self, setup: Setup[Any], first: Batch) -> None:  # noqa: ARG002  (they see the same files as this process)
        """Keep what each worker is started with; see `Crew`."""
        self._setup = setup

    def begin(self) -> None:
        """They see the same folder; see `Crew`."""

    def start(self, worker: int) -> None:
        """Start a process; see `Crew`."""
        with _signals_held_back():
            self._workers[worker] = _Worker(*start_process(_PROGRAM))
        self._put(worker, replace(self._setup, found=replace(self._setup.found, device=self._devices[worker])))

    def send(self, worker: int, number: int, batch: Batch) -> None:
        """Put a batch into the pipe; see `Crew`."""
        self._put(worker, (number, batch))

    def wait(self) -> list[Event]:
        """Wait for a message or the end of a process; see `Crew`."""
        worker_of = {id(one.connection): worker for worker, one in self._workers.items()}
        ready = connection.wait([one.connection for one in self._workers.values()])
        return [self._received(worker_of[id(one)]) for one in ready]

    def name(self, worker: int) -> str:
        """Tell a worker's device."""
        return self._devices[worker]

    def close(self) -> None:
        """Close all pipes, which ends the processes; see `Crew`."""
        for one in self._workers.values():
            one.connection.close()
        for one in self._workers.values():
            _ended(one.process)
        self._workers.clear()

    def _put(self, worker: int, message: Any) -> None:
        # Of a process that has died, `wait` tells.
        with suppress(OSError):
            self._workers[worker].connection.send(message)

    def _received(self, worker: int) -> Event:
        try:
            message = self._workers[worker].connection.recv()
        except (EOFError, OSError):
            return self._died(worker)
        match message:
            case (int(number), Answer() as answer):
                return Answered(worker, number, answer)
            case BaseException() as error:
                self._died(worker)
                return Lost(worker, f"the worker on {self._devices[worker]} can't start", error)
        return Ready(worker)

    def _died(self, worker: int) -> Lost:
        """Tell how a process ended."""
        one = self._workers.pop(worker)
        one.connection.close()
        code = _ended(one.process)
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        return Lost(worker, f"the worker on {self._devices[worker]} (process {one.process.pid}) {how}")


def start_process(program: str) -> "tuple[subprocess.Popen[bytes], connection.Connection[Any, Any]]":
    """Start Python with a program whose argument is the descriptor of a pipe; gives this end of it."""
    ours, theirs = Pipe()
    descriptor = theirs.fileno()
    # Without -P a file in the current folder could stand in for a module. Standard output is for results.
    command = [sys.executable, "-P", "-c", program, str(descriptor)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    with theirs:
        process = subprocess.Popen(  # noqa: S603  (this program)
            command, env=environment, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=2
        )
    return process, ours


def _ended(process: "subprocess.Popen[bytes]") -> int:
    """Give the exit code of a process that is about to end, or is killed if it doesn't."""
    try:
        return process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Start processes that never get the signals; those to this process come at the end of the block."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(descriptor: int) -> None:
    """Work through the batches that come in by the pipe of that descriptor, until it is closed."""
    for one in _SIGNALS:
        signal.signal(one, signal.SIG_IGN)
    pipe, lock = connection.Connection(descriptor), threading.Lock()

    def send(message: bytes) -> None:
        # Of a parent that is gone, the reading below tells.
        with lock, suppress(OSError):
            pipe.send_bytes(message)

    def send_start(future: "Future[Any]") -> None:
        error = future.exception()
        send(pickle.dumps("ready" if error is None else portable(error)))

    def send_answer(future: "Future[bytes]", number: int) -> None:
        error = future.exception()
        send(future.result() if error is None else pickle.dumps((number, Answer((), portable(error)))))

    callers: ThreadPoolExecutor | None = None
    try:
        # On this thread only the pipe is read: so the end of the parent is noticed at once, while models load too.
        starter = ThreadPoolExecutor(1)
        starting = starter.submit(_started, pipe.recv_bytes())
        starter.shutdown(wait=False)
        starting.add_done_callback(send_start)
        while True:
            number, batch = pipe.recv()
            worker, size = starting.result()
            callers = callers or ThreadPoolExecutor(n_batches_at_once(size))
            callers.submit(_answered, worker, number, batch).add_done_callback(partial(send_answer, number=number))
    except (EOFError, OSError):
        # Not sys.exit, which would wait for what is under way and nobody wants.
        os._exit(0)


def _started(content: bytes) -> tuple[BatchWorker[Any], int]:
    # Not where the pipe is read: what it names takes seconds to import.
    setup: Setup[Any] = pickle.loads(content)  # noqa: S301  (from the process that started this one)
    return BatchWorker(setup), setup.work.batch_size


def _answered(worker: BatchWorker[Any], number: int, batch: Batch) -> bytes:
    # So what can't be pickled is an error of this batch.
    return pickle.dumps((number, worker.answer(batch)))
