"""Every script of the checkout starts: what it imports is there, and it says what it takes."""

import ast

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
