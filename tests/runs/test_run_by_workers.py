"""Whole runs of several workers from the command line: the same bytes, and what interruptions and deaths leave."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import PIL.Image
import pytest
from calibrations import calibration_file, weights_of
from conftest import Paint
from paths import TESTS

from grounded_seg.scenes import Split, render_scene

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="processes are found below /proc")
FAKE_RUN = [sys.executable, str(TESTS / "fake_run.py"), "run", "red car"]
TWO = ["--devices", "cpu,cpu"]


@pytest.fixture
def photos(paint: Paint) -> Path:
    for number in range(12):
        paint(f"photos/{number:02}.png", red=(0, 0, 5 + number, 9))
    return paint("photos/sub/12.png", red=(5, 5, 9, 9)).parents[1]


def started(photos: Path, out: Path, *options: str, seconds: float = 0.01) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*FAKE_RUN, str(photos), "--preset", "demo", "--batch-size", "2", "-o", str(out), *options],
        env={**os.environ, "SECONDS_PER_BATCH": str(seconds), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finished(process: "subprocess.Popen[str]") -> tuple[int, str]:
    _, said = process.communicate(timeout=120)
    return process.returncode, said


def results(out: Path) -> dict[str, bytes]:
    """All files but run.json, which tells the time, and the lock."""
    files = (path for path in out.rglob("*") if path.is_file() and path.name not in ("run.json", ".lock"))
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in files}


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that a run has started."""
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process.pid}/task").iterdir():
            found += [int(pid) for pid in (thread / "children").read_text().split()]
    return found


def wait_for_lines(process: "subprocess.Popen[str]", out: Path, n_lines: int) -> None:
    end = time.monotonic() + 90
    while not (out / "results.jsonl").exists() or (out / "results.jsonl").read_bytes().count(b"\n") < n_lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end
        time.sleep(0.02)


def wait_until(is_so: Callable[[], bool]) -> None:
    end = time.monotonic() + 90
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.02)


def are_gone(pids: list[int]) -> bool:
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def whole(photos: Path, tmp_path: Path) -> dict[str, bytes]:
    """What one process leaves."""
    assert finished(started(photos, tmp_path / "whole"))[0] == 0
    return results(tmp_path / "whole")


