"""`calibrate`, `--calibration` and `--suggest` through the command line, from a report to a run that keeps to it."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import calibration_file
from coco_cases import Box, truth, written
from conftest import Paint
from eval_cases import grounded_seg
from fakes import ColourDetector

from grounded_seg.detect.class_file import read_classes
from grounded_seg.records import Detection, Image
from grounded_seg.scoring.score_maps import read_calibration

N_IMAGES = 40


@pytest.fixture
def detector(detector: ColourDetector, monkeypatch: pytest.MonkeyPatch) -> ColourDetector:
    """Beside each thing it sees another one, further down; scores overlap."""
    plain = detector.detect

    def detect(images: Sequence[Image], *rest: Any, **options: Any) -> list[tuple[Detection, ...]]:
        return [
            tuple(other for one in found for other in _two(one, image.path.name))
            for image, found in zip(images, plain(images, *rest, **options), strict=True)
        ]

    monkeypatch.setattr(detector, "detect", detect)
    return detector


def _two(one: Detection, name: str) -> list[Detection]:
    rng = np.random.default_rng(int(name.partition(".")[0]))
    right, wrong = float(rng.beta(4, 3)), float(rng.beta(3, 4))
    x0, _, x1, _ = one.box_xyxy
    both = [replace(one, score=right), replace(one, score=wrong, box_xyxy=(x0, 18.0, x1, 28.0))]
    return sorted(both, key=lambda each: -each.score)


@pytest.fixture
def scenes(tmp_path: Path, paint: Paint) -> Path:
    """A red thing on each picture."""
    box: Box = (2, 3, 12, 12)
    for number in range(1, N_IMAGES + 1):
        paint(f"images/{number}.png", red=(2, 3, 14, 15))
    document = truth(*((number, 1, box) for number in range(1, N_IMAGES + 1)), n_images=N_IMAGES, classes=("red",))
    for image in document["images"]:
        image |= {"width": 40, "height": 30}
    return written(tmp_path / "truth.json", document)


def report(scenes: Path, name: str, *options: object) -> dict[str, Any]:
    file = scenes.parent / name
    done = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--boxes-only", "--json", file, *options)
    assert done.exit_code == 0, done.stderr
    read: dict[str, Any] = json.loads(file.read_text())
    return read


def test_a_report_becomes_a_calibration_that_eval_and_run_take(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    before = report(scenes, "before.json")
    file = tmp_path / "calibration.json"
    done = grounded_seg("calibrate", tmp_path / "before.json", "-o", file)
    assert done.exit_code == 0
    assert "the Brier score rose for all together, red: their scores are better as they are" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["class", "map"]
    assert lines[1].split()[:6] == ["all", "classes", "each", "its", "own", str(2 * N_IMAGES)]
    assert lines[2].split()[:3] == ["red", "isotonic", str(2 * N_IMAGES)]
    assert f"{before['calibration']['boxes']['error']:.3f}" in lines[1]
    assert f"{before['calibration']['boxes']['brier']:.3f}" in lines[1]
    assert lines[-1] == str(file)
    after = report(scenes, "after.json", "--calibration", file)
    note = "calibration.json was fitted to this data set"
    assert [note in one for one in after["notes"]].count(True) == 1
    assert after["calibration"]["boxes"]["error"] < before["calibration"]["boxes"]["error"]
    assert after["boxes"] == before["boxes"]
    named = {"name": "calibration.json", "sha256": read_calibration(file).sha256}
    assert after["made_with"]["calibration"] == named
    assert "calibration" not in before["made_with"]
    run = tmp_path / "run"
    options = ("-o", run, "--save", "none", "--score-threshold", 0, "--boxes-only", "--calibration", file)
    assert grounded_seg("run", "red", scenes.parent / "images", *options).exit_code == 0
    done = grounded_seg("eval", scenes, "--predictions", run, "--json", tmp_path / "run.json")
    assert done.exit_code == 0, done.stderr
    scored = json.loads((tmp_path / "run.json").read_text())
    assert scored["calibration"] == after["calibration"]
    assert scored["boxes"]["AP"] == before["boxes"]["AP"]
    assert scored["made_with"]["calibration"] == named
    assert scored["made_with"]["weights"]["detector"]["name"] == "base-ft"
    compared = grounded_seg("compare", tmp_path / "before.json", tmp_path / "after.json", "--intervals", 0)
    assert "before.json has scores as they are, after.json has probabilities of calibration.json" in compared.stdout
    assert "Not alike" not in grounded_seg("compare", *[tmp_path / "after.json"] * 2, "--intervals", 0).stdout
    # Probabilities aren't calibrated again.
    done = grounded_seg("calibrate", tmp_path / "after.json", "-o", tmp_path / "twice.json")
    assert done.exit_code == 2
    assert "was measured with a calibration" in done.stderr


def test_reliability_is_drawn_before_and_after(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report(scenes, "before.json")
    done = grounded_seg("calibrate", tmp_path / "before.json", "-o", tmp_path / "c.json", "--plots", tmp_path / "plots")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "plots" / "calibration.png")
    assert (tmp_path / "plots" / "calibration.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["calibrate", "none.json", "-o", "c.json"], 3, "none.json"),
        (["calibrate", "truth.json", "-o", "c.json"], 3, "is no report of eval"),
        (["calibrate", "truth.json"], 2, "Missing option '-o'"),
        (["run", "red", "images", "--calibration", "none.json"], 3, "none.json"),
        (["run", "red", "images", "--calibration", "truth.json"], 3, "is no calibration ('format' is missing)"),
        (
            ["eval", "truth.json", "--predictions", "x", "--calibration", "c.json"],
            2,
            "--calibration is for asking the m",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    scenes: Path, detector: ColourDetector, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, says: str
) -> None:
    monkeypatch.chdir(scenes.parent)
    done = grounded_seg(*words)
    assert done.exit_code == code
    assert says in done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1


def test_suggested_thresholds_are_taken_by_run_and_hold(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    classes = tmp_path / "classes.yaml"
    before = report(scenes, "before.json", "--suggest", classes, "--intervals", 50)
    [red] = before["thresholds"]["boxes"]
    best = red["best_f1"]
    assert (red["name"], red["n_objects"]) == ("red", N_IMAGES)
    assert best["F1_interval"][0] <= best["F1"]
    found = read_classes(classes)
    assert (found.prompts, found.classes, found.calibration) == (("red",), ("red",), "none")
    assert found.rules[0].threshold == best["threshold"]
    text = classes.read_text()
    assert "measured on truth.json (40 images)" in text
    assert f"threshold: {best['threshold']}  # F1 {best['F1']:.3f}, {best['F1_interval'][0]:.3f} to " in text
    run = tmp_path / "run"
    options = ("-o", run, "--save", "none", "--boxes-only")
    done = grounded_seg("run", f"@{classes}", scenes.parent / "images", *options)
    assert done.exit_code == 0, done.stderr
    found_boxes = json.loads((run / "annotations.json").read_text())["annotations"]
    right = sum(one["bbox"][1] < 10 for one in found_boxes)
    assert right / len(found_boxes) == pytest.approx(best["precision"])
    assert right / N_IMAGES == pytest.approx(best["recall"])
    # Scores that mean something else need other thresholds.
    calibration = calibration_file(tmp_path / "c.json")
    done = grounded_seg(
        "run", f"@{classes}", scenes.parent / "images", *options, "--overwrite", "--calibration", calibration
    )
    assert done.exit_code == 2
    assert "the thresholds of the classes were chosen for scores without a calibration" in done.stderr


def test_suggestions_from_probabilities_name_their_calibration(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    report(scenes, "before.json")
    file, classes = tmp_path / "c.json", tmp_path / "folder" / "classes.yaml"
    assert grounded_seg("calibrate", tmp_path / "before.json", "-o", file).exit_code == 0
    prompts = written(
        tmp_path / "prompts.yaml", "red thing: {class: red, threshold: 0.9, not: [green one], min_area: 4}\n"
    )
    options = ("--calibration", file, "--suggest", classes, "--prompts", prompts)
    done = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--boxes-only", *options)
    assert done.exit_code == 0, done.stderr
    assert "note: thresholds of classes are left out, as every box is measured" in done.stderr
    assert done.stdout.splitlines()[-1] == str(classes)
    found = read_classes(classes)
    assert found.calibration == read_calibration(file).sha256
    [rule] = found.rules
    assert (found.prompts, found.class_names) == (("red thing",), ("red",))
    assert (rule.unwanted, rule.min_area) == (("green one",), 4)
    assert rule.threshold not in (None, 0.9)
    run = ("run", f"@{classes}", scenes.parent / "images", "-o", tmp_path / "run", "--save", "none")
    done = grounded_seg(*run)
    assert done.exit_code == 2
    assert "and none is given; name that one with --calibration" in done.stderr
    assert grounded_seg(*run, "--calibration", file).exit_code == 0
    # What a run was asked is suggested again, whole.
    again = tmp_path / "again.yaml"
    done = grounded_seg("eval", scenes, "--predictions", tmp_path / "run", "--suggest", again)
    assert done.exit_code == 0, done.stderr
    assert read_classes(again).rules[0].unwanted == ("green one",)
    assert read_classes(again).calibration == found.calibration


def test_the_tables_have_a_row_of_thresholds_for_each_class(scenes: Path, detector: ColourDetector) -> None:
    done = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--boxes-only")
    assert done.exit_code == 0, done.stderr
    head = next(line for line in done.stdout.splitlines() if "best F1 of boxes" in line)
    for words in ("threshold", "precision", "recall", "90 % precision from", "95 % precision from"):
        assert words in head
    assert ", Brier score 0." in done.stdout
