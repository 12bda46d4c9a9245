"""Every script of the checkout starts: what it imports is there, and it says what it takes."""

import ast
import importlib

import pytest
from paths import ROOT
from script_cases import run_script

FOLDERS = ("benchmarks", "checkpoints/make_demo", "examples")
FILES = sorted(path.relative_to(ROOT).as_posix() for folder in FOLDERS for path in (ROOT / folder).glob("*.py"))
SCRIPTS = [name for name in FILES if 'if __name__ == "__main__":' in (ROOT / name).read_text(encoding="utf-8")]


def test_there_are_scripts() -> None:
    assert {name.rpartition("/")[0] for name in SCRIPTS} == set(FOLDERS)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_says_what_it_takes(script: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_script(script, "--help") == 0
    said = capsys.readouterr()
    # Nothing else happens on the way: no device is picked, nothing printed.
    assert said.out.startswith("usage: ")
    assert said.err == ""


def test_every_other_file_is_imported_by_a_script() -> None:
    imported = {
        f"{name.rpartition('/')[0]}/{module}.py"
        for name in FILES
        for node in ast.walk(ast.parse((ROOT / name).read_text(encoding="utf-8")))
        for module in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert set(FILES) - set(SCRIPTS) - imported == set()


def test_a_benchmark_fails_only_where_a_bound_was_measured_and_isnt_held(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    must_hold = importlib.import_module("must_hold")
    holds = must_hold.MustHold()
    holds.at_least("speed", 6.0, 6.0)
    holds.at_most("share", None, 0.5)
    holds.at_most("share in bfloat16", 0.9, 0.5, unless="the processor (avx2) has no bfloat16")
    assert holds.exit_code() == 0
    assert capsys.readouterr().out.splitlines() == [
        "must hold: speed: at least 6; it is 6",
        "must hold: share: at most 0.5; not measured: nothing was",
        "must hold: share in bfloat16: at most 0.5; not measured: the processor (avx2) has no bfloat16",
    ]
    holds.at_most("share", 0.51, 0.5)
    assert holds.exit_code() == 1
    assert capsys.readouterr().err == "not met: share: at most 0.5; it is 0.51\n"
