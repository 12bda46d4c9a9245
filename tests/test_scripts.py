"""Every script of the checkout starts: what it imports is there, and it says what it takes."""

import ast
import importlib
from collections.abc import Iterator
from types import ModuleType

import pytest
import torch
from paths import ROOT
from script_cases import run_script, scripts_of
from transformers import Florence2ForConditionalGeneration

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


def test_a_benchmark_fails_only_where_a_bound_was_measured_and_isnt_held(capsys: pytest.CaptureFixture[str]) -> None:
    with scripts_of(ROOT / "benchmarks"):
        holds = importlib.import_module("must_hold").MustHold()
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


@pytest.fixture
def demo_model() -> Iterator[ModuleType]:
    """Give the module that makes the demo's detector."""
    with scripts_of(ROOT / "checkpoints" / "make_demo"):
        yield importlib.import_module("demo_model")


def test_codes_of_places_are_stretched_to_more_image_tokens(demo_model: ModuleType) -> None:
    n_before, n_prompt, grid = 4, 5, demo_model.GRID
    # One code for each of: what BART leaves out (2), the image, its 4 x 4 parts (their row), the prompt.
    rows = torch.arange(n_before).repeat_interleave(n_before)
    codes = torch.cat([torch.tensor([-2.0, -1.0, 50.0]), rows, 100.0 + torch.arange(n_prompt)])[:, None]
    fresh = torch.full((3 + grid**2 + n_prompt + 2, 1), 7.0)
    stretched = demo_model.stretched_positions(codes, fresh, n_before)[:, 0]
    parts = stretched[3 : 3 + grid**2].unflatten(0, (grid, grid))
    assert stretched[:3].tolist() == [-2, -1, 50]
    # Pixel centres: part 1.5 of 16 is part 0 of 4, and each step is a quarter of one there; the ends are repeated.
    torch.testing.assert_close(parts[:, 0], ((torch.arange(grid) + 0.5) / grid * n_before - 0.5).clamp(0, n_before - 1))
    torch.testing.assert_close(parts, parts[:, :1].expand(grid, grid))
    assert stretched[3 + grid**2 :].tolist() == [100, 101, 102, 103, 104, 7, 7]
    # Positions of answers have no parts.
    assert demo_model.stretched_positions(codes, fresh, 0)[:, 0].tolist() == [
        *codes[:, 0].tolist(),
        *[7.0] * (len(fresh) - len(codes)),
    ]


def test_weights_of_the_same_number_of_image_tokens_stay_as_they_are(demo_model: ModuleType) -> None:
    folder = ROOT / "checkpoints" / "demo" / "detector"
    earlier = Florence2ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    state = demo_model.stretched_weights(folder, Florence2ForConditionalGeneration(earlier.config))
    torch.testing.assert_close(state, dict(earlier.state_dict()), rtol=0, atol=1e-6)
