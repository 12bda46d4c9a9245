"""README says what is so: its help is the real one, what it names exists. So does the page of the demo's figures."""

import re
import shlex

import click
from click.testing import CliRunner
from paths import ROOT

import grounded_seg
from grounded_seg.cli import main
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.weights.presets import preset_table

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced code blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, flags=re.DOTALL | re.MULTILINE)


def lines_to_run() -> list[str]:
    """What the pages have a reader type."""
    return "".join(blocks("bash") + blocks("bash", DEMO)).splitlines()


def commands() -> list[list[str]]:
    """The words of every `grounded-seg` command line in a block."""
    lines = lines_to_run()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("grounded-seg ")]


def all_options() -> set[str]:
    """Every option of every command."""
    found: set[str] = set()
    waiting: list[click.Command] = [main]
    while waiting:
        command = waiting.pop()
        context = click.Context(command)
        for parameter in command.get_params(context):
            found.update(parameter.opts, parameter.secondary_opts)
        if isinstance(command, click.Group):
            waiting.extend(command.commands.values())
    return found


def test_the_help_is_the_real_one() -> None:
    real = CliRunner().invoke(main, ["run", "--help"], terminal_width=80).stdout
    assert real in blocks("text")


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 3


def test_every_option_exists() -> None:
    # A script's options are its own.
    text = re.sub(r"^python .*$", "", README + DEMO, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert named - all_options() == set()
    assert "--overwrite" in named


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


def test_every_preset_is_named() -> None:
    table = README.split("| preset |")[1].split("\n\n")[0]
    assert re.findall(r"^\| `([\w-]+)` \|", table, flags=re.MULTILINE) == list(preset_table().presets)


def test_every_file_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    scripts = [line.split()[1] for line in lines_to_run() if line.startswith("python ")]
    missing = [name for name in (*linked, *scripts) if not (ROOT / name).exists()]
    assert missing == []


def test_no_run_of_a_block_meets_the_results_of_another() -> None:
    outputs = [
        words[words.index("-o") + 1]
        for words in commands()
        if words[0] in ("run", "merge-runs", "train") and "--resume" not in words and "--dry-run" not in words
    ]
    assert len(outputs) > 5
    assert len(set(outputs)) == len(outputs)
    assert all(output.startswith("grounded-seg-out/") for output in outputs)


def test_the_python_example_uses_what_is_there() -> None:
    [example] = blocks("python")
    compile(example, "README.md", "exec")
    assert grounded_seg.GroundedSegmenter is GroundedSegmenter
    assert set(re.findall(r"segmenter\.(\w+)\(", example)) <= set(dir(GroundedSegmenter))
    assert set(re.findall(r"result\.(\w+)\(", example)) <= set(dir(PromptedResult))
