"""Give a reader many inputs, and write down what escapes.

    python tests/fuzz_run.py --minutes 60 [--only NAME] [--inputs 10000] [--processes N]

prints a table of the inputs tried per reader, and keeps each input that escaped in `.cache/fuzz`; exit code 1 if any
did. One process for each core gives them, in slices. Readers of JSON begin with each hostile value in each place of
their good files, beside the inputs that all have drawn. An escape is an exception that isn't ours, more than 5 s, or
500 MB more memory than before.
"""

import argparse
import hashlib
import logging
import multiprocessing
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path

from fuzz_inputs import one_hostile_each
from fuzz_readers import LIGHT, JsonInputs, Reader
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as seeded

from grounded_seg.errors import GroundedSegError

LIMIT_S, WAIT_S, LIMIT_KB = 5.0, 60.0, 500_000
_SLICE = 250


class TooSlowError(BaseException):
    """An input that keeps a reader busy; no `Exception`, so that none of them catches it."""


@dataclass(frozen=True)
class Escape:
    """An input that a reader has no answer to."""

    reader: str
    kind: str
    """Class of the exception."""
    where: str
    """Line of the package that it came through."""
    content: bytes = field(repr=False)


@dataclass
class Tried:
    """What came of a reader's inputs."""

    n: int = 0
    n_refused: int = 0
    seconds: float = 0.0
    escapes: dict[tuple[str, str], Escape] = field(default_factory=dict)
    """One of each kind, by class and line."""

    def add(self, more: "Tried") -> None:
        """Add what came of more inputs."""
        self.n += more.n
        self.n_refused += more.n_refused
        self.seconds += more.seconds
        self.escapes = more.escapes | self.escapes


@contextmanager
def _limited() -> Iterator[None]:
    def too_slow(*_: object) -> None:
        raise TooSlowError

    # Time of the processor, whatever else the machine does; and much of the clock's, for what waits for something.
    limits = ((signal.SIGPROF, signal.ITIMER_PROF, LIMIT_S), (signal.SIGALRM, signal.ITIMER_REAL, WAIT_S))
    before = [signal.signal(number, too_slow) for number, _, _ in limits]
    for _, timer, seconds in limits:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(limits, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)


def _line_of(error: BaseException) -> str:
    frames = [one for one in traceback.extract_tb(error.__traceback__) if "grounded_seg" in one.filename]
    last = frames[-1] if frames else traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def try_once(reader: Reader, folder: Path, content: bytes, tried: Tried) -> None:
    """Give a reader one input."""
    path = folder / reader.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    tried.n += 1
    peak_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    escaped: BaseException | None = None
    try:
        with _limited():
            reader.read(folder)
    except GroundedSegError as error:
        tried.n_refused += 1
        if not str(error):
            escaped = error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  (whatever it is, it is what we look for: a panic is no Exception)
        escaped = error
    if escaped is not None:
        kind, where = type(escaped).__name__, _line_of(escaped)
        tried.escapes.setdefault((kind, where), Escape(reader.name, kind, where, content))
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kb > LIMIT_KB:
        tried.escapes.setdefault(("memory", ""), Escape(reader.name, "memory", "", content))


@contextmanager
def quiet() -> Iterator[None]:
    """Without warnings and the log, which the command line handles."""
    log = logging.getLogger("grounded_seg")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)


