"""What the pages have a reader type: each command parses, and what needs only the demo and rendered scenes runs.

A command that only reads (a run's folder, a COCO file, a report) gets a stand-in under the name that the page gives it.
What isn't run is in `LEFT_OUT`, with the reason; a command that neither runs nor stands there is a fault.
"""

import re
import shlex
import shutil
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from paths import ROOT
from script_cases import run_script

from grounded_seg.cli import main

DOCS = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", "checkpoints/README.md", *(f"docs/{name}" for name in DOCS))
N_SCENES = "2"
RENDER = "benchmarks/render_dataset.py"
SAME_ANYWHERE = ("--device", "cpu", "--dtype", "float32")
PLACEHOLDERS = {"FORMAT": "yolo"}
OUTPUTS = {"output", "json_file", "plots", "destination", "suggest"}
"""Parameters whose path is written, not read."""

LEFT_OUT = (
    (r"(make|pip|uv|nox|apt-get|source|git|python3) .*", "installs, or runs this very suite"),
    (r"docker .*", "builds or starts an image; tests/test_packaging.py looks at the Dockerfile"),
    (r"curl .*", "asks a server; tests/serve does that"),
    (r"cvat-cli .*", "asks a CVAT; tests/interop does that"),
    (r"(_GROUNDED_SEG_COMPLETE=|echo ).*", "changes the shell's settings; tests/cli/test_completion.py completes"),
    (rf"python (?!{RENDER})\S+\.py.*", "measures or trains for minutes to hours; test_scripts.py starts each"),
    (r"grounded-seg (export|eval|train) .*--reviewed .*", "takes decisions of people; tests/review makes some"),
    (r"grounded-seg serve .*", "answers until it is told to end"),
    (r"grounded-seg view .*", "answers a browser until it is ended; tests/review/page does that"),
    (r"grounded-seg (run|ask|train) (?!.*--preset demo).*", "takes weights of full size"),
    (r"grounded-seg eval (?!.*(--preset demo|--predictions)).*", "takes weights of full size"),
    (r"grounded-seg models (fetch|remove) .*", "downloads weights of full size, or deletes them"),
    (r"grounded-seg models verify .+", "takes what models fetch has downloaded"),
    (r"grounded-seg models (convert|merge) .*", "takes weights in an older layout, or of full size"),
)
"""What isn't run, as whole lines, and why; the first that fits."""


@dataclass(frozen=True)
class Line:
    """A line of a block."""

    page: str
    block: int
    text: str

    def __str__(self) -> str:
        return f"{self.page}: {shlex.join(self.words)}"

    @property
    def words(self) -> list[str]:
        return [PLACEHOLDERS.get(word, word) for word in shlex.split(self.text, comments=True)]

    @property
    def reason(self) -> str | None:
        """Why it isn't run; None where it is."""
        plain = shlex.join(self.words)
        return next((reason for pattern, reason in LEFT_OUT if re.fullmatch(pattern, plain)), None)


