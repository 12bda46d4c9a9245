"""The page of commands by example: all of them run, in one folder, and print what the page says, but for numbers.

`python tests/test_commands_page.py --write` writes what they print into the page.
"""

import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from paths import ROOT
from script_cases import run_script
from test_docs import SAME_ANYWHERE, Line

from grounded_seg.cli import main

PAGE = ROOT / "docs" / "commands.md"
FENCES = re.compile(r"^```bash\n(?P<commands>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```\n)?", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Shown:
    """A block of commands, and what the page shows below it; None where it shows nothing."""

    commands: tuple[str, ...]
    output: str | None


def shown(text: str) -> Iterator[Shown]:
    """The blocks of the page."""
    for found in FENCES.finditer(text):
        yield Shown(tuple(found["commands"].splitlines()), found["output"])


def printed(commands: tuple[str, ...]) -> str:
    """What the commands print in the current folder, as a reader sees it: both streams, without progress."""
    told = ""
    for command in commands:
        line = Line(PAGE.name, 0, command)
        if line.reason is not None:
            continue
        words = line.words
        if words[0] == "python":
            assert run_script(words[1], *words[2:]) == 0
            continue
        result = CliRunner().invoke(main, [*words[1:], *(SAME_ANYWHERE if "--preset" in words else ())])
        assert result.exit_code == 0, result.output
        told += result.output
    return told


def without_numbers(text: str) -> list[str]:
    """The lines, with every number and every run of blanks or dashes as one sign: times and last digits differ."""
    return [
        re.sub(r"[-─━ ]{2,}", " ", re.sub(r"\d+(\.\d+)?", "#", line)).strip().replace("**", "")
        for line in text.splitlines()
    ]


def is_shown(told: str, output: str) -> bool:
    """Whether a page's output is what a command prints; a line of three dots stands for any lines."""
    rest = without_numbers(told)
    parts = [without_numbers(part) for part in re.split(r"^\.\.\.\n", output, flags=re.MULTILINE)]
    if len(parts) == 1:
        return parts[0] == rest
    for part in parts:
        at = next((n for n in range(len(rest) - len(part) + 1) if rest[n : n + len(part)] == part), None)
        if at is None:
            return False
        rest = rest[at + len(part) :]
    return True


def test_an_output_is_compared_but_for_numbers_and_dots() -> None:
    told = "3 found\n  a  0.5\n  b  0.7\nend\n"
    assert is_shown(told, "4 found\n a 0.1\nb  0.25\nend\n")
    assert is_shown(told, "...\n  b  0.7\n...\n")
    assert not is_shown(told, "3 found\n  a  0.5\nend\n")
    assert not is_shown(told, "...\nc\n...\n")
    assert not is_shown(told, "...\nend\n...\n  a  0.5\n...\n")


def in_folder(folder: Path) -> None:
    """Where a reader tries the page: the examples are there."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    os.chdir(folder)


@pytest.mark.release
def test_the_commands_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    in_folder(tmp_path)
    n_compared = 0
    for block in shown(PAGE.read_text(encoding="utf-8")):
        told = printed(block.commands)
        if block.output is not None:
            assert is_shown(told, block.output), f"{block.commands} prints:\n{told}"
            n_compared += 1
    assert n_compared > 8


@pytest.mark.release
def test_the_tuning_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From rendering to comparing, with fewer scenes and one epoch."""
    monkeypatch.chdir(tmp_path)
    in_folder(tmp_path)
    page = (ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    for long, short in (("--scenes 300", "--scenes 12"), ("--scenes 60", "--scenes 2"), ("--epochs 8", "--epochs 1")):
        assert long in page
        page = page.replace(long, short)
    for block in shown(page):
        printed(block.commands)
    assert (tmp_path / "grounded-seg-out" / "tuned" / "report.md").exists()
    assert (tmp_path / "grounded-seg-out" / "tuned.json").exists()


def test_the_page_names_every_command() -> None:
    named = {shlex.split(line)[1] for block in shown(PAGE.read_text(encoding="utf-8")) for line in block.commands}
    assert set(main.commands) <= named


def written(text: str) -> str:
    """The page with what its commands print now."""

    def filled(found: re.Match[str]) -> str:
        told = printed(tuple(found["commands"].splitlines()))
        if found["output"] is None or "\n...\n" in f"\n{found['output']}":
            return found[0]
        told = "".join(f"{line.rstrip()}\n" for line in told.splitlines())
        return f"```bash\n{found['commands']}```\n\n```text\n{told}```\n"

    return FENCES.sub(filled, text)


if __name__ == "__main__":
    if "--write" in sys.argv:
        page = PAGE.read_text(encoding="utf-8")
        with tempfile.TemporaryDirectory() as name:
            in_folder(Path(name))
            PAGE.write_text(written(page), encoding="utf-8")
