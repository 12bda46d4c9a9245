"""Completion in the shell, as docs/install.md sets it up."""

import pytest
from click.testing import CliRunner

from grounded_seg.cli import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_its_script(shell: str) -> None:
    asked = {"_GROUNDED_SEG_COMPLETE": f"{shell}_source"}
    told = CliRunner().invoke(main, [], prog_name="grounded-seg", env=asked)
    assert told.exit_code == 0
    assert "_GROUNDED_SEG_COMPLETE" in told.stdout


@pytest.mark.parametrize(
    ("words", "proposed"),
    [
        ("grounded-seg ex", "export"),
        ("grounded-seg models ver", "verify"),
        ("grounded-seg run --score", "--score-threshold"),
        ("grounded-seg run --nms ag", "agnostic"),
    ],
)
def test_commands_options_and_choices_are_proposed(words: str, proposed: str) -> None:
    asked = {
        "_GROUNDED_SEG_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(len(words.split()) - 1),
    }
    told = CliRunner().invoke(main, [], prog_name="grounded-seg", env=asked)
    assert f"plain,{proposed}" in told.stdout.splitlines()
