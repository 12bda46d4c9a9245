"""Commands in this process, reports of `eval` and a full disk, that several test modules share."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from grounded_seg.cli import main


def grounded_seg(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def report_of(scenes: Path, *options: object) -> dict[str, Any]:
    file = scenes.parent / "report.json"
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--json", file, *options)
    assert outcome.exit_code == 0, outcome.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    return report


def fill_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the disk be full whenever a file is to be written whole."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
