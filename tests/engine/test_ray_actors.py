"""Workers of a real Ray on this machine: the same outcomes, kills, proofs, and files that are sent."""

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Paint
from worker_fakes import colour_chain, found_at, width, width_and_file
from worker_fakes import width_or_death as dies

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.engine import proofs, ray_actors, several_workers
from grounded_seg.engine.executors import open_engine
from grounded_seg.engine.request import Request, Work
from grounded_seg.errors import DeviceError, InputError, UsageError, WeightsError
from grounded_seg.settings import EngineKind, ModelSettings

RED = prompts_from(["red car"])
MODELS = ModelSettings(preset="demo", device="cpu", dtype="float32")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One cluster for all tests: it takes seconds to start."""
    ray = pytest.importorskip("ray", reason="Ray isn't installed: pip install 'grounded-seg[ray]'")
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)
    ray_actors._connected()
    yield
    ray.shutdown()


@pytest.fixture
def requests(paint: Paint, cluster: None) -> list[Request]:
    """Five images with a red thing of growing width, the first of which can't be read."""
    paths = [paint(f"{number}.png", red=(0, 0, 5 + number, 9)) for number in range(5)]
    paths[0].write_bytes(b"")
    return [Request(index, path.name, path, RED) for index, path in enumerate(paths)]


def run(
    requests: list[Request], work: Work[Any], tmp_path: Path, spoil: Callable[[], object] = lambda: None
) -> list[Any]:
    made = []
    with open_engine(requests, work, EngineKind.RAY, n_workers=1) as engine:
        engine.read_first()
        runs_on = engine.runs_on(MODELS)
        assert runs_on is not None
        assert (runs_on.device, runs_on.dtype, runs_on.workers) == ("cpu", "float32", ("cpu",))
        found = found_at(tmp_path / "weights")
        spoil()
        engine.load(found, colour_chain)
        for outcome in engine.outcomes():
            made.append(outcome.made)
    return made


EXPECTED = [("0.png", "ImageError"), ("1.png", 6), ("2.png", 7), ("3.png", 8), ("4.png", 9)]


def test_an_actor_that_is_killed_costs_nothing(
    requests: list[Request], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    once = partial(dies, name="3.png", mark=tmp_path / "mark")
    assert run(requests, Work(once, 2), tmp_path) == EXPECTED
    assert (tmp_path / "mark").exists()
    assert "Ray worker 1 died (" in caplog.text


def test_files_are_sent_where_the_output_folder_is_out_of_reach(
    requests: list[Request], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, unseen = tmp_path / "seen", tmp_path / "unseen"
    n_sent: list[int] = []
    write = several_workers._write
    monkeypatch.setattr(several_workers, "_write", lambda one, to: (n_sent.append(len(one.files)), write(one, to))[1])
    for folder in (seen, unseen):
        folder.mkdir()
    assert run(requests, Work(width_and_file, 2, output=seen), tmp_path) == EXPECTED
    assert n_sent == [0] * 5
    # The worker looks for another proof than the driver has written.
    monkeypatch.setattr(ray_actors, "PROOF_FILE", ".elsewhere")
    assert run(requests, Work(width_and_file, 2, output=unseen), tmp_path) == EXPECTED
    assert n_sent == [0] * 5 + [1] * 5
    names = [f"sub/{number}.png.txt" for number in range(5)]
    for folder in (seen, unseen):
        found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file()]
        assert found == names
    assert (unseen / names[1]).read_text() == "6.0"


def test_a_worker_that_sees_other_files_is_refused(requests: list[Request], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"sees other weights in .*weights; give all nodes the same"):
        run(requests, Work(width, 2), tmp_path, spoil=lambda: (tmp_path / "weights").write_bytes(b"other"))
    proof = proofs.Proof(str(tmp_path), requests[1], "40 x 30 px, sha256 0", MODELS, None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"sees other pixels in .*1.png; give all nodes the same images at the same"):
        proofs.check_images(proof, Work(width, 2))
    requests[1].path.unlink()
    with pytest.raises(InputError, match="doesn't see"):
        proofs.check_images(proof, Work(width, 2))


def test_more_workers_than_cards_are_refused(cluster: None) -> None:
    with (
        pytest.raises(DeviceError, match="has 0 GPUs, and --workers is 2; give fewer, or --device cpu"),
        open_engine([], Work(width), EngineKind.RAY, n_workers=2) as engine,
    ):
        engine.runs_on(ModelSettings(preset="demo", device="cuda"))


def test_without_ray_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        UsageError, match=r"--engine ray needs Ray; install it with `pip install 'grounded-seg\[ray\]'`"
    ):
        open_engine([], Work(width), EngineKind.RAY)
