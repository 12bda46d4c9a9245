"""What tells how far work has come: a bar on a terminal, a line a minute elsewhere, nothing with `--quiet`."""

import gc
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import Paint
from fakes import ColourDetector
from tiny_florence import save_tiny_florence
from train_cases import write_coco

from grounded_seg.cli import main
from grounded_seg.cli.progress import StatusLines, WorkDisplay
from grounded_seg.cli.run_display import RunDisplay
from grounded_seg.runs.manifest import Counts


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()


def test_a_line_a_minute(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = StatusLines(on=True, clock=clock)
    for second in range(151):
        clock.now_s = 1000.0 + second
        # 10 were done by an earlier run.
        lines.show("images", 10 + 2 * second, 400, "3 found")
    assert shown(capsys) == [
        "status: 130 of 400 images, 270 left, 2 per second, 3 found",
        "status: 250 of 400 images, 150 left, 2 per second, 3 found",
    ]


def test_another_kind_of_work_has_its_own_rate_and_no_earlier_line(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = StatusLines(on=True, clock=clock)
    lines.show("steps", 0, 10)
    clock.now_s += 50
    lines.show("steps", 5, 10)
    lines.show("MB fetched", 0, None)
    clock.now_s += 9
    lines.show("MB fetched", 90, None)
    assert shown(capsys) == []
    clock.now_s += 1
    lines.show("MB fetched", 100, None)
    clock.now_s += 60
    # The same work over again, as when a second model is measured.
    lines.show("MB fetched", 0, None)
    assert shown(capsys) == ["status: 100 MB fetched, 10 per second", "status: 0 MB fetched"]


@pytest.mark.parametrize(
    ("n_done", "rate"), [(1, "0.017"), (90, "1.5"), (595, "9.9"), (600, "10"), (19_800, "330"), (740_000, "12333")]
)
def test_a_rate_is_a_plain_number(n_done: int, rate: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    lines = StatusLines(on=True, clock=clock)
    lines.show("images", 0, None)
    clock.now_s += 60
    lines.show("images", n_done, None)
    assert shown(capsys) == [f"status: {n_done} images, {rate} per second"]


@pytest.mark.parametrize(("quiet", "on_terminal"), [(False, False), (True, False), (False, True), (True, True)])
def test_bar_or_lines_or_nothing(
    quiet: bool, on_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    monkeypatch.setenv("TERM", "xterm")
    clock = Clock()
    with WorkDisplay(quiet=quiet, clock=clock) as display:
        show = display.of("steps")
        show(0, 4)
        clock.now_s += 61
        show(2, 4)
        display._bar.refresh()
        display.clear()
        show(4, 4)
    told = "\n".join(shown(capsys))
    assert ("status: 2 of 4 steps" in told) == (not quiet and not on_terminal)
    assert ("2/4" in told) == (not quiet and on_terminal)


def status_of(*words: Any) -> list[str]:
    """The status lines of a command where every line is a minute late; without, there is no other line."""
    quiet = CliRunner().invoke(main, [*map(str, words), "--quiet"])
    assert (quiet.exit_code, quiet.stderr) == (0, ""), quiet.output
    told = CliRunner().invoke(main, [str(word).replace("OUT", "again") for word in words])
    assert told.exit_code == 0, told.output
    assert told.stdout
    lines = told.stderr.splitlines()
    assert all(line.startswith("status: ") for line in lines)
    return [line.removeprefix("status: ") for line in lines]


@pytest.fixture
def _every_line_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounded_seg.cli.progress._EVERY_S", 0.0)


@pytest.mark.usefixtures("_every_line_is_due")
def test_images_are_told(detector: ColourDetector, paint: Paint, scenes: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        paint(f"{folder}/1.png", red=(2, 3, 12, 9))
        paint(f"{folder}/2.png")
        lines = status_of("run", "red car", tmp_path / folder, "-o", tmp_path / f"OUT-{folder}")
        assert lines[0].startswith("0 of 2 images, 2 left")
        assert lines[-1].startswith("2 of 2 images, 0 left, ")
        assert lines[-1].endswith(" per second, 1 found, 0 skipped")
    runs = [tmp_path / "OUT-a", tmp_path / "OUT-b"]
    whole = CliRunner().invoke(main, ["merge-runs", *map(str, runs), "-o", str(tmp_path / "merged"), "--quiet"])
    assert (whole.exit_code, whole.stderr) == (0, "")
    merged = CliRunner().invoke(main, ["merge-runs", *map(str, runs), "-o", str(tmp_path / "merged-again")])
    assert [line.partition(",")[0] for line in merged.stderr.splitlines()] == [
        f"status: {number} of 4 images" for number in (1, 2, 3, 4)
    ]
    exported = status_of("export", tmp_path / "merged", "--to", "yolo", "-o", tmp_path / "OUT")
    assert [line.partition(",")[0] for line in exported] == [f"{number} of 4 images" for number in (1, 2, 3, 4)]
    measured = status_of("eval", scenes, "--images", scenes.parent / "images")
    assert measured[-1].startswith("3 of 3 images, 0 left, ")


@pytest.mark.usefixtures("_every_line_is_due")
def test_all_that_a_training_does_is_told(tmp_path: Path) -> None:
    base, data = save_tiny_florence(tmp_path / "base"), write_coco(tmp_path / "data").parent
    words = ("train", data, "--detector", base, "--device", "cpu", "--batch-size", "4", "--split", "60/20/20")
    lines = status_of(*words, "--max-steps", "2", "-o", tmp_path / "OUT")
    counted = [line.partition(",")[0].partition(" of ")[2] for line in lines]
    assert list(dict.fromkeys(counted)) == [
        "6 images checked",
        "2 steps",
        "1 validation batches",
        "1 validation images",
        "1 test images",
    ]
    [_, last] = [line for line in lines if " of 2 steps, " in line]
    assert last.startswith("2 of 2 steps, 0 left, ")
    assert " per second, loss " in last


def test_no_garbage_is_looked_for_before_the_images_begin() -> None:
    display, n_frozen = RunDisplay(json_lines=True, quiet=True), gc.get_freeze_count()
    try:
        with display:
            assert not gc.isenabled()
            display.fetching(1, None)
            assert gc.isenabled()
            gc.disable()
            display.started(1, Counts())
            assert gc.isenabled()
            assert gc.get_freeze_count() > n_frozen
        with pytest.raises(KeyError), RunDisplay(json_lines=True, quiet=True):
            raise KeyError
        assert gc.isenabled()
    finally:
        gc.unfreeze()


def test_a_command_sets_nothing_aside_for_longer_than_it_runs() -> None:
    gc.freeze()
    CliRunner().invoke(main, ["--version"])
    assert gc.get_freeze_count() == 0
