"""A process that has imported everything, and is forked for each command: a start of 30 ms instead of seconds.

    with Warm(shim, heavy=False) as warm:
        child = warm.start(["run", "red car", "photos"], cwd=folder, setup=[("descriptors", 64)])
        code = child.wait()

What goes wrong in a child is set up in it before the command begins: see `fault_kinds.SETUPS`. Its streams are files.
Run as a program, this module is the process that is forked.
"""

import atexit
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[1]
_LIGHT = ("fake_run", "grounded_seg.cli.run_display", "grounded_seg.cli.eval_tables", "grounded_seg.export.export")
_LIGHT += ("grounded_seg.runs.run", "grounded_seg.runs.merge", "grounded_seg.review.decisions_merge")
_LIGHT += ("grounded_seg.coco.check.validate", "grounded_seg.coco.check.repair", "grounded_seg.scoring.json_report")
_LIGHT += ("grounded_seg.engine.executors", "grounded_seg.review.page.viewed_run", "cv2", "shapely", "scipy.optimize")
_HEAVY = ("grounded_seg.train.training", "grounded_seg.detect.model.save", "grounded_seg.cli.fetching")
LIMIT_S, _POLL_S = 60.0, 0.005


@dataclass
class Child:
    """A command that was started."""

    warm: "Warm"
    pid: int
    out_file: Path
    err_file: Path

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Its exit code, negative for a signal; it is killed, which is a failure, if it takes longer than the limit."""
        self.warm.send({"wait": self.pid, "limit_s": limit_s})
        answer = self.warm.receive()
        if answer["hung"]:
            raise AssertionError(f"hung for {limit_s:.0f} s; stderr: {self.err}")
        return int(answer["code"])

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    @property
    def out(self) -> str:
        return self.out_file.read_text(errors="replace") if self.out_file.is_file() else ""

    @property
    def err(self) -> str:
        return self.err_file.read_text(errors="replace") if self.err_file.is_file() else ""


@dataclass
class Warm:
    """The process to fork, from the side of a test."""

    shim: Path | None = None
    """Of `io_faults.c`, compiled."""
    heavy: bool = False
    """Whether torch and transformers are imported too."""
    _process: Any = field(default=None, repr=False)
    _n: int = 0

    def __enter__(self) -> Self:
        ours, theirs = socket.socketpair()
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(_PATHS)}
        if self.shim is not None:
            environment["LD_PRELOAD"] = str(self.shim)
        command = [sys.executable, __file__, str(theirs.fileno()), "heavy" if self.heavy else "light"]
        self._folder = Path(tempfile.mkdtemp(prefix="warm-"))
        self._process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()
        self._socket = ours
        self._lines = ours.makefile("r")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._lines.close()
        self._socket.close()
        self._process.wait()

    def start(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        setup: Sequence[Sequence[Any]] = (),
        environment: Mapping[str, str] = {},
        program: str = "grounded_seg",
        count_to: Path | None = None,
    ) -> Child:
        """Start a command in a folder, after the steps of its `setup`."""
        self._n += 1
        out, err = (self._folder / f"{self._n}.{name}" for name in ("out", "err"))
        self.send(
            {
                "arguments": list(map(str, arguments)),
                "cwd": str(cwd),
                "setup": [list(step) for step in setup],
                "environment": dict(environment),
                "program": program,
                "count_to": None if count_to is None else str(count_to),
                "streams": [os.devnull, str(out), str(err)],
            }
        )
        return Child(self, int(self.receive()["pid"]), out, err)

    def send(self, message: Mapping[str, Any]) -> None:
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> dict[str, Any]:
        text = self._lines.readline()
        if not text:
            raise AssertionError("the process to fork has ended")
        answer: dict[str, Any] = json.loads(text)
        return answer


_PATHS = [str(ROOT), str(ROOT / "tests")]


def _child(request: dict[str, Any]) -> None:
    """Become the command, and end as it ends."""
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.update(request["environment"])
    kinds = importlib.import_module("fault_kinds")
    for descriptor, path in enumerate(request["streams"]):
        kinds.redirect(descriptor, path)
    if request["count_to"] is not None:
        atexit.register(kinds.write_count, request["count_to"])
    for name, *values in request["setup"]:
        kinds.SETUPS[name](*values)
    sys.argv = [request["program"], *request["arguments"]]
    if request["program"] == "grounded_seg":
        importlib.import_module("fake_run").run()
    else:
        commands = importlib.import_module("fault_commands")
        getattr(commands, request["program"])(*request["arguments"])


def _waited(pid: int, limit_s: float) -> dict[str, Any]:
    """Wait for a child with a limit, after which its group is killed; while the machine stands still nothing counts."""
    for _ in range(round(limit_s / _POLL_S)):
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return {"code": os.waitstatus_to_exitcode(status), "hung": False}
        time.sleep(_POLL_S)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return {"code": -signal.SIGKILL, "hung": True}


def _serve(descriptor: int, heavy: bool) -> None:
    for module in (*_LIGHT, *(_HEAVY if heavy else ()), "fault_kinds"):
        importlib.import_module(module)
    # Without context managers, which a child would leave too.
    lines = os.fdopen(descriptor, "r", closefd=False)
    for line in lines:
        request = json.loads(line)
        if "wait" in request:
            answer = _waited(request["wait"], request["limit_s"])
        else:
            pid = os.fork()
            if not pid:
                # So that the free descriptors are those of a fresh start.
                os.close(descriptor)
                _child(request)
                return
            answer = {"pid": pid}
        os.write(descriptor, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2] == "heavy")
