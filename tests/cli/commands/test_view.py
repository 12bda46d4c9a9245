"""`grounded-seg view`: what is refused before anything is served, and how it ends."""

import json
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from browser import viewed
from click.testing import CliRunner, Result
from view_cases import write_run

from grounded_seg.cli import main
from grounded_seg.web import launch


@pytest.fixture
def run(tmp_path: Path) -> Path:
    line: Any = {"file_name": "a.png", "status": "done", "width": 40, "height": 30, "instances": []}
    write_run(tmp_path / "run", tmp_path, [line | {"reason": None, "error": None}])
    return tmp_path / "run"


def grounded_seg(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--host", "0.0.0.0"), 2, "add --token"),
        (("--truth", "nowhere.json"), 3, "nowhere.json"),
        (("--adapter", "mine"), 2, "--adapter is for asking again; name a --preset or --detector too"),
        (("--preset", "huge"), 2, "huge"),
        (("--score-threshold", "2", "--preset", "demo"), 2, "--score-threshold"),
        (("--token", ""), 2, "--token"),
    ],
)
def test_wrong_requests_are_one_line(run: Path, options: tuple[str, ...], code: int, says: str) -> None:
    outcome = grounded_seg("view", run, "--no-browser", "--port", 0, *options)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    *notes, message = outcome.stderr.splitlines()
    assert says in message
    assert all(line.startswith("note: ") for line in notes)
    assert not (run / ".review.lock").exists()


def test_what_is_no_run_is_refused(tmp_path: Path, run: Path) -> None:
    outcome = grounded_seg("view", tmp_path / "nowhere", "--port", 0)
    assert (outcome.exit_code, outcome.stderr.count("\n")) == (3, 1)
    manifest = json.loads((run / "run.json").read_text())
    del manifest["images"]["root"]
    (run / "run.json").write_text(json.dumps(manifest))
    outcome = grounded_seg("view", run, "--port", 0)
    assert outcome.exit_code == 3
    assert "name their folder with --images" in outcome.stderr


def test_a_port_that_is_taken_is_said(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = grounded_seg("view", run, "--port", port, "--no-browser")
    assert outcome.exit_code == 2
    assert f"port {port} of 127.0.0.1 is taken" in outcome.stderr


def test_without_the_extra_it_says_what_to_install(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda _: None)
    outcome = grounded_seg("view", run)
    assert outcome.exit_code == 2
    assert "pip install 'grounded-seg[serve]'" in outcome.stderr


def test_help_has_every_exit_code() -> None:
    text = " ".join(grounded_seg("view", "--help").stdout.split())
    codes = text.partition("Exit code: ")[2].partition(".")[0]
    assert [int(one.split()[0]) for one in codes.split(", ")] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly(run: Path, how: signal.Signals) -> None:
    with viewed(run, end_with=how) as address:
        assert address.startswith("http://127.0.0.1:")
        assert (run / ".review.lock").exists()
    assert not (run / ".review.lock").exists()
    assert "1 image with 0 instances indexed in" in (run / "view.log").read_text()
