"""Workers in processes of this machine: the same outcomes, kills, and ends."""

import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Paint
from worker_fakes import colour_chain, fails_at_3, found_at, no_chain, threads, unpicklable, width
from worker_fakes import width_or_death as dies

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine.executors import open_engine
from grounded_seg.engine.request import Request, Work
from grounded_seg.errors import DeviceError, UsageError, WeightsError, WorkerError
from grounded_seg.settings import ModelSettings

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="processes get their pipe as POSIX has it")
RED = prompts_from(["red car"])


@pytest.fixture
def requests(paint: Paint) -> list[Request]:
    """Seven images with a red thing of growing width, the fifth of which can't be read."""
    paths = [paint(f"{number}.png", red=(0, 0, 5 + number, 9)) for number in range(7)]
    paths[4].write_bytes(b"")
    return [Request(index, path.name, path, RED) for index, path in enumerate(paths)]


def run(
    requests: list[Request],
    work: Work[Any],
    tmp_path: Path,
    *devices: str,
    load: Callable[..., Any] = colour_chain,
    n_threads: int = 1,
) -> tuple[list[Any], BaseException | None]:
    """What is made of the images, and how it ends."""
    made: list[Any] = []
    try:
        with open_engine(requests, work, devices=devices or None) as engine:
            engine.read_first()
            engine.load(found_at(tmp_path / "weights", n_threads), load)
            for outcome in engine.outcomes():
                made.append(outcome.made)
    except Exception as error:  # noqa: BLE001  (looked at by each test)
        return made, error
    return made, None


def test_two_processes_give_what_one_gives(requests: list[Request], tmp_path: Path) -> None:
    expected = run(requests, Work(width, 2), tmp_path)
    assert [made for _, made in expected[0]] == [5, 6, 7, 8, "ImageError", 10, 11]
    assert run(requests, Work(width, 2), tmp_path, "cpu", "cpu") == expected


def test_a_killed_worker_is_named_and_its_images_are_asked_again(
    requests: list[Request], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = set(threading.enumerate())
    expected = run(requests, Work(width, 2), tmp_path)
    once = partial(dies, name="3.png", mark=tmp_path / "mark")
    assert run(requests, Work(once, 2), tmp_path, "cpu", "cpu") == expected
    assert (tmp_path / "mark").exists()
    assert "the worker on cpu (process " in caplog.text
    assert ") was killed by SIGKILL; its " in caplog.text
    assert set(threading.enumerate()) <= before


def test_an_image_that_kills_twice_ends_the_work_after_those_before(requests: list[Request], tmp_path: Path) -> None:
    made, error = run(requests, Work(partial(dies, name="3.png", mark=None), 2), tmp_path, "cpu")
    assert [name for name, _ in made] == ["0.png", "1.png"]
    assert isinstance(error, WorkerError)
    assert "was killed by SIGKILL with '2.png' and 1 more" in str(error)


@pytest.mark.parametrize(
    ("per_image", "says", "n_made"),
    [(fails_at_3, "LookupError: of its own kind", 3), (unpicklable, "Can't pickle", 0)],
)
def test_what_fails_in_a_worker_fails_here(
    requests: list[Request], tmp_path: Path, per_image: Callable[..., Any], says: str, n_made: int
) -> None:
    made, error = run(requests, Work(per_image, 2), tmp_path, "cpu")
    assert len(made) == n_made
    assert isinstance(error, RuntimeError)
    assert says in str(error) or "local object" in str(error)
    assert "Traceback" in error.__notes__[0]


def test_models_that_cannot_be_loaded_say_so(requests: list[Request], tmp_path: Path) -> None:
    _, error = run(requests, Work(width, 2), tmp_path, "cpu", load=no_chain)
    assert isinstance(error, WeightsError)
    assert str(error) == "no weights for cpu; look elsewhere"


def test_each_worker_has_the_threads_of_the_run(requests: list[Request], tmp_path: Path) -> None:
    n_threads = 3
    assert run(requests[:2], Work(threads, 2), tmp_path, "cpu", n_threads=n_threads) == ([n_threads] * 2, None)


def test_devices_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(UsageError, match="name each device, as in cuda:0,cuda:1, or give all alone"):
        open_engine([], Work(width), devices=("cpu", "all"))
    with pytest.raises(DeviceError, match="device cuda:77 isn't available"):
        open_engine([], Work(width), devices=("cpu", "cuda:77"))


def test_all_devices_without_a_card_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounded_seg.device.choose._available_devices", lambda: ["cpu"])
    with pytest.raises(DeviceError, match="means all CUDA devices, and this machine has none; leave it out"):
        open_engine([], Work(width), devices=("all",))


def test_more_threads_than_cores_are_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr("grounded_seg.device.choose.n_threads", lambda: 2)
    models = ModelSettings(preset="demo", dtype="float32")  # type: ignore[arg-type]
    with open_engine([], Work(width), devices=("cpu", "cpu")) as engine:
        runs_on = engine.runs_on(models)
    assert runs_on is not None
    assert runs_on.workers == ("cpu", "cpu")
    assert "2 processes of 2 threads each share 2 cores; OMP_NUM_THREADS=1 is faster" in caplog.text
