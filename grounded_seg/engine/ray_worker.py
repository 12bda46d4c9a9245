"""What runs where Ray puts a worker: the actor, and beside it the process that has the models.

Ray looks for signals many times a second on its own thread, which takes Python's lock from the thread that computes
each time: in the actor itself the models take a fifth longer.
"""

import itertools
import os
import pickle
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from multiprocessing import connection
from pathlib import Path
from typing import Any

from grounded_seg.engine.batch_worker import Answer, BatchWorker, Setup, answer_of, n_batches_at_once, portable
from grounded_seg.engine.processes import PATIENCE_S, start_process
from grounded_seg.engine.proofs import Proof, check_images, check_software, check_weights, enter
from grounded_seg.engine.several_workers import Batch
from grounded_seg.pipeline.load import RunsOn, runs_here
from grounded_seg.settings import ModelSettings

PROOF_FILE = ".workers"
"""In the output folder while a run lasts: a worker that reads in it what the driver wrote sees the same folder."""
_PROGRAM = "import sys; from grounded_seg.engine.ray_worker import serve; serve(int(sys.argv[1]))"


class RayWorker:
    """The actor: hands each call to the process with the models, and dies as that does.

    The results stay pickled; they are the driver's to read.
    """

    def __init__(self) -> None:
        self._process, self._pipe = start_process(_PROGRAM)
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._open: dict[int, Future[bytes]] = {}
        threading.Thread(target=self._receive, daemon=True).start()

    def runs_on(self, models: ModelSettings, working_folder: str) -> bytes:
        """Say what the models run on there; a `RunsOn`, or what went wrong."""
        return self._call("runs_on", models, working_folder)

    def start(self, content: bytes) -> bytes:
        """Check the proofs and load the models; None, or what went wrong."""
        return self._call("start", content)

    def answer(self, batch: Batch, token: str | None) -> bytes:
        """Process a batch; an `Answer`."""
        return self._call("answer", batch, token)

    def _call(self, name: str, *arguments: Any) -> bytes:
        future: Future[bytes] = Future()
        with self._lock:
            number = next(self._numbers)
            self._open[number] = future
            # Of a process that has died, `_receive` tells.
            with suppress(OSError):
                self._pipe.send((number, name, arguments))
        return future.result()

    def _receive(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                number, result = self._pipe.recv()
                self._open.pop(number).set_result(result)
        code = self._process.wait(PATIENCE_S)
        # So Ray tells of the same death.
        os.kill(os.getpid(), -code if code < 0 else signal.SIGKILL)


class _Models:
    """The models of one worker; failures are given, not raised, as Ray would wrap them."""

    def __init__(self) -> None:
        self._sends_files: bool | None = None
        self._lock = threading.Lock()

    def runs_on(self, models: ModelSettings, working_folder: str) -> Any:
        def there() -> RunsOn:
            enter(working_folder)
            return runs_here(models)

        return _result(there)

    def start(self, content: bytes) -> Any:
        return _result(lambda: self._load(content))

    def answer(self, batch: Batch, token: str | None) -> Any:
        with self._lock:
            if self._sends_files is None:
                self._sends_files = token is not None and not _sees(self._output, token)
        return answer_of(self._callers.submit(self._worker.answer, batch, sends_files=self._sends_files))

    def _load(self, content: bytes) -> None:
        setup: Setup[Any]
        proof: Proof
        setup, proof = pickle.loads(content)  # noqa: S301  (from the process that started this one)
        enter(proof.working_folder)
        check_images(proof, setup.work)
        check_software(proof)
        check_weights(setup.found)
        self._output = setup.work.output
        self._callers = ThreadPoolExecutor(n_batches_at_once(setup.work.batch_size))
        self._worker = BatchWorker(setup)


def serve(descriptor: int) -> None:
    """Answer the calls that come in by the pipe of that descriptor, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipe, lock = connection.Connection(descriptor), threading.Lock()
    models = _Models()

    def pickled(name: str, arguments: tuple[Any, ...]) -> bytes:
        return pickle.dumps(getattr(models, name)(*arguments))

    def send(future: "Future[bytes]", number: int, name: str) -> None:
        error = future.exception()
        if error is None:
            result = future.result()
        else:
            # What can't be pickled, say.
            result = pickle.dumps(Answer((), portable(error)) if name == "answer" else portable(error))
        # Of an actor that is gone, the reading below tells.
        with lock, suppress(OSError):
            pipe.send((number, result))

    callers = ThreadPoolExecutor(n_batches_at_once(1) + 1)
    try:
        while True:
            number, name, arguments = pipe.recv()
            callers.submit(pickled, name, arguments).add_done_callback(partial(send, number=number, name=name))
    except (EOFError, OSError):
        os._exit(0)


def _result(work: Callable[[], Any]) -> Any:
    # A thread that ends takes its OpenMP helpers with it; see `BatchWorker`.
    with ThreadPoolExecutor(1) as starter:
        future = starter.submit(work)
    error = future.exception()
    return future.result() if error is None else portable(error)


def _sees(output: Path | None, token: str) -> bool:
    """Tell whether this is the folder that the driver wrote its token into."""
    if output is None:
        return False
    with suppress(OSError, UnicodeDecodeError):
        return (output / PROOF_FILE).read_text(encoding="ascii") == token
    return False
