"""The engine over several workers: deaths, restarts and their end, on a crew that is only played."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import Paint
from fakes import found_models
from worker_fakes import colour_chain, width

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.batch_worker import Answer, BatchWorker, Setup
from grounded_seg.engine.request import Outcome, Request, Work
from grounded_seg.engine.several_workers import Answered, Batch, Event, Lost, Ready, SeveralWorkers
from grounded_seg.errors import ImageError, OutputError, WeightsError, WorkerError
from grounded_seg.pipeline.load import RunsOn
from grounded_seg.settings import ModelSettings

RED = prompts_from(["red car"])
FOUND = found_models(ModelSettings(preset="demo"))


class PlayedCrew:
    """Workers whose answers are the names of their images; who dies at what is told ahead."""

    def __init__(self, n_workers: int, *, deaths: dict[str, int] | None = None, starts: Sequence[Any] = ()) -> None:
        self.n_workers = n_workers
        self.deaths = deaths or {}
        """By image: how often its worker dies."""
        self.starts = list(starts)
        """What comes of each start: an error, a death ("dies"), or all else for a worker that is ready."""
        self.held: dict[int, list[tuple[int, Batch]]] = {}
        self.events: list[Event] = []
        self.n_started, self.is_closed, self.files = 0, False, ()

    def runs_on(self, models: ModelSettings) -> RunsOn:
        raise NotImplementedError

    def set_up(self, setup: Setup[Any], first: Batch) -> None:
        self.first = first

    def begin(self) -> None:
        pass

    def start(self, worker: int) -> None:
        self.n_started += 1
        self.held[worker] = []
        what = self.starts.pop(0) if self.starts else "ready"
        if what == "ready":
            self.events.append(Ready(worker))
        else:
            self.events.append(Lost(worker, f"worker {worker} is gone", None if what == "dies" else what))

    def send(self, worker: int, number: int, batch: Batch) -> None:
        self.held[worker].append((number, batch))

    def wait(self) -> list[Event]:
        if not self.events:
            worker = max(self.held, key=lambda one: len(self.held[one]))
            # The last one first, so that order is the engine's work.
            number, batch = self.held[worker].pop()
            deadly = [one.name for one in batch if self.deaths.get(one.name, 0) > 0]
            if deadly:
                self.deaths[deadly[0]] -= 1
                self.held[worker] = []
                return [Lost(worker, f"worker {worker} was killed by SIGKILL")]
            outcomes = [Outcome(one, one.name, 0, 0, {}, 1, self.files) for one in batch if not one.is_known]
            return [Answered(worker, number, Answer(outcomes))]
        events, self.events = self.events, []
        return events

    def name(self, worker: int) -> str:
        return f"worker {worker}"

    def close(self) -> None:
        self.is_closed = True


def run(crew: PlayedCrew, n_images: int = 9, work: Work[Any] | None = None) -> tuple[list[str], BaseException | None]:
    """The names that come, and how it ends."""
    requests = [Request(index, f"{index}.png", Path(f"{index}.png"), RED) for index in range(n_images)]
    names: list[str] = []
    try:
        with SeveralWorkers(requests, work or Work(width, 2), crew) as engine:
            assert engine.read_first()
            engine.load(FOUND, colour_chain)
            for outcome in engine.outcomes():
                names.append(outcome.made)
    except Exception as error:  # noqa: BLE001  (looked at by each test)
        assert crew.is_closed
        return names, error
    assert crew.is_closed
    return names, None


ALL = [f"{index}.png" for index in range(9)]


def test_outcomes_come_in_order() -> None:
    crew = PlayedCrew(3)
    assert run(crew) == (ALL, None)
    assert [one.name for one in crew.first] == ALL[:2]
    assert crew.n_started == 3


def test_a_worker_that_dies_is_started_again_and_named(caplog: pytest.LogCaptureFixture) -> None:
    crew = PlayedCrew(2, deaths={"4.png": 1})
    assert run(crew) == (ALL, None)
    assert crew.n_started == 3
    assert "was killed by SIGKILL; its" in caplog.text


def test_an_image_that_kills_two_workers_ends_the_work_after_those_before_it() -> None:
    names, error = run(PlayedCrew(2, deaths={"4.png": 9}))
    assert names == ALL[:4]
    assert isinstance(error, WorkerError)
    assert error.exit_code == 5
    assert "killed by SIGKILL with '4.png' and 1 more, as another worker had before" in str(error)


def test_a_worker_that_cannot_start_says_why() -> None:
    names, error = run(PlayedCrew(2, starts=["ready", WeightsError("no weights")]))
    assert (names, str(error)) == ([], "no weights")
    assert isinstance(error, WeightsError)


def test_a_place_whose_workers_die_again_and_again_stays_empty(caplog: pytest.LogCaptureFixture) -> None:
    crew = PlayedCrew(2, deaths={"4.png": 1}, starts=["ready", "ready", "dies", "dies"])
    assert run(crew) == (ALL, None)
    assert crew.n_started == 4
    assert "it isn't started again" in caplog.text


def test_without_any_worker_left_the_work_ends() -> None:
    names, error = run(PlayedCrew(1, deaths={"4.png": 1}, starts=["ready", "dies", WeightsError("gone")]))
    assert len(names) % 2 == 0
    assert isinstance(error, WorkerError)
    assert str(error).startswith("no worker is left: worker 0 is gone (gone); if memory ran out")
    assert isinstance(run(PlayedCrew(1, starts=["dies", "dies", "dies"]))[1], WorkerError)


def test_an_image_that_must_be_good_is_read_before_the_workers_start() -> None:
    crew = PlayedCrew(2)
    with (
        pytest.raises(ImageError),
        SeveralWorkers([Request(0, "0.png", Path("none.png"), RED)], Work(width, skips=False), crew) as engine,
    ):
        engine.read_first()
    assert crew.n_started == 0


def test_files_that_a_worker_sends_are_written_into_the_output_folder_only(tmp_path: Path) -> None:
    crew, work = PlayedCrew(1), Work(width, 2, output=tmp_path / "out")
    crew.files = (("overlays/sub/a.jpg", b"picture"),)
    assert run(crew, work=work) == (ALL, None)
    assert (tmp_path / "out/overlays/sub/a.jpg").read_bytes() == b"picture"
    crew = PlayedCrew(1)
    crew.files = (("../a.jpg", b"picture"),)
    assert isinstance(run(crew, work=work)[1], OutputError)
    assert not (tmp_path / "a.jpg").exists()


def test_what_a_worker_says_is_said_here(caplog: pytest.LogCaptureFixture, paint: Paint) -> None:
    requests = tuple(Request(index, f"{index}.png", paint(f"{index}.png", red=(0, 0, 5, 9)), RED) for index in range(2))
    log = logging.getLogger("grounded_seg")
    worker = BatchWorker(Setup(Work(width, 2), FOUND, colour_chain, logging.INFO))
    answer = worker.answer(requests)
    log.handlers, log.propagate = [], True
    assert [one.made for one in answer.outcomes] == [("0.png", 5), ("1.png", 5)]
    engine = SeveralWorkers(requests, Work(width, 2), PlayedCrew(1))
    engine._tell(0, answer)
    assert {one.getMessage() for one in caplog.records} == {"worker 0: 0.png is seen", "worker 0: 1.png is seen"}
