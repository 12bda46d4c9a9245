"""Every hostile input that was ever found ends in one clean line, and in the exit code of what it is."""

import importlib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import CASES, ROOT
from tiny_florence import save_tiny_florence

from grounded_seg.cli import main

HOSTILE = CASES / "hostile"
NAMES = sorted(path.name for path in HOSTILE.iterdir()) if HOSTILE.is_dir() else ["(../shared/cases isn't here)"]


@pytest.fixture(scope="module")
def hostile_inputs() -> Any:
    """The script that measures the same cases."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("hostile_inputs")


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, hostile_inputs: Any) -> tuple[Path, Path, Path]:
    """A tiny detector, and a training and a run by it."""
    folder = tmp_path_factory.mktemp("stage")
    detector = save_tiny_florence(folder / "detector")
    dataset = hostile_inputs.training_coco(folder / "data")
    images, run = hostile_inputs.pictures(folder / "images", 3), folder / "run"
    for words in (
        hostile_inputs.train_words(dataset, folder / "trained", detector),
        hostile_inputs.finished_run_words(images, run, detector),
    ):
        done = CliRunner().invoke(main, words)
        assert done.exit_code == 0, done.output
    return detector, folder / "trained", run


@pytest.mark.skipif(not HOSTILE.is_dir(), reason="../shared/cases isn't here")
@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_input_ends_in_one_clean_line(
    name: str, tmp_path: Path, stage: tuple[Path, Path, Path], hostile_inputs: Any
) -> None:
    make, codes = hostile_inputs.kind_of(name)
    words = make(hostile_inputs.Given(tmp_path, HOSTILE / name, *stage))
    done = CliRunner().invoke(main, words)
    said = (done.exit_code, done.stdout[-400:], done.stderr[-1500:])
    assert done.exit_code in codes, said
    assert hostile_inputs.controls_in(done.stdout + done.stderr) == [], said
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    # A fix lists what it found on stdout; a data set's rows are named one by one.
    assert len(errors) == int(done.exit_code != 0 and words[0] != "validate"), said


def test_every_kind_of_case_has_its_command(hostile_inputs: Any) -> None:
    assert [name for name in NAMES if HOSTILE.is_dir() and not hostile_inputs.kind_of(name)] == []


def test_controls_are_found(hostile_inputs: Any) -> None:
    assert hostile_inputs.controls_in("error: a\x1b[31m\u202eb\x7f é\n") == ["'\\u202e'", "'\\x1b'", "'\\x7f'"]
