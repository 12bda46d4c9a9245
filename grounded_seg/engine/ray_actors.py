"""Workers that are actors of Ray, on this machine or on a cluster."""

import importlib.util
import logging
import os
import pickle
import secrets
import signal
import threading
from contextlib import suppress
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

from grounded_seg.engine.batch_worker import Setup, n_batches_at_once
from grounded_seg.engine.proofs import Proof, first_readable
from grounded_seg.engine.ray_worker import PROOF_FILE, RayWorker
from grounded_seg.engine.several_workers import Answered, Batch, Event, Lost, Ready
from grounded_seg.errors import DeviceError, UsageError
from grounded_seg.files import as_output_error
from grounded_seg.pipeline.load import RunsOn
from grounded_seg.settings import ModelSettings

_LOG = logging.getLogger(__name__)
_PATIENCE_S = 60.0
"""For workers that have no room yet, before this is told."""
_LEAST_CPU_SHARE = 0.1
_OBJECT_STORE_BYTES = 256 * 2**20
"""Of a cluster that is started here: only answers go through it."""

_OF_OWN_CLUSTER = {
    "worker_niceness": "0",
    "prestart_worker_first_driver": "0",
    "enable_metrics_collection": "0",
    "event_stats": "0",
    "task_events_report_interval_ms": "0",
}
"""Ray's settings for a cluster that is started here: its workers don't yield to everything else on this machine, which
a run in one process doesn't either, and nothing is collected for a dashboard that nobody sees."""


