"""`compare` through the command line: what changed, and what isn't alike in two reports."""

import json
from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, results, truth, written
from eval_cases import grounded_seg
from fakes import ColourDetector

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.evaluation.source_run import SourceRun, run_of


def test_two_reports_are_compared(tmp_path: Path) -> None:
    box: Box = (10, 10, 40, 40)
    document = truth(*((image, 1, box) for image in range(1, 9)), n_images=10)
    truth_file = written(tmp_path / "truth.json", document)
    poor = results(*((image, 1, box, 0.9) for image in range(1, 2)), (9, 2, box, 0.9))
    good = results(*((image, 1, box, 0.9) for image in range(2, 9)))
    for name, found in (("poor", poor), ("good", good)):
        predictions = written(tmp_path / f"{name}-found.json", found)
        outcome = grounded_seg("eval", truth_file, "--predictions", predictions, "--json", tmp_path / f"{name}.json")
        assert outcome.exit_code == 0, outcome.stderr
    outcome = grounded_seg("compare", tmp_path / "poor.json", tmp_path / "good.json", "--intervals", 200)
    assert outcome.exit_code == 0, outcome.stderr
    assert "on 10 images" in outcome.stdout
    # Recall from 1 to 7 of 8.
    assert "| AR100 | 0.125 | 0.875 | **+0.750** [" in outcome.stdout
    assert "| IL_FPR | 0.083 | 0.000 | -0.083 [" in outcome.stdout
    assert "| AP_small | - | - | - |" in outcome.stdout
    assert "## Images that got better: 8" in outcome.stdout
    assert (
        "## Images that got worse: 1\n\n| image | F1 first | F1 second |\n|---|---:|---:|\n| 1.png | 1.00 | 0.00 |"
        in outcome.stdout
    )
    same = grounded_seg("compare", tmp_path / "good.json", tmp_path / "good.json", "--intervals", 20)
    assert "**" not in same.stdout


