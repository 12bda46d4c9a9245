"""The journal: lines are there whole or not at all, a torn one is mended, and one run at a time writes it."""

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from paths import ROOT

from grounded_seg.coco.schema import JournalLine
from grounded_seg.errors import OutputError, UsageError
from grounded_seg.runs.journal import Journal, read_lines, text_of


def line_about(file_name: str, reason: str = "two\nlines") -> JournalLine:
    return {
        "file_name": file_name, "status": "skipped", "width": None, "height": None, "instances": [], "reason": reason,
        "error": "ImageError",
    }  # fmt: skip


LINES = [line_about("a.png"), line_about("sub/\udcff ü.png"), line_about("z.png")]
TEXTS = [f"{text_of(line)}\n".encode() for line in LINES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "results.jsonl"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with Journal(path) as journal:
        journal.make()
        yield journal


def test_a_line_reads_back_before_the_journal_is_closed(journal: Journal, path: Path) -> None:
    for number, line in enumerate(LINES, start=1):
        journal.append(line)
        assert list(read_lines(path)) == LINES[:number]
    assert path.read_bytes() == b"".join(TEXTS)


@pytest.mark.parametrize("comes_back", [False, True])
def test_a_journal_that_was_taken_away_gets_no_more_lines(path: Path, comes_back: bool) -> None:
    # Pictures go by the name of their folder, and would be lost to the journal.
    with Journal(path) as journal:
        journal.make()
        journal.append(LINES[0])
        path.rename(path.with_name("away"))
        if comes_back:
            path.touch()
        with pytest.raises(OutputError, match=r"results.jsonl can't be written \(it was moved or removed meanwhile\)"):
            journal.append(LINES[1])
    assert list(read_lines(path.with_name("away"))) == LINES[:1]


def test_a_journal_is_not_made_before_it_is_wanted(path: Path) -> None:
    with Journal(path) as journal:
        assert not journal.has_lines
        assert not path.exists()
        with pytest.raises(ValueError, match="make"):
            journal.append(LINES[0])
        journal.make()
        assert path.exists()
        assert not journal.has_lines


def test_lines_of_an_earlier_run_stay_until_they_are_taken_out(journal: Journal, path: Path) -> None:
    journal.append(LINES[0])
    journal.__exit__(None, None, None)
    with Journal(path) as again:
        again.make()
        assert again.has_lines
        again.append(LINES[1])
        assert list(read_lines(path)) == LINES[:2]
        again.empty()
        assert not again.has_lines
        again.append(LINES[2])
        assert list(read_lines(path)) == LINES[2:]


@pytest.mark.parametrize("n_left", [1, 20, len(TEXTS[2]) - 1])
def test_a_torn_last_line_is_cut_off(path: Path, n_left: int, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(TEXTS[0] + TEXTS[1] + TEXTS[2][:n_left])
    with Journal(path) as journal:
        assert list(journal.recovered_lines()) == LINES[:2]
        journal.append(LINES[2])
    assert path.read_bytes() == b"".join(TEXTS)
    assert not caplog.records


@pytest.mark.parametrize("damage", [b"\0" * 20 + b"\n", b"{}\n", b"[1]\n", b"\xff\n", b'{"file_name": "b"}\n'])
def test_what_follows_damage_is_done_again_and_told(
    path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(TEXTS[0] + damage + TEXTS[2])
    with Journal(path) as journal:
        assert list(journal.recovered_lines()) == LINES[:1]
    assert path.read_bytes() == TEXTS[0]
    assert f"byte {len(TEXTS[0])}" in caplog.text


def test_a_write_that_takes_only_a_part_goes_on(journal: Journal, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        """A file that takes at most seven bytes a call, as the system may."""

        def __init__(self) -> None:
            self.taken = b""

        def write(self, rest: bytes) -> int:
            self.taken += rest[:7]
            return len(rest[:7])

        def fileno(self) -> int:
            return os.open(path, os.O_RDONLY)

        def close(self) -> None:
            pass

    slow = Slow()
    monkeypatch.setattr(journal, "_file", slow)
    journal.append(LINES[0])
    assert json.loads(slow.taken) == LINES[0]


def test_a_disk_that_fills_up_within_a_line_leaves_whole_lines(path: Path) -> None:
    # The system itself refuses to let the file grow further, in the middle of the third line.
    limit = len(TEXTS[0]) + len(TEXTS[1]) + 10
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal(path) as journal:
        journal.make()
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
        try:
            journal.append(LINES[0])
            journal.append(LINES[1])
            with pytest.raises(OutputError, match=rf"results.jsonl can't be written .{os.strerror(errno.EFBIG)}"):
                journal.append(LINES[2])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert path.read_bytes() == TEXTS[0] + TEXTS[1]
        # Room was made.
        journal.append(LINES[2])
    assert list(read_lines(path)) == LINES


def test_a_second_run_is_refused_until_the_first_one_ends_or_dies(path: Path) -> None:
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from grounded_seg.runs.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "journal.make()\n"
        "print('locked', flush=True)\n"
        "time.sleep(60)\n"
    )
    root = ROOT
    with subprocess.Popen(
        [sys.executable, "-c", program, str(path)], cwd=root, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(UsageError, match="another run is writing"):
            Journal(path)
        process.kill()
        process.wait()
        with Journal(path):
            pass


def test_a_run_that_began_meanwhile_is_noticed(path: Path) -> None:
    with Journal(path) as late:
        with Journal(path) as early:
            early.make()
            with pytest.raises(UsageError, match="another run is writing"):
                late.make()
            early.append(LINES[0])
        with pytest.raises(UsageError, match="another run has just written"):
            late.make()


def test_a_file_system_without_locks_is_told(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with Journal(path) as journal:
        journal.make()
        journal.append(LINES[0])
    assert "No locks available" in caplog.text