def lines() -> Iterator[Line]:
    """Every line of every shell block; a backslash goes on in the next one."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^( *)```(?:bash|sh|console|shell)\n(.*?)^\1```", text, flags=re.DOTALL | re.MULTILINE)
        for number, (_, block) in enumerate(blocks):
            for line in textwrap.dedent(block).replace("\\\n", " ").splitlines():
                if shlex.split(line, comments=True):
                    yield Line(page, number, line.removeprefix("$ "))


LINES = tuple(lines())
BLOCKS = {name: tuple(found) for name, found in groupby(LINES, lambda one: f"{one.page}-{one.block}")}
IN_ONE_FOLDER = ("docs/commands.md", "docs/tuning.md")
"""Pages whose blocks go on where the one before ended: test_commands_page.py runs them."""
RUN_BLOCKS = [
    name
    for name, found in BLOCKS.items()
    if found[0].page not in IN_ONE_FOLDER and any(one.reason is None for one in found)
]


def parsed(words: list[str]) -> click.Context:
    """A command as click reads it, without running it."""
    command: click.Command = main
    context, words = click.Context(main, info_name=words[0], **main.context_settings), words[1:]
    while isinstance(command, click.Group):
        command = command.commands[words.pop(0)]
        context = (
            click.Context(command, parent=context)
            if isinstance(command, click.Group)
            else command.make_context(str(command.name), words, parent=context)
        )
    return context


def of(program: str) -> list[Line]:
    return [one for one in LINES if one.words[0] == program]


@pytest.mark.parametrize("line", of("grounded-seg"), ids=str)
def test_every_command_parses(line: Line) -> None:
    parsed(line.words)


@pytest.mark.parametrize("line", of("python"), ids=str)
def test_every_script_takes_what_the_page_gives_it(line: Line) -> None:
    _, script, *words = line.words
    text = (ROOT / script).read_text(encoding="utf-8")
    assert [word for word in words if word.startswith("--") and f'"{word}"' not in text] == []


def test_every_command_is_known() -> None:
    programs = {one.words[0] for one in LINES}
    known = {"grounded-seg", "python", "make", "pip", "apt-get", "source", "git"}
    known |= {"python3", "uv", "nox", "docker", "curl", "cvat-cli", "echo", "_GROUNDED_SEG_COMPLETE=bash_source"}
    assert programs <= known
    assert len(of("grounded-seg")) > 30


def test_every_block_has_a_language() -> None:
    """A block without one would be neither run nor looked at."""
    languages = {"bash", "text", "python", "json", "yaml", "xml", "slurm"}
    for page in PAGES:
        opened = re.findall(r"^ *```(.*)\n(?:.*\n)*?^ *```$", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(opened) <= languages, page


def test_every_reason_is_needed() -> None:
    assert [reason for _, reason in LEFT_OUT if reason not in {one.reason for one in LINES}] == []


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of the demo, over an image each; what they were asked about as COCO, and a report of one."""
    folder = tmp_path_factory.mktemp("stand-ins")
    assert run_script(RENDER, str(folder / "scenes"), "--scenes", N_SCENES) == 0
    for number, image in enumerate(sorted((folder / "scenes" / "images").iterdir())):
        assert _code("run", "car; ball", image, "--preset", "demo", *SAME_ANYWHERE, "-o", folder / f"run-{number}") == 0
    truth, report = folder / "scenes" / "instances.json", folder / "report.json"
    assert _code("eval", truth, "--predictions", folder / "run-0" / "annotations.json", "--json", report) == 0
    return folder


def _code(*words: object) -> int:
    result = CliRunner().invoke(main, [str(word) for word in words])
    print(result.output)
    return result.exit_code


def _put_stand_ins(command: click.Context, stand_ins: Path) -> None:
    """Give every input that a page names and that isn't there yet a file or folder of its kind."""
    runs = iter(("run-0", "run-1"))
    for name, values in command.params.items():
        for path in values if isinstance(values, tuple) else (values,):
            if not isinstance(path, Path) or name in OUTPUTS or path.exists() or "*" in path.name:
                continue
            source = stand_ins / _stand_in(str(command.command.name), name, path, runs)
            if source.name == path.name == "annotations.json" and path.parent != Path():
                # It lies in a run's folder, which a later command may name.
                source, path = source.parent, path.parent
            path.parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if source.is_dir() else shutil.copy)(source, path)


def _stand_in(command: str, parameter: str, path: Path, runs: Iterator[str]) -> str:
    """What stands for an input, below the folder of stand-ins."""
    if parameter == "images":
        return "scenes/images"
    if command in ("compare", "calibrate"):
        return "report.json"
    if command == "eval" and parameter == "ground_truth":
        return "scenes/instances.json"
    return "run-0/annotations.json" if path.suffix == ".json" else next(runs)


LONG_BLOCKS = ("docs/demo.md-1", "docs/eval.md-6")
"""Those that take most of a minute."""
LATER_PAGES = ("docs/choose.md", "docs/first_steps.md", "docs/install.md", "docs/label_tools.md")
"""Their blocks run with the long ones: what they do is tested elsewhere too."""
RUN_ALREADY = set[str]()
"""Lines that name no file and were run in another block."""


def _is_long(name: str) -> bool:
    return name in LONG_BLOCKS or BLOCKS[name][0].page in LATER_PAGES


@pytest.mark.parametrize(
    "name", [pytest.param(one, marks=[pytest.mark.release] if _is_long(one) else []) for one in RUN_BLOCKS]
)
def test_a_block_runs(name: str, stand_ins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a folder of its own, with the examples."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "examples", "examples")
    for line in BLOCKS[name]:
        words = line.words
        if line.reason is not None or shlex.join(words) in RUN_ALREADY:
            continue
        if words[1] in ("doctor", "models"):
            RUN_ALREADY.add(shlex.join(words))
        if words[0] == "python":
            options = [word for word in words[2:] if not word.isdecimal() and word != "--scenes"]
            assert run_script(words[1], *options, "--scenes", N_SCENES) == 0
            continue
        _put_stand_ins(parsed(words), stand_ins)
        assert _code(*words[1:], *(SAME_ANYWHERE if "--preset" in words else ())) == 0, line.text


def test_what_is_run_is_not_little() -> None:
    run = {one.words[1] for one in of("grounded-seg") if one.reason is None}
    assert {"run", "eval", "compare", "export", "validate", "merge-runs"} <= run