def test_what_is_not_alike_in_two_reports_is_said(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    asked = ("eval", scenes, "--images", scenes.parent / "images")
    assert grounded_seg(*asked, "--json", tmp_path / "all.json").exit_code == 0
    some = ("--absent", 1, "--score-threshold", 0.25, "--json", tmp_path / "some.json")
    assert grounded_seg(*asked, *some).exit_code == 0
    outcome = grounded_seg("compare", tmp_path / "all.json", tmp_path / "some.json", "--intervals", 2)
    # Image 1 is asked about red, green and blue, image 2 about red and one more, image 3 about one.
    assert "all.json is about 9 questions, some.json about 6" in outcome.stdout
    assert "F1 is 0.5 in all.json, 0.25 in some.json" in outcome.stdout
    same = grounded_seg("compare", tmp_path / "all.json", tmp_path / "all.json", "--intervals", 2)
    assert "Not alike" not in same.stdout


def test_reports_of_different_data_sets_are_not_compared(tmp_path: Path) -> None:
    box: Box = (10, 10, 40, 40)
    for name, image in (("a", 1), ("b", 2)):
        file = written(tmp_path / f"{name}-truth.json", truth((image, 1, box), n_images=2))
        found = written(tmp_path / "found.json", results((1, 1, box, 0.9)))
        grounded_seg("eval", file, "--predictions", found, "--json", tmp_path / f"{name}.json")
    outcome = grounded_seg("compare", tmp_path / "a.json", tmp_path / "b.json")
    assert (outcome.exit_code, outcome.stdout) == (3, "")
    assert "different data sets" in outcome.stderr


@pytest.mark.parametrize("text", ["[]", "{}", '{"data_set": {}, "matches": {}}', "not json", ""])
def test_what_is_no_report_is_said(tmp_path: Path, text: str) -> None:
    file = written(tmp_path / "a.json", text)
    outcome = grounded_seg("compare", file, file)
    assert outcome.exit_code == 3
    assert str(file) in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def evaluated(folder: Path, name: str, document: Any, *options: object) -> Path:
    """The report of predictions on image 1 of a data set of boxes and masks."""
    truth_file = written(folder / "truth.json", document)
    found = written(folder / "found.json", results((1, 1, (10, 10, 40, 40), 0.9)))
    report = folder / f"{name}.json"
    outcome = grounded_seg("eval", truth_file, "--predictions", found, "--json", report, *options)
    assert outcome.exit_code == 0, outcome.stderr
    return report


def test_presence_on_boxes_is_not_compared_with_presence_on_masks(tmp_path: Path) -> None:
    document = truth((1, 1, (10, 10, 40, 40)), n_images=2)
    whole = evaluated(tmp_path, "whole", document)
    boxes = evaluated(tmp_path, "boxes", document, "--boxes-only")
    outcome = grounded_seg("compare", boxes, whole, "--intervals", 5)
    said = "presence was measured on boxes in boxes.json, on masks in whole.json; its cgF1 is left out."
    assert f"**Not alike:** {said}" in outcome.stdout
    assert "| cgF1 | - | - | - |" in outcome.stdout
    assert "| IL_FPR | 0.000 | 0.000 | " in outcome.stdout
    alike = grounded_seg("compare", whole, whole, "--intervals", 0)
    assert "| cgF1 | 1.000 | 1.000 | +0.000 |" in alike.stdout
    assert "Not alike" not in alike.stdout


def test_without_draws_nothing_is_said_of_intervals(tmp_path: Path) -> None:
    report = evaluated(tmp_path, "one", truth((1, 1, (10, 10, 40, 40))))
    outcome = grounded_seg("compare", report, report, "--intervals", 0)
    assert outcome.stdout.splitlines()[0] == "Figures of one.json and one.json on 1 images."
    assert "[" not in outcome.stdout
    assert "over 3 paired bootstrap resamples" in grounded_seg("compare", report, report, "--intervals", 3).stdout


def test_a_truth_whose_boxes_moved_is_said(tmp_path: Path) -> None:
    first = truth((1, 1, (10, 10, 40, 40)), (2, 2, (5, 5, 20, 20)), n_images=2)
    moved = truth((1, 1, (11, 10, 40, 40)), (2, 2, (5, 5, 20, 20)), n_images=2)
    # The same in another order, with other ids.
    turned = json.loads(json.dumps(first))
    turned["annotations"].reverse()
    for one in turned["annotations"]:
        one["id"] += 70
    reports = {
        name: evaluated(tmp_path, name, document)
        for name, document in (("first", first), ("moved", moved), ("turned", turned))
    }
    said = "**Not alike:** the truth: the same images and as many objects"
    assert said in grounded_seg("compare", reports["first"], reports["moved"], "--intervals", 0).stdout
    older = json.loads(reports["moved"].read_text())
    del older["data_set"]["sha256"]
    written(reports["moved"], older)
    for unsuspected in (reports["moved"], reports["first"]):
        outcome = grounded_seg("compare", reports["first"], unsuspected, "--intervals", 0)
        assert (outcome.exit_code, said in outcome.stdout) == (0, False)


def test_predictions_that_were_cut_are_not_alike(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    images = scenes.parent / "images"
    for name, threshold in (("cut", 0.5), ("less", 0.25), ("whole", 0)):
        options = ("-o", tmp_path / name, "--score-threshold", threshold, "--save", "none")
        assert grounded_seg("run", "red; green; blue", images, *options).exit_code == 0
        found = tmp_path / name / "annotations.json"
        outcome = grounded_seg("eval", scenes, "--predictions", found, "--json", tmp_path / f"{name}.json")
        assert outcome.exit_code == 0, outcome.stderr
    asked = tmp_path / "asked.json"
    assert grounded_seg("eval", scenes, "--images", images, "--json", asked).exit_code == 0
    cut = grounded_seg("compare", tmp_path / "cut.json", tmp_path / "less.json", "--intervals", 0).stdout
    assert "cut.json has predictions scored 0.5 or more, less.json has predictions scored 0.25 or more" in cut
    cut = grounded_seg("compare", tmp_path / "cut.json", asked, "--intervals", 0).stdout
    assert "cut.json has predictions scored 0.5 or more, asked.json has predictions of any score" in cut
    assert "Not alike" not in grounded_seg("compare", tmp_path / "whole.json", asked, "--intervals", 0).stdout


def test_merged_runs_were_cut_at_the_highest_threshold(tmp_path: Path) -> None:
    parts = [{"settings": {"detect": {"score_threshold": threshold}}} for threshold in (0.25, 0.75)]
    written(tmp_path / "run.json", {"prompts": {"red car": "car"}, "merged": parts})
    run = run_of(tmp_path / "results.jsonl")
    assert run == SourceRun(PromptSet(("red car",), ("car",)), 0.75)
    written(tmp_path / "run.json", {"settings": {"detect": None}})
    assert run_of(tmp_path / "annotations.json") == SourceRun()
    # A file that is none of a run's own says nothing of the run beside it.
    assert run_of(tmp_path / "found.json") is None
