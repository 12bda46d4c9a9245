"""What of this package's own words reaches stderr."""

import ast
import json
import logging
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner
from paths import ROOT

from grounded_seg import errors
from grounded_seg.cli.exit_codes import UNEXPECTED, Commands
from grounded_seg.cli.messages import cells, counted, set_up_messages, show, show_json, stdout_console
from grounded_seg.engine.batch_worker import _collected_log


@pytest.fixture(autouse=True)
def _log() -> Iterator[None]:
    """Undo what is set for the process."""
    loggers = [logging.getLogger("grounded_seg"), logging.getLogger()]
    before = [(log, log.level, log.handlers[:], log.propagate) for log in loggers]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.environ", {})
        yield
    for log, level, handlers, propagate in before:
        log.setLevel(level)
        log.handlers, log.propagate = handlers, propagate


@pytest.mark.parametrize(
    ("on_terminal", "debug", "shown"),
    [
        (False, False, ["warning: two lines"]),
        (True, False, ["note: one", "warning: two lines"]),
        (False, True, ["debug: none", "note: one", "warning: two lines"]),
    ],
)
def test_notes_are_for_terminals_and_warnings_for_all(
    on_terminal: bool,
    debug: bool,
    shown: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    set_up_messages(debug=debug)
    log = logging.getLogger("grounded_seg.somewhere")
    log.debug("none")
    log.info("one")
    log.warning("two\nlines")
    assert capsys.readouterr().err.splitlines() == shown


@pytest.mark.parametrize("on_terminal", [False, True])
def test_a_note_about_one_of_many_is_printed_once_for_everyone(
    on_terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: on_terminal)
    log = logging.getLogger("grounded_seg.somewhere")
    for _ in range(2):
        set_up_messages(debug=False)
        for number in range(3):
            log.info("image %d is dark", number, extra={"once": True})
            log.info("image %d is broken", number, extra={"once": True})
        # As the next command would.
        assert capsys.readouterr().err.splitlines() == ["note: image 0 is dark", "note: image 0 is broken"]


def test_one_of_a_thing_is_singular() -> None:
    assert [counted(n, "image") for n in (0, 1, 2)] == ["0 images", "1 image", "2 images"]


HOSTILE = "a\x1b[31m \u202eb\x07 \x7f\x9b \ud83d" + "x" * 100_000 + " what next"


def all_error_classes() -> list[type[Exception]]:
    """Every class of `errors.py`, and what isn't ours."""
    ours = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, Exception)]
    assert len(ours) > 10
    return [*ours, ValueError, OSError, click.ClickException, click.UsageError, click.Abort, RecursionError]


def is_safe(text: str) -> bool:
    return all(one == "\n" or one.isprintable() for one in text)


@pytest.mark.parametrize("kind", all_error_classes(), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_is_one_safe_line_whatever_a_file_put_into_it(kind: type[Exception], debug: bool) -> None:
    @click.group(cls=Commands)
    def main() -> None:
        pass

    @main.command()
    def fail() -> None:
        set_up_messages(debug=debug)
        logging.getLogger("grounded_seg.somewhere").warning("%s", HOSTILE)
        raise kind(HOSTILE)

    done = CliRunner().invoke(main, ["fail"])
    expected = getattr(kind, "exit_code", UNEXPECTED)
    assert done.exit_code == (130 if kind is click.Abort else expected)
    assert is_safe(done.stderr)
    lines = done.stderr.splitlines()
    assert [line.partition(": ")[0] for line in (lines[0], lines[-1])] == ["warning", "error"]
    assert debug or len(lines) == 2
    if kind is not click.Abort:
        for line in (lines[0], lines[-1]):
            assert len(line) < 4_000
            assert r"a\x1b[31m \u202eb\x07 \x7f\x9b \ud83dxxx" in line
            assert "what next" in line


def test_lines_json_and_tables_on_stdout_are_safe(capsys: pytest.CaptureFixture[str]) -> None:
    show(f"two\nlines {HOSTILE}")
    show()
    show("without end", end="")
    show("")
    show_json(json.dumps({"a": HOSTILE}))
    stdout_console().print(*cells(HOSTILE, 3, None), "end", soft_wrap=True)
    out = capsys.readouterr().out
    assert is_safe(out)
    assert out.startswith("two\nlines a\\x1b[31m")
    assert "without end\n{" in out
    assert json.loads(out.splitlines()[-2]) == {"a": HOSTILE}


def test_markup_in_a_cell_stays_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print(*cells("[bold]a[/bold] [red"))
    assert capsys.readouterr().out == "[bold]a[/bold] [red\n"


def test_everything_is_printed_through_the_messages() -> None:
    package = ROOT / "grounded_seg"
    found = {
        f"{path.relative_to(package).as_posix()}:{node.lineno}"
        for path in package.rglob("*.py")
        if path.name != "messages.py"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and (
            (isinstance(node.func, ast.Name) and node.func.id == "print")
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ("echo", "secho"))
            or (
                isinstance(node.func, ast.Attribute)
                and ast.unparse(node.func) in ("sys.stdout.write", "sys.stderr.write")
            )
        )
    }
    assert found == set()


def test_rows_of_tables_are_made_of_safe_cells() -> None:
    """A row of text straight from a file would be read as markup too."""
    # Figures, and words of our own.
    plain = {"cli/eval_tables.py"}
    package = ROOT / "grounded_seg"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_row"
        and not ast.unparse(node.args[0]).startswith("*cells(")
    }
    assert found == plain


def test_hints_of_the_package_are_told_once_and_only_where_they_are_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    for hints in (True, False):
        set_up_messages(debug=False, hints=hints)
        log = logging.getLogger("grounded_seg.somewhere")
        for number in range(2):
            log.info("image %d is large", number, extra={"once": True, "is_hint": True})
        assert capsys.readouterr().err.splitlines() == (["hint: image 0 is large"] if hints else [])


def test_hints_of_workers_are_hints_too(capsys: pytest.CaptureFixture[str]) -> None:
    said = _collected_log(logging.INFO)
    logging.getLogger("grounded_seg.somewhere").info("%s is large", "a.png", extra={"once": True, "is_hint": True})
    set_up_messages(debug=False)
    for record in said * 2:
        logging.getLogger("grounded_seg").handle(logging.makeLogRecord(record))
    assert capsys.readouterr().err.splitlines() == ["hint: a.png is large"]
