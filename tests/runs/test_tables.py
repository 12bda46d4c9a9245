"""Tables of a run, in Parquet: when they are written, kept up and taken out."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import Paint
from fakes import ColourDetector, Silent
from pyarrow import parquet

from grounded_seg.cli import main
from grounded_seg.coco import parquet as tables
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.errors import ImageAccessError
from grounded_seg.runs import run as runs
from grounded_seg.runs.run import run_images
from grounded_seg.settings import ResultsForm, RunSettings

RED = prompts_from(["red car"])
NAMES = ("results.parquet", "images.parquet")


@pytest.fixture
def photos(paint: Paint) -> Path:
    folder = paint("photos/a.png", red=(2, 3, 12, 9)).parent
    paint("photos/b.png", red=(2, 3, 20, 20))
    (folder / "c.png").write_bytes(b"")
    return folder


@pytest.fixture
def settings(tmp_path: Path) -> RunSettings:
    return RunSettings(tmp_path / "out", results=ResultsForm.PARQUET, save=frozenset())


def tables_of(settings: RunSettings) -> dict[str, bytes]:
    return {name: (settings.output / name).read_bytes() for name in NAMES if (settings.output / name).exists()}


def test_the_command_writes_and_names_them(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    words = ["run", "red car", str(photos), "-o", str(settings.output), "--results", "parquet", "--save", "none"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    assert [line for line in result.stdout.splitlines() if line.endswith(".parquet")] == [
        str(settings.output / name) for name in NAMES
    ]
    rows = parquet.read_table(settings.output / "results.parquet").to_pylist()
    assert [(row["file_name"], row["bbox_w"]) for row in rows] == [("a.png", 8.0), ("b.png", 16.0)]
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 2
    assert "already holds annotations.json, results.parquet, images.parquet" in again.stderr


def test_a_finished_run_gets_them_without_any_model(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_images(RED, [photos], settings, Silent())
    wanted, manifest = tables_of(settings), (settings.output / "run.json").read_bytes()
    for name in NAMES:
        (settings.output / name).unlink()
    monkeypatch.setattr(runs, "find_models", None)
    counts = run_images(RED, [photos], replace(settings, resume=True), Silent())
    assert (tables_of(settings), counts.n_images) == (wanted, 3)
    assert (settings.output / "run.json").read_bytes() == manifest
    # Only now nothing is left to do.
    monkeypatch.setattr(runs, "write_results", None)
    run_images(RED, [photos], replace(settings, resume=True), Silent())


def test_a_resumed_run_keeps_them_up(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_images(RED, [photos], settings, Silent())
    wanted = tables_of(settings)
    journal = settings.output / "results.jsonl"
    _, *others = journal.read_text().splitlines(keepends=True)
    out_of_reach = {"file_name": "a.png", "status": "skipped", "width": None, "height": None, "instances": [],
                    "reason": "gone", "error": ImageAccessError.__name__}  # fmt: skip
    journal.write_text("".join([f"{json.dumps(out_of_reach)}\n", *others]))
    for path in settings.output.glob("*.parquet"):
        path.write_bytes(b"stale")
    # The option needn't be given again.
    run_images(RED, [photos], replace(settings, resume=True, results=ResultsForm.COCO), Silent())
    assert tables_of(settings) == wanted


def test_replaced_results_take_them_along(detector: ColourDetector, photos: Path, settings: RunSettings) -> None:
    run_images(RED, [photos], settings, Silent())
    assert len(tables_of(settings)) == 2
    run_images(RED, [photos], replace(settings, overwrite=True, results=ResultsForm.COCO), Silent())
    assert tables_of(settings) == {}


def test_without_pyarrow_nothing_begins(
    detector: ColourDetector, photos: Path, settings: RunSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    monkeypatch.setattr(runs, "find_models", None)
    words = ["run", "red car", str(photos), "-o", str(settings.output), "--results", "parquet"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith("error: --results parquet needs pyarrow; install it with `pip install")
    assert not settings.output.exists()
    merged = CliRunner().invoke(main, ["merge-runs", "a", "b", "-o", str(settings.output), "--results", "parquet"])
    assert (merged.exit_code, "needs pyarrow" in merged.stderr) == (2, True)
