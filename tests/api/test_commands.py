"""What the commands do, as functions: their results equal the command line's, and nothing is printed."""

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Paint
from eval_cases import grounded_seg as command
from fakes import ColourDetector

import grounded_seg
from grounded_seg import UsageError

PROMPTS = "red car; green car"


def files_of(folder: Path) -> dict[str, bytes]:
    """All files below a folder; of a manifest, no times and paths."""
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("run.json", None)
    return found


@pytest.fixture(autouse=True)
def _silent(request: pytest.FixtureRequest, capfd: pytest.CaptureFixture[str]) -> Any:
    """Nothing is printed, but by the command itself, which a runner catches."""
    yield
    assert capfd.readouterr() == ("", "")


def test_a_run_is_that_of_the_command(detector: ColourDetector, scenes: Path, tmp_path: Path) -> None:
    images, told = scenes.parent / "images", list[tuple[int, int]]()
    by_command = command("run", PROMPTS, images, "--preset", "demo", "--save", "masks", "-o", tmp_path / "command")
    assert by_command.exit_code == 0, by_command.stderr
    counts = grounded_seg.run_images(
        PROMPTS, images, tmp_path / "function", preset="demo", save=["masks"], progress=lambda *done: told.append(done)
    )
    assert files_of(tmp_path / "function") == files_of(tmp_path / "command")
    assert (counts.n_done, counts.n_instances) == (3, 3)
    assert told == [(0, 3), (1, 3), (2, 3), (3, 3)]
    pattern = grounded_seg.run_images(PROMPTS, [f"{images}/[12].png"], tmp_path / "two", save=())
    assert pattern.n_images == 2


def test_shards_are_merged_as_by_the_command(detector: ColourDetector, scenes: Path, tmp_path: Path) -> None:
    images = scenes.parent / "images"
    whole = grounded_seg.run_images(PROMPTS, images, tmp_path / "whole", save=(), results="parquet")
    for shard in ("1/2", "2/2"):
        grounded_seg.run_images(PROMPTS, images, tmp_path / f"shard-{shard[0]}", save=(), shard=shard)
    # A single text is a pattern, not a list of letters.
    merged = grounded_seg.merge_runs(f"{tmp_path}/shard-*", tmp_path / "merged", results="parquet")
    assert (merged.n_images, merged.n_instances) == (whole.n_images, whole.n_instances) == (3, 3)
    assert files_of(tmp_path / "merged") == files_of(tmp_path / "whole")
    assert len(files_of(tmp_path / "merged")) == 4
    status = grounded_seg.run_status([tmp_path / "shard-2", tmp_path / "shard-1"])
    assert (status.done, status.left, [one.shard for one in status.runs]) == (3, 0, ["2/2", "1/2"])
    with pytest.raises(UsageError, match="results is 'csv', it must be one of coco, parquet"):
        grounded_seg.merge_runs([tmp_path / "whole"], tmp_path / "other", results="csv")
    with pytest.raises(UsageError, match="shard is '3/2', it must be K/N"):
        grounded_seg.run_images(PROMPTS, images, tmp_path / "other", shard="3/2")


def test_an_evaluation_is_that_of_the_command(detector: ColourDetector, scenes: Path, tmp_path: Path) -> None:
    images = scenes.parent / "images"
    options = ("--images", images, "--preset", "demo", "--intervals", "10", "--score-threshold", "0.3")
    by_command = command("eval", scenes, *options, "--json", tmp_path / "report.json")
    assert by_command.exit_code == 0, by_command.stderr
    evaluation = grounded_seg.evaluate(scenes, images=images, preset="demo", n_resamples=10, score_threshold=0.3)
    expected, report = json.loads((tmp_path / "report.json").read_text()), json.loads(json.dumps(evaluation.report()))
    for one in (expected, report):
        one.pop("speed")
    assert report == expected
    assert "3 images, 3 predictions: AP of boxes 1.000, AP of masks 0." in repr(evaluation)


def test_predictions_are_scored_as_by_the_command(detector: ColourDetector, scenes: Path, tmp_path: Path) -> None:
    grounded_seg.run_images("red; green; blue", scenes.parent / "images", tmp_path / "run", save=[])
    file = tmp_path / "run" / "annotations.json"
    by_command = command("eval", scenes, "--predictions", file, "--json", tmp_path / "report.json")
    assert by_command.exit_code == 0, by_command.stderr
    evaluation = grounded_seg.evaluate(scenes, predictions=file)
    assert json.loads(json.dumps(evaluation.report())) == json.loads((tmp_path / "report.json").read_text())
    with pytest.raises(UsageError, match="leave them out with predictions"):
        grounded_seg.evaluate(scenes, predictions=file, output=tmp_path / "kept")
    with pytest.raises(UsageError, match="--images"):
        grounded_seg.evaluate(scenes)