class RayActors:
    """Actors of Ray, each with a GPU where there are any and a share of the CPUs elsewhere; see `several_workers.Crew`.

    The cluster is that of RAY_ADDRESS, else one on this machine that is shut down again.
    """

    def __init__(self, n_workers: int | None) -> None:
        """Choose the number of workers; None for one per GPU, or one per node.

        Raises:
            UsageError: If Ray isn't installed, or can't be reached.
            DeviceError: If the cluster hasn't so many GPUs.
        """
        if importlib.util.find_spec("ray") is None:
            raise UsageError("--engine ray needs Ray; install it with `pip install 'grounded-seg[ray]'`")
        self._wanted = n_workers
        self._actors: dict[int, Any] = {}
        self._waited_for: dict[Any, tuple[int, int | None]] = {}
        """By Ray's reference: the worker, and the number of its batch, None for its start."""
        self._token: str | None = None
        self._output: Path | None = None
        self._options: dict[str, Any] = {}
        self._ray, self._is_own = _connected()
        self.n_workers = self._wanted or self._n_by_default()

    def _n_by_default(self) -> int:
        n_gpus = int(self._ray.cluster_resources().get("GPU", 0))
        return n_gpus or len([node for node in self._ray.nodes() if node["Alive"]])

    def runs_on(self, models: ModelSettings) -> RunsOn:
        """Ask the first worker what it runs on; see `Crew`."""
        self._options = self._resources(models.device)
        self._actors[0] = self._new_actor()
        self._models = replace(models, device="cuda" if "num_gpus" in self._options else "cpu")
        asked = self._actors[0].runs_on.remote(self._models, str(Path.cwd()))
        if not self._ray.wait([asked], timeout=_PATIENCE_S)[0]:
            _LOG.warning("the Ray cluster has no room for a worker yet, which asks for %s; waiting", self._options)
        runs_on: RunsOn = self._got(asked)
        self._runs_on = runs_on
        # torch takes seconds to import.
        from grounded_seg.device.choose import n_threads

        return replace(runs_on, threads=n_threads(), workers=(runs_on.device,) * self.n_workers)

    def set_up(self, setup: Setup[Any], first: Batch) -> None:
        """Keep what each worker is started with, and what it has to prove; see `Crew`."""
        request, pixels = first_readable(first, setup.work)
        self._content = pickle.dumps((setup, Proof(str(Path.cwd()), request, pixels, self._models, self._runs_on)))
        self._output = setup.work.output

    def begin(self) -> None:
        """Put the proof into the output folder; see `Crew`."""
        if self._output is not None:
            self._token = secrets.token_hex(16)
            with as_output_error(self._output):
                (self._output / PROOF_FILE).write_text(self._token, encoding="ascii")

    def start(self, worker: int) -> None:
        """Start an actor; see `Crew`."""
        if worker not in self._actors:
            self._actors[worker] = self._new_actor()
        self._waited_for[self._actors[worker].start.remote(self._content)] = (worker, None)

    def send(self, worker: int, number: int, batch: Batch) -> None:
        """Call the actor; see `Crew`."""
        self._waited_for[self._actors[worker].answer.remote(batch, self._token)] = (worker, number)

    def wait(self) -> list[Event]:
        """Wait for a call's result, or for the actor's death; see `Crew`."""
        references = list(self._waited_for)
        first, _ = self._ray.wait(references, num_returns=1, timeout=_PATIENCE_S)
        if not first:
            n_starting = sum(number is None for _, number in self._waited_for.values())
            if n_starting:
                _LOG.warning("%d Ray workers have not started yet; the cluster may have no room", n_starting)
            return []
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [self._event(one) for one in done if one in self._waited_for]

    def name(self, worker: int) -> str:
        """Tell a worker's number."""
        return f"Ray worker {worker + 1}"

    def close(self) -> None:
        """End all actors, and the cluster if it was started here; see `Crew`."""
        if self._token is not None and self._output is not None:
            with suppress(OSError):
                (self._output / PROOF_FILE).unlink(missing_ok=True)
        for one in self._actors.values():
            self._ray.kill(one)
        self._waited_for.clear()
        self._actors.clear()
        if self._is_own:
            self._ray.shutdown()

    def _event(self, reference: Any) -> Event:
        worker, number = self._waited_for.pop(reference)
        try:
            result = pickle.loads(self._ray.get(reference))  # noqa: S301  (from a process that this one started)
        except self._ray.exceptions.RayError as error:
            return self._died(worker, f"{self.name(worker)} died ({_first_line(error)})")
        if number is not None:
            return Answered(worker, number, result)
        if isinstance(result, BaseException):
            return self._died(worker, f"{self.name(worker)} can't start", result)
        return Ready(worker)

    def _died(self, worker: int, why: str, error: BaseException | None = None) -> Lost:
        self._ray.kill(self._actors.pop(worker))
        self._waited_for = {one: of for one, of in self._waited_for.items() if of[0] != worker}
        return Lost(worker, why, error)

    def _got(self, reference: Any) -> Any:
        try:
            result = pickle.loads(self._ray.get(reference))  # noqa: S301  (from a process that this one started)
        except self._ray.exceptions.RayError as error:
            raise DeviceError(f"the first Ray worker died ({_first_line(error)}); see to the cluster") from error
        if isinstance(result, BaseException):
            raise result
        return result

    def _resources(self, device: str) -> dict[str, Any]:
        """Say what each actor asks for; one logical CPU of each node stays free for Ray itself."""
        n_gpus = int(self._ray.cluster_resources().get("GPU", 0))
        if device == "cuda" or (device == "auto" and n_gpus):
            if self.n_workers > n_gpus:
                raise DeviceError(
                    f"the Ray cluster has {n_gpus} GPUs, and --workers is {self.n_workers}; give fewer, or --device cpu"
                )
            return {"num_gpus": 1}
        nodes = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        n_each = ceil(self.n_workers / max(1, len(nodes)))
        share = (min(nodes, default=1) - 1) / n_each
        return {"num_cpus": int(share) if share >= 1 else max(_LEAST_CPU_SHARE, int(10 * share) / 10)}

    def _new_actor(self) -> Any:
        n_calls = n_batches_at_once(1) + 1
        return self._ray.remote(RayWorker).options(max_concurrency=n_calls, max_restarts=0, **self._options).remote()


def _connected() -> tuple[Any, bool]:
    """Give Ray, connected, and whether it was connected here: to the cluster of RAY_ADDRESS, or to one of its own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It says what will change in later versions.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Optional, and slow to import.
    import ray

    if ray.is_initialized():
        return ray, False
    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not address:
        for name, value in _OF_OWN_CLUSTER.items():
            os.environ.setdefault(f"RAY_{name}", value)
        options |= {"include_dashboard": False, "object_store_memory": _OBJECT_STORE_BYTES}
    is_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address or "local", **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"the Ray cluster of RAY_ADDRESS={address} can't be reached" if address else "Ray can't start here"
        raise UsageError(f"{where} ({_first_line(error)}); see to it, or leave --engine ray out") from error
    if is_main:
        # Ray's own would exit without a word about how to resume.
        signal.signal(signal.SIGTERM, before)
    return ray, True


def _first_line(error: BaseException) -> str:
    return next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), type(error).__name__)
