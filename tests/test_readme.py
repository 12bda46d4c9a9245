"""README and the pages that it links say what is so: what they name exists, and no link is dead.

`python tests/test_readme.py --write` writes the help of `run` into docs/run.md.
"""

import re
import shlex
import sys
import textwrap

import click
from click.testing import CliRunner
from paths import ROOT

import grounded_seg
from grounded_seg.cli import main
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.weights.presets import preset_table

README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
FIRST_PAGES = "".join(DOCS[name] for name in ("demo.md", "first_steps.md", "choose.md", "speed.md"))
"""What a reader of README reads next."""


def blocks(language: str, page: str = README) -> list[str]:
    """The fenced code blocks of a language."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```", page, flags=re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def lines_to_run() -> list[str]:
    """What the pages have a reader type."""
    return "".join(blocks("bash") + blocks("bash", FIRST_PAGES)).splitlines()


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


def real_help() -> str:
    """What `run --help` prints on a terminal of 80 columns."""
    return CliRunner().invoke(main, ["run", "--help"], terminal_width=80).stdout


def test_the_help_is_the_real_one() -> None:
    assert real_help() in blocks("text", DOCS["run.md"])


def test_there_are_commands_to_check() -> None:
    assert len(commands()) >= 3


def test_every_option_exists() -> None:
    # A script's options are its own.
    text = re.sub(r"^python .*$", "", README + FIRST_PAGES, flags=re.MULTILINE)
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text))
    assert named - all_options() == set()
    assert "--score-threshold" in named


def test_every_make_target_exists() -> None:
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    named = re.findall(r"^make (\w+)", "\n".join(blocks("bash")), flags=re.MULTILINE)
    assert named == ["demo", "test"]
    assert set(named) <= set(targets)


def test_every_preset_is_named() -> None:
    table = DOCS["choose.md"].split("| preset |")[1].split("\n\n")[0]
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


def links(page: str) -> list[str]:
    """What a page links to within the repository, without headings."""
    return re.findall(r"\]\((?!http|#)([^)#\s]+)", page)


def test_every_page_is_two_clicks_from_readme_at_most() -> None:
    first = {name.removeprefix("docs/") for name in links(README) if name.startswith("docs/")} & DOCS.keys()
    second = {link for name in first for link in links(DOCS[name])}
    assert DOCS.keys() - first - second <= {"index.md", "changes.md"}
    assert "troubleshooting.md" in first


def test_questions_have_answers_one_click_on() -> None:
    """A stranger's questions stand on a page that README links, and each has a link to more or is answered there."""
    page = DOCS["questions.md"]
    questions = re.findall(r"^## ([^\n]*\?)\n\n(.*?)(?=^## |\Z)", page, flags=re.DOTALL | re.MULTILINE)
    assert len(questions) >= 10
    assert [asked for asked, answer in questions if not links(answer) and "`" not in answer] == []
    dead = [link for link in links(page) if link not in DOCS]
    assert dead == []


def test_every_link_between_pages_has_a_heading() -> None:
    anchors = {name: {anchor(head) for head in re.findall(r"^#+ (.*)$", text, re.M)} for name, text in DOCS.items()}
    wrong = []
    for name, text in {**DOCS, "README.md": README}.items():
        for target, head in re.findall(r"\]\((?:docs/)?([\w.]*\.md)?#([\w-]+)\)", text):
            page = target or name
            if page in anchors and head not in anchors[page]:
                wrong.append(f"{name}: {page}#{head}")
    assert wrong == []


def anchor(heading: str) -> str:
    """A heading's anchor, as mkdocs and code hosts make it."""
    plain = re.sub(r"\[([^]]*)\]\([^)]*\)|`", r"\1", heading).lower()
    return re.sub(r"[^\w\- ]", "", plain).strip().replace(" ", "-")


if __name__ == "__main__":
    if "--write" in sys.argv:
        head, _, rest = DOCS["run.md"].partition("```text\nUsage: ")
        page = f"{head}```text\n{real_help()}```{rest.partition('```')[2]}"
        (ROOT / "docs" / "run.md").write_text(page, encoding="utf-8")
