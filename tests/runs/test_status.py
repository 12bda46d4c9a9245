"""How far runs are: counted from the journal while it is written, for one run or for shards."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from conftest import Paint
from fakes import ColourDetector, Silent
from filelock import FileLock
from paths import TESTS

import grounded_seg
from grounded_seg.cli import main
from grounded_seg.coco.schema import JournalLine
from grounded_seg.coco.write import journal_line
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.errors import ImageAccessError, InputError
from grounded_seg.files import Lock, is_locked
from grounded_seg.records import ImageSkipped
from grounded_seg.runs import journal as journals
from grounded_seg.runs import status as statuses
from grounded_seg.runs.journal import Journal, JournalCounts, count_lines
from grounded_seg.runs.manifest import Counts
from grounded_seg.runs.run import run_images
from grounded_seg.runs.status import RunState, RunStatus, status_of
from grounded_seg.settings import RunSettings

RED = prompts_from(["red car"])
N_IMAGES = 10


@pytest.fixture
def photos(paint: Paint) -> Path:
    for number in range(N_IMAGES - 1):
        folder = paint(f"photos/{number}.png", red=(0, 0, 5 + number, 9)).parent
    (folder / "5-damaged.png").write_bytes(b"")
    return folder


class Watched(Silent):
    """Asks for the status of its own run at each image, and ends it after so many."""

    def __init__(self, output: Path, n_images: int = 100) -> None:
        self.output, self.n_left = output, n_images
        self.seen: list[RunStatus] = []

    def finished_image(self, line: JournalLine) -> None:
        self.seen += status_of([self.output]).runs
        self.n_left -= 1
        if not self.n_left:
            raise KeyboardInterrupt


def run(photos: Path, output: Path, watcher: Silent | None = None, **settings: Any) -> Path:
    run_images(RED, [photos], RunSettings(output, save=frozenset(), **settings), watcher or Silent())
    return output


def command(*words: object) -> Result:
    return CliRunner().invoke(main, ["status", *map(str, words)])


def test_a_run_is_told_while_it_runs(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    watcher = Watched(tmp_path / "out")
    run(photos, tmp_path / "out", watcher)
    seen = watcher.seen
    assert [one.done + one.skipped for one in seen] == list(range(1, N_IMAGES + 1))
    assert [one.left for one in seen] == list(range(N_IMAGES - 1, -1, -1))
    assert {(one.state, one.images) for one in seen} == {(RunState.RUNNING, N_IMAGES)}
    assert seen[-1].skipped == 1
    for one in seen:
        assert one.images_per_s is not None
        assert one.left is not None
        assert one.time_left_s == pytest.approx(one.left / one.images_per_s)
        assert one.idle_s is not None
        assert one.idle_s < 60


def test_a_finished_run_is_told(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    found = status_of([run(photos, tmp_path / "out")])
    [one] = found.runs
    assert (one.state, one.done, one.skipped, one.left) == (RunState.FINISHED, N_IMAGES - 1, 1, 0)
    assert (one.time_left_s, one.idle_s, one.shard) == (None, None, None)
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    seconds = manifest["seconds"]["total"] - manifest["seconds"]["load"]
    assert one.images_per_s == pytest.approx(N_IMAGES / seconds)
    assert (found.images, found.left, found.images_per_s, found.missing_shards) == (N_IMAGES, 0, None, ())


def test_a_stopped_run_is_told_and_resumed(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "out", Watched(tmp_path / "out", 4))
    # What a process left that was killed in the middle of a line.
    (tmp_path / "out" / ".lock").touch()
    with (tmp_path / "out" / "results.jsonl").open("ab") as journal:
        journal.write(b'{"file_name": "9.png", "status": "skipped", ')
    [one] = status_of([tmp_path / "out"]).runs
    assert (one.state, one.done, one.skipped, one.left) == (RunState.STOPPED, 4, 0, N_IMAGES - 4)
    assert one.time_left_s is None
    watcher = Watched(tmp_path / "out")
    run(photos, tmp_path / "out", watcher, resume=True)
    assert [one.done + one.skipped for one in watcher.seen] == list(range(5, N_IMAGES + 1))
    # The rate is that since it was resumed.
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["started"]["images"] == 4
    [one] = status_of([tmp_path / "out"]).runs
    seconds = manifest["seconds"]["total"] - manifest["seconds"]["load"]
    assert one.images_per_s == pytest.approx((N_IMAGES - 4) / seconds)


def test_the_rate_is_that_since_the_start(
    detector: ColourDetector, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = run(photos, tmp_path / "out")
    manifest = json.loads((output / "run.json").read_text())
    began = datetime.now(UTC) - timedelta(seconds=100)
    started = {"time": began.isoformat(), "images": 4}
    manifest |= {"exit_code": None, "counts": None, "seconds": None, "started": started}
    (output / "run.json").write_text(json.dumps(manifest))
    os.utime(output / "results.jsonl", times=(began.timestamp() + 30,) * 2)
    # Stopped 30 s after its start, after six more images; while it runs, the time goes on.
    [stopped] = status_of([output]).runs
    assert (stopped.images_per_s, stopped.idle_s) == (pytest.approx(6 / 30), None)
    monkeypatch.setattr(statuses, "is_locked", lambda path: True)
    [running] = status_of([output]).runs
    assert running.images_per_s == pytest.approx(6 / 100, rel=0.2)
    assert running.idle_s == pytest.approx(70, rel=0.2)
    monkeypatch.setattr(statuses, "is_locked", lambda path: None)
    [unknown] = status_of([output]).runs
    assert unknown.state is RunState.UNFINISHED
    del manifest["started"]
    (output / "run.json").write_text(json.dumps(manifest))
    assert status_of([output]).runs[0].images_per_s is None


def test_shards_are_told_together(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    for number in (2, 10, 4):
        run(photos, tmp_path / f"shard-{number}", shard=f"{number}/10")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "two-1", Watched(tmp_path / "two-1", 2), shard="1/2")
    found = status_of([tmp_path / "shard-*"])
    assert [one.shard for one in found.runs] == ["2/10", "4/10", "10/10"]
    assert (found.images, found.done, found.left) == (N_IMAGES, 3, N_IMAGES - 3)
    assert found.missing_shards == (1, 3, 5, 6, 7, 8, 9)
    both = status_of([tmp_path / "shard-*", tmp_path / "two-1"])
    # Shards of different cuts are just runs.
    assert (both.images, both.done, both.left, both.missing_shards) == (8, 5, 3, ())
    assert [one.state for one in both.runs] == ["finished"] * 3 + ["stopped"]


def test_what_is_out_of_reach_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    gone = ImageSkipped(Path("a"), '"status": "skipped" "error": "ImageAccessError"', ImageAccessError.__name__)
    broken = ImageSkipped(Path("b"), 'it says "status": "skipped"', "ImageError")
    with Journal(path) as journal:
        journal.make()
        for one in (gone, broken, broken, gone, gone):
            journal.append(journal_line('"status": "skipped".png', one))
    assert count_lines(path) == JournalCounts(5, 5, 3)
    assert count_lines(tmp_path / "none") == JournalCounts(0, 0, 0)
    with pytest.raises(InputError, match="can't be read"):
        count_lines(tmp_path)


@pytest.mark.parametrize("n_bytes", [1, 2, 3, 7, 64, 200, 1000])
def test_blocks_cut_nothing_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    path = tmp_path / "results.jsonl"
    lines = [journal_line(f"{n}.png", ImageSkipped(Path("a"), "r" * n, ImageAccessError.__name__)) for n in range(9)]
    with Journal(path) as journal:
        journal.make()
        for line in lines:
            journal.append(line)
    with path.open("ab") as file:
        file.write(b'{"file_name": "x", "status": "skipped"')
    monkeypatch.setattr(journals, "_BLOCK_BYTES", n_bytes)
    assert count_lines(path) == JournalCounts(9, 9, 9)


def test_a_lock_is_asked_about_without_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lock"
    assert is_locked(path) is False
    assert not path.exists()
    lock = Lock(path, "in use")
    assert is_locked(path) is True
    lock.release()
    path.touch()
    assert is_locked(path) is False
    # A run that starts while it is asked about waits.
    asked = FileLock(path)
    asked.acquire()
    monkeypatch.setattr(time, "sleep", lambda _: asked.release())
    Lock(path, "in use").release()

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError

    path.touch()
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert is_locked(path) is None


def test_the_command_shows_a_table(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    run(photos, tmp_path / "shard-1", shard="1/3")
    with pytest.raises(KeyboardInterrupt):
        run(photos, tmp_path / "shard-3", Watched(tmp_path / "shard-3", 2), shard="3/3")
    result = command(tmp_path / "shard-*")
    assert (result.exit_code, result.stderr) == (0, "")
    head, first, third, total, missing = result.stdout.splitlines()
    assert head.split() == ["run", "state", "done", "skipped", "left", "images/s", "time", "left"]
    assert first.split()[:5] == [str(tmp_path / "shard-1"), "finished", "3", "0", "0"]
    assert third.split()[:5] == [str(tmp_path / "shard-3"), "stopped", "2", "0", "2"]
    assert total.split()[:8] == ["total", "1", "stopped,", "1", "finished", "5", "0", "5"]
    assert missing == "not among these: shard 2/3"
    told = json.loads(command(tmp_path / "shard-*", "--json").stdout)
    assert told == grounded_seg.run_status(tmp_path / "shard-*").as_json()
    assert (told["total"]["left"], told["total"]["missing_shards"]) == (5, [2])
    assert [one["state"] for one in told["runs"]] == ["finished", "stopped"]


def test_one_run_has_no_total(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    assert len(command(run(photos, tmp_path / "out")).stdout.splitlines()) == 2
    manifest = json.loads((tmp_path / "out" / "run.json").read_text())
    assert manifest["counts"]["out_of_reach"] == 0
    # As a run that finished, and one that didn't: of a finished one the journal isn't read.
    journal = tmp_path / "out" / "results.jsonl"
    text = journal.read_text().replace('"ImageError"', '"ImageAccessError"')
    counts = Counts()
    for line in text.splitlines():
        counts.add_line(json.loads(line))
    journal.write_text("")
    (tmp_path / "out" / "run.json").write_text(json.dumps({**manifest, "counts": counts.as_json()}))
    assert command(tmp_path / "out").stdout.splitlines()[-1].startswith("out of reach when they were read: 1 of")
    journal.write_text(text)
    (tmp_path / "out" / "run.json").write_text(json.dumps({**manifest, "exit_code": None, "counts": None}))
    assert command(tmp_path / "out").stdout.splitlines()[-1].startswith("out of reach when they were read: 1 of")


def test_what_is_no_run_is_one_line(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    for words, complaint in (
        ([tmp_path / "none"], f"no run is at {tmp_path / 'none'}; check the path, or wait until its models are loaded"),
        ([tmp_path / "none-*"], f"no folder of a run matches '{tmp_path / 'none-*'}'; check the pattern"),
        ([run(photos, tmp_path / "out"), photos], f"{photos / 'run.json'} can't be read (No such file or directory)"),
    ):
        result = command(*words)
        assert (result.exit_code, result.stdout) == (3, "")
        [line] = result.stderr.splitlines()
        assert line.startswith(f"error: {complaint}")
    (tmp_path / "out" / "run.json").write_text('{"images": {}}')
    assert "isn't that of a run" in command(tmp_path / "out").stderr
    assert command().exit_code == 2


def test_a_run_that_still_clears_its_folder_is_running(tmp_path: Path) -> None:
    with Journal(tmp_path / "results.jsonl") as journal:
        journal.make()
        [one] = status_of([tmp_path]).runs
        assert (one.state, one.images, one.left, one.done) == (RunState.RUNNING, None, None, 0)
        assert "?" in command(tmp_path).stdout
    assert status_of([tmp_path]).runs[0].state is RunState.STOPPED


def test_another_process_is_seen_and_not_held_up(photos: Path, tmp_path: Path) -> None:
    """A run of its own process, asked about all the time; killed in the end."""
    output = tmp_path / "out"
    words = [sys.executable, str(TESTS / "fake_run.py"), "run", "red car", str(photos), "-o", str(output)]
    process = subprocess.Popen(words, env={**os.environ, "SECONDS_PER_BATCH": "0.3"}, stderr=subprocess.DEVNULL)
    try:
        seen: list[RunStatus] = []
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (not seen or seen[-1].done < 3):
            time.sleep(0.02)
            if (output / "results.jsonl").exists():
                seen += status_of([output]).runs
    finally:
        process.kill()
        process.wait()
    assert {one.state for one in seen} == {RunState.RUNNING}
    assert len({one.done for one in seen}) > 2
    [after] = status_of([output]).runs
    assert after == replace(seen[-1], state=RunState.STOPPED, images_per_s=after.images_per_s, time_left_s=None,
                            idle_s=None, done=after.done, left=after.left)  # fmt: skip
    assert after.left == N_IMAGES - after.done