def test_calibration_and_suggestion_are_those_of_the_commands(
    detector: ColourDetector, scenes: Path, tmp_path: Path
) -> None:
    images, report, by_command = scenes.parent / "images", tmp_path / "report.json", tmp_path / "command.json"
    options = ("--images", images, "--preset", "demo", "--boxes-only")
    classes = tmp_path / "command.yaml"
    assert command("eval", scenes, *options, "--json", report, "--suggest", classes).exit_code == 0
    assert command("calibrate", report, "-o", by_command).exit_code == 0
    made = grounded_seg.calibrate(report, str(tmp_path / "function.json"))
    assert made.path.read_bytes() == by_command.read_bytes()
    assert [one.name for one in made.judged] == [None, "red", "green"]
    measured = grounded_seg.evaluate(scenes, images=images, preset="demo", boxes_only=True)
    assert measured.suggest(str(tmp_path / "function.yaml")).read_bytes() == classes.read_bytes()
    calibrated = grounded_seg.evaluate(scenes, images=images, preset="demo", calibration=str(by_command))
    assert calibrated.made_with["calibration"]["name"] == "command.json"
    scores = {one.score for one in calibrated.predictions}
    # Three of three are right.
    assert all(2 / 3 < score < 1 for score in scores)
    grounded_seg.run_images(PROMPTS, images, tmp_path / "run", preset="demo", save=(), calibration=by_command)
    with pytest.raises(UsageError, match="calibration is for asking the models; give it to the run"):
        grounded_seg.evaluate(scenes, predictions=tmp_path / "run", calibration=by_command)


def test_an_export_is_that_of_the_command(scenes: Path, tmp_path: Path) -> None:
    options = ("--to", "yolo", "--split", "50/50", "--seed", "3", "--classes", "red;green")
    assert command("export", scenes, *options, "-o", tmp_path / "command").exit_code == 0
    told = list[tuple[int, int]]()
    own: dict[str, Any] = {"split": (50, 50), "seed": 3, "classes": ["red", "green"]}
    report = grounded_seg.export_labels(
        scenes, tmp_path / "function", "yolo", **own, progress=lambda *done: told.append(done)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert files_of(tmp_path / "function") == files_of(tmp_path / "command")
    assert report.n_images == 3


def test_files_are_read_checked_and_repaired_as_by_the_commands(scenes: Path, tmp_path: Path) -> None:
    data_set = grounded_seg.read_coco(str(scenes))
    assert repr(data_set) == f"DataSet({str(scenes)!r}: 3 images, 3 classes, 3 objects)"
    document = json.loads(scenes.read_text())
    document["annotations"][0]["bbox"][2] = -4
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(document))
    by_command = command("validate", broken, "--fix", tmp_path / "command.json")
    faults = grounded_seg.validate_coco(broken)
    assert all(fault.place in by_command.stdout for fault in faults)
    assert faults
    repairs = grounded_seg.repair_coco(broken, tmp_path / "function.json")
    assert all(f"repaired {line}" in by_command.stdout for line in repairs)
    assert (tmp_path / "function.json").read_bytes() == (tmp_path / "command.json").read_bytes()


def test_runs_are_merged_as_by_the_command(detector: ColourDetector, paint: Paint, tmp_path: Path) -> None:
    for name in ("a", "b"):
        paint(f"{name}/{name}.png", red=(2, 3, 12, 9))
        grounded_seg.run_images(PROMPTS, tmp_path / name, tmp_path / f"run-{name}", save=[])
    runs = [tmp_path / "run-a", tmp_path / "run-b"]
    assert command("merge-runs", *runs, "-o", tmp_path / "command").exit_code == 0
    told = list[tuple[int, int]]()
    counts = grounded_seg.merge_runs(runs, tmp_path / "function", progress=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    assert files_of(tmp_path / "function") == files_of(tmp_path / "command")
    assert counts.n_done == 2


def test_presets_are_those_of_the_command() -> None:
    listed = command("models", "list").stdout
    presets = grounded_seg.presets()
    assert [one.name for one in presets] == ["demo", "fast", "base", "base-ft", "large", "large-ft"]
    assert presets[0].is_on_disk
    assert (presets[0].detector, presets[1].adapter) == ("demo/detector", None)
    assert all(one.name in listed for one in presets)


@pytest.mark.parametrize(
    "call",
    [
        lambda: grounded_seg.run_images("a", "b", "c", score=1),  # type: ignore[call-arg]
        lambda: grounded_seg.evaluate("a", score=1),  # type: ignore[call-arg]
        lambda: grounded_seg.export_labels("a", "b", "yolo", score=1),  # type: ignore[call-arg]
    ],
)
def test_an_unknown_setting_is_told_with_those_there_are(call: Any) -> None:
    with pytest.raises(UsageError, match=r"there is no setting 'score'.*the settings are .*_.*, ") as caught:
        call()
    assert "\n" not in str(caught.value)


def test_an_export_knows_what_other_tools_call_its_settings() -> None:
    with pytest.raises(
        UsageError, match=r"there is no setting 'copy_images' \(did you mean pictures=\"copy\"\?\); the"
    ):
        grounded_seg.export_labels("a", "b", "yolo", copy_images=True)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match=r"there is no setting 'conf' \(did you mean 'min_score'\?\); the"):
        grounded_seg.export_labels("a", "b", "yolo", conf=0.5)  # type: ignore[call-arg]
