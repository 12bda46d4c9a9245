"""Standard streams that are closed, full, or in another encoding: the work is done all the same."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Paint
from eval_cases import grounded_seg
from fakes import ColourDetector
from paths import ROOT

from grounded_seg.cli import main
from grounded_seg.cli.messages import error
from grounded_seg.cli.streams import lossy, prepare_streams

PROGRAM = "import sys; from grounded_seg.cli import main; main(sys.argv[1:])"


class Broken(io.TextIOWrapper):
    """A stream whose disk is full."""

    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8")

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def in_shell(redirected: str, program: str, argument: str) -> "subprocess.CompletedProcess[str]":
    """Run a Python program with its streams redirected by a shell."""
    command = ["sh", "-c", f'exec "$0" -c "$1" "$2" {redirected}', sys.executable, program, argument]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("redirected", [">&-", "2>&-", "<&-", ">&- 2>&- <&-", "2>/dev/full"])
def test_a_stream_that_is_closed_or_full_is_no_fault(redirected: str) -> None:
    done = in_shell(redirected, PROGRAM, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (">&-" not in redirected.split())
    assert in_shell(redirected, PROGRAM, "run").returncode == 2


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    # A library that prints into what was standard error would print into the journal.
    program = (
        "import os, sys\n"
        "from grounded_seg.cli.streams import prepare_streams\n"
        "prepare_streams()\n"
        "print(sys.stdout.fileno(), sys.stderr.fileno(), os.get_inheritable(2), open(sys.argv[1], 'w').fileno(),\n"
        "      file=open(sys.argv[1], 'w'))\n"
    )
    done = in_shell(">&- 2>&- <&-", program, str(tmp_path / "said"))
    assert done.returncode == 0
    out, err, inherited, opened = (tmp_path / "said").read_text().split()
    assert (out, err, inherited) == ("1", "2", "True")
    assert int(opened) > 2


def test_characters_that_an_encoding_lacks_are_escaped(
    detector: ColourDetector, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = paint("photos/größe 日本.png", red=(2, 3, 12, 9)).name
    ascii_only = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", ascii_only)
        prepare_streams()
        print(name, flush=True)
    assert ascii_only.buffer.getvalue() == b"gr\\xf6\\xdfe \\u65e5\\u672c.png\n"


def test_a_run_ends_well_in_an_encoding_that_lacks_its_names(
    detector: ColourDetector, paint: Paint, tmp_path: Path
) -> None:
    paint("photos/größe 日本.png", red=(2, 3, 12, 9))
    runner = CliRunner(charset="ascii")
    result = runner.invoke(main, ["run", "red größe", str(tmp_path / "photos"), "-o", str(tmp_path / "out")])
    assert (result.exit_code, result.stderr) == (0, "")
    assert r"gr\xf6\xdfe" in result.stdout
    assert (tmp_path / "out" / "annotations.json").exists()


def test_messages_that_nobody_takes_end_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Broken()
    with pytest.raises(OSError, match="No space"):
        broken.write("x")
    monkeypatch.setattr("sys.stderr", broken)
    error("nobody will know")
    assert lossy(broken).write("five!") == 5


def test_eval_writes_its_files_before_it_prints(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("grounded_seg.cli.eval_tables.show_evaluation", full)
    report = tmp_path / "report.json"
    result = grounded_seg("eval", scenes, "--images", tmp_path / "images", "--json", report)
    assert result.exit_code == 1
    assert "standard output can't be written (No space left on device)" in result.stderr
    assert report.exists()


def test_eval_prints_what_it_measured_where_its_files_can_not_be_written(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    # Nothing tells beforehand that the name is too long.
    result = grounded_seg("eval", scenes, "--images", tmp_path / "images", "--json", tmp_path / f"{'x' * 300}.json")
    assert result.exit_code == 1
    assert "can't be written" in result.stderr
    assert "3 images, 3 objects" in result.stdout


def test_eval_says_before_it_measures_that_a_file_can_not_be_written(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "truth.json" / "report.json"
    result = grounded_seg("eval", scenes, "--images", tmp_path / "images", "--json", in_the_way)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "can't be written" in result.stderr
    assert detector.batch_sizes == []


def test_validate_repairs_before_it_prints(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("grounded_seg.cli.commands.validate._print_few", full)
    result = grounded_seg("validate", scenes, "--fix", tmp_path / "fixed.json")
    assert result.exit_code == 1
    assert (tmp_path / "fixed.json").exists()