def try_many(reader: Reader, folder: Path, n: int, seed: int, tried: Tried, kept: Path | None = None) -> None:
    """Give a reader `n` inputs that Hypothesis draws, and write them into a folder if one is given."""
    folder.mkdir(parents=True, exist_ok=True)

    @seeded(seed)
    @settings(
        max_examples=n,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(reader.inputs())
    def give(content: bytes) -> None:
        if kept is not None:
            (kept / hashlib.sha256(content).hexdigest()[:16]).write_bytes(content)
        try_once(reader, folder, content, tried)

    started = time.monotonic()
    with quiet():
        reader.prepare(folder)
        give()
    tried.seconds += time.monotonic() - started


def table(tried: dict[str, Tried]) -> str:
    """A row for each reader: inputs tried, refused, milliseconds an input, escapes."""
    lines = [f"{'reader':32} {'inputs':>8} {'refused':>8} {'ms each':>8} {'escapes':>8}"]
    for name, one in tried.items():
        each_ms = 1000 * one.seconds / max(1, one.n)
        lines.append(f"{name:32} {one.n:8} {one.n_refused:8} {each_ms:8.1f} {len(one.escapes):8}")
    n, n_escapes = sum(one.n for one in tried.values()), sum(len(one.escapes) for one in tried.values())
    return "\n".join([*lines, f"{len(tried)} readers, {n} inputs, {n_escapes} kinds of escapes"])


def keep(escapes: Sequence[Escape], folder: Path) -> None:
    """Write inputs that escaped into a folder, and print where."""
    for one in escapes:
        name = (
            f"{one.reader.replace(' ', '-').replace('/', '-')}-{one.kind}-{hashlib.sha256(one.content).hexdigest()[:8]}"
        )
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(one.content)
        print(f"escaped: {one.reader}: {one.kind} at {one.where}: {folder / name}", flush=True)


@cache
def _readers() -> dict[str, Reader]:
    from fuzz_torch_readers import TORCH

    return {one.name: one for one in (*LIGHT, *TORCH)}


def _slice(name: str, n: int, seed: int) -> Tried:
    """A few inputs for one reader, in a process of the pool."""
    tried = Tried()
    with tempfile.TemporaryDirectory() as folder:
        try_many(_readers()[name], Path(folder), n, seed, tried)
    return tried


def try_edits(reader: Reader, folder: Path, edited: Callable[[str], Iterator[bytes]]) -> Tried:
    """Give a reader of JSON what `edited` makes of each of its good documents."""
    tried, started = Tried(), time.monotonic()
    with quiet():
        reader.prepare(folder)
        for text in reader.inputs.documents():  # type: ignore[attr-defined]
            for content in edited(text):
                try_once(reader, folder, content, tried)
    tried.seconds = time.monotonic() - started
    return tried


def _each_in_turn(name: str) -> Tried:
    """All hostile values for one reader of JSON, in a process of the pool."""
    with tempfile.TemporaryDirectory() as folder:
        return try_edits(_readers()[name], Path(folder), one_hostile_each)


def _turns(names: Sequence[str], n_each: int, seed: int) -> Iterator[tuple[str, int, int]]:
    """Slices of all readers in turns; the slow ones get fewer inputs, so about the same share of the time."""
    left = dict.fromkeys(names, n_each) if n_each else {}
    while left:
        for name in list(left):
            n = min(_SLICE // 10 if _readers()[name].is_slow else _SLICE, left[name])
            seed += 1
            yield name, n, seed
            left[name] -= n
            if not left[name]:
                del left[name]


def fuzz(names: Sequence[str], minutes: float, n_each: int, seed: int, n_processes: int) -> dict[str, Tried]:
    """Give readers inputs in turns, until the time is over or each had `n_each`."""
    end = time.monotonic() + 60 * minutes
    tried = {name: Tried() for name in names}
    turns = _turns(names, n_each, seed)
    first = [name for name in names if isinstance(_readers()[name].inputs, JsonInputs)]
    work = chain(((name, (_each_in_turn, name)) for name in first), ((turn[0], (_slice, *turn)) for turn in turns))
    running: dict[Future[Tried], str] = {}
    # A pool's processes are started anew: torch's threads don't survive a fork.
    with ProcessPoolExecutor(n_processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        while True:
            while len(running) < n_processes and time.monotonic() < end and (one := next(work, None)):
                running[pool.submit(*one[1])] = one[0]
            if not running:
                return tried
            for done in wait(running, return_when=FIRST_COMPLETED).done:
                tried[running.pop(done)].add(done.result())


def main() -> int:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--minutes", type=float, default=60)
    options.add_argument("--inputs", type=int, default=10_000, help="at most so many for each reader")
    options.add_argument("--only", help="readers whose names have this in them")
    options.add_argument("--seed", type=int, help="at random if not given")
    options.add_argument("--keep", type=Path, default=Path(".cache/fuzz"), help="folder for inputs that escaped")
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    chosen = options.parse_args()
    names = [name for name in _readers() if not chosen.only or chosen.only in name]
    seed = random.randrange(1 << 32) if chosen.seed is None else chosen.seed  # noqa: S311
    print(f"{len(names)} readers, {chosen.minutes:g} minutes, {chosen.processes} processes, --seed {seed}", flush=True)
    tried = fuzz(names, chosen.minutes, chosen.inputs, seed, chosen.processes)
    print(table(tried))
    escapes = [escape for one in tried.values() for escape in one.escapes.values()]
    keep(escapes, chosen.keep)
    return int(bool(escapes))


if __name__ == "__main__":
    sys.exit(main())
