"""Commands in this process, and reports of `eval`, that several test modules share."""

import json
from pathlib import Path
from typing import Any

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