def test_two_devices_leave_the_bytes_of_one_process(photos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    code, said = finished(started(photos, tmp_path / "out", *TWO))
    assert code == 0, said
    assert results(tmp_path / "out") == whole
    assert len(whole) == 2 + 13
    manifest = json.loads((tmp_path / "out/run.json").read_text())
    assert manifest["settings"]["devices"] == manifest["models"]["workers"] == ["cpu", "cpu"]


def test_workers_know_the_calibration(photos: Path, tmp_path: Path) -> None:
    calibration = calibration_file(tmp_path / "c.json", weights=weights_of("demo"))
    options = ("--calibration", str(calibration), "--score-threshold", "0.2", "--save", "none")
    for name, more in (("one", []), ("two", TWO)):
        code, said = finished(started(photos, tmp_path / name, *options, *more))
        assert code == 0, said
    assert results(tmp_path / "one") == results(tmp_path / "two")
    scores = {one["score"] for one in json.loads((tmp_path / "two/annotations.json").read_text())["annotations"]}
    assert scores == {0.333334}


def test_killed_workers_and_drivers_cost_nothing(photos: Path, tmp_path: Path, whole: dict[str, bytes]) -> None:
    out = tmp_path / "out"
    process = started(photos, out, *TWO, seconds=1)
    wait_for_lines(process, out, 2)
    victim = workers_of(process)[0]
    os.kill(victim, signal.SIGKILL)
    # It is a child until its death was noticed.
    wait_until(lambda: victim not in workers_of(process))
    wait_until(lambda: len(workers_of(process)) == 2)
    pids = workers_of(process)
    process.kill()
    _, said = finished(process)
    assert ") was killed by SIGKILL" in said
    assert len(pids) == 2
    assert are_gone(pids)
    # By another number of workers.
    code, said = finished(started(photos, out, "--resume"))
    assert code == 0, said
    assert results(out) == whole


def test_an_interruption_ends_all_processes_with_one_line(
    photos: Path, tmp_path: Path, whole: dict[str, bytes]
) -> None:
    out = tmp_path / "out"
    process = started(photos, out, *TWO, seconds=1)
    wait_for_lines(process, out, 2)
    pids = workers_of(process)
    # As a terminal does it: to all at once.
    os.killpg(process.pid, signal.SIGINT)
    code, said = finished(process)
    assert code == 130
    [line] = [one for one in said.splitlines() if not one.startswith(("note:", "hint:"))]
    assert line.startswith("error: interrupted; finished images are kept; to resume, run the same command")
    assert are_gone(pids)
    assert finished(started(photos, out, *TWO, "--resume"))[0] == 0
    assert results(out) == whole


def ray_run(photos: Path, out: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "grounded_seg.cli", "run", "red car; ball", str(photos), "--preset", "demo"]
    return subprocess.Popen(
        [*command, "--dtype", "float32", "--batch-size", "2", "-o", str(out), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def descendants(pid: int) -> list[int]:
    found = []
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                found += [child, *descendants(child)]
    return found


def actors_of(process: "subprocess.Popen[str]") -> list[int]:
    """The workers among what a run with Ray has started."""
    found = []
    for pid in descendants(process.pid):
        # One may end while they are looked at.
        with suppress(FileNotFoundError, ProcessLookupError):
            if b"ray::RayWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


@pytest.mark.release
def test_ray_leaves_the_bytes_of_one_process_whatever_is_killed(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray isn't installed: pip install 'grounded-seg[ray]'")
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for index in range(16):
        PIL.Image.fromarray(render_scene(Split.TEST, index).pixels).save(photos / f"{index:02}.png")
    assert finished(ray_run(photos, tmp_path / "whole", "--device", "cpu"))[0] == 0
    two = ["--engine", "ray", "--workers", "2", "--device", "cpu"]
    process = ray_run(photos, out, *two)
    wait_for_lines(process, out, 2)
    actors = actors_of(process)
    assert len(actors) == 2
    os.kill(actors[0], signal.SIGKILL)
    wait_for_lines(process, out, 4)
    # An agent of Ray's own takes more than a minute to notice that its cluster is gone.
    pids = actors_of(process)
    # Whether the actor's death was noticed before is a matter of moments; that it is told, `test_ray_actors` holds.
    process.kill()
    finished(process)
    assert are_gone(pids)
    # A fast machine has written more than was waited for.
    n_before = (out / "results.jsonl").read_bytes().count(b"\n")
    process = ray_run(photos, out, *two, "--resume")
    wait_for_lines(process, out, n_before + 2)
    pids = descendants(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    code, said = finished(process)
    assert code == 130, said
    [line] = [one for one in said.splitlines() if not one.startswith(("note:", "hint:"))]
    assert line.startswith("error: interrupted; finished images are kept")
    assert are_gone(pids)
    code, said = finished(ray_run(photos, out, *two, "--resume"))
    assert code == 0, said
    assert results(out) == results(tmp_path / "whole")


def test_wrong_combinations_are_refused(photos: Path, tmp_path: Path) -> None:
    for options, says in (
        (["--devices", "cpu", "--device", "cpu"], "--devices replaces --device cpu; leave one of them out"),
        (["--devices", "cpu", "--engine", "ray"], "with --engine ray give the number of --workers"),
        (["--workers", "2"], "--workers is for --engine ray; name the GPUs of this machine with --devices"),
        (["--devices", ","], "--devices is empty"),
    ):
        code, said = finished(started(photos, tmp_path / "out", *options))
        assert code == 2
        assert says in said
