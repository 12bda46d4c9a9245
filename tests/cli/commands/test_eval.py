"""`eval` through the command line, on painted pictures with models that need no weights."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from coco_cases import polygon, written
from eval_cases import grounded_seg, report_of
from fakes import ColourDetector

from grounded_seg.scoring import plots


def test_models_are_asked_and_both_stages_measured(scenes: Path, detector: ColourDetector) -> None:
    report = report_of(scenes, "--batch-size", 2)
    # The last batch has the shape of the others, as in a run.
    assert detector.batch_sizes == [2, 2]
    assert report["boxes"]["AP"] == pytest.approx(1)
    # 8 x 8 of 10 x 10 is IoU .64, 8 x 10 of 10 x 12 is .667, 18 x 18 of 20 x 20 is .81. At .75, red's first is wrong
    # and its second right, precision 1/2 up to recall 1/2, which 51 of 101 thresholds are; green's only one is wrong.
    assert report["masks"]["AP50"] == pytest.approx(1)
    assert report["masks"]["AP75"] == pytest.approx(51 / 101 / 2 / 2)
    assert report["masks_given_true_boxes"]["AP"] == report["masks"]["AP"]
    assert [one["AP"] for one in report["boxes"]["per_class"]] == [pytest.approx(1), pytest.approx(1), None]
    assert report["boxes"]["AP_large"] is None
    presence = report["presence"]
    assert (presence["n_positive"], presence["n_negative"]) == (3, 6)
    assert (presence["IL_FPR"], presence["IL_MCC"]) == (0, 1)
    assert report["errors"]["mask_AP_lost_to"]["detector"] == 0
    assert report["errors"]["mask_AP_lost_to"]["segmenter"] == pytest.approx(1 - report["masks"]["AP"])
    assert report["speed"]["images_per_s"] > 0
    assert set(report["made_with"]) >= {"weights", "device", "dtype", "versions", "detect", "segment"}
    assert "intervals" not in report


def test_the_tables_say_what_was_measured(scenes: Path, detector: ColourDetector) -> None:
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--intervals", 20)
    assert outcome.exit_code == 0, outcome.stderr
    assert "3 images, 3 objects, 3 classes" in outcome.stdout
    for words in (
        "masks given the true boxes",
        "95 % interval",
        "IL_FPR",
        "duplicate",
        "calibration error",
        "images/s",
    ):
        assert words in outcome.stdout
    # Blue is nowhere: no figure, which isn't 0.
    [blue] = [line for line in outcome.stdout.splitlines() if line.startswith("blue")]
    assert set(blue.split()[1:]) == {"-"}
    assert outcome.stderr == ""


def test_prompts_and_absent_classes_are_chosen(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    prompts = tmp_path / "classes.yaml"
    prompts.write_text("red thing: red\nred one: red\ngreen thing: green\n")
    report = report_of(scenes, "--prompts", prompts, "--absent", 1)
    assert [one["name"] for one in report["boxes"]["per_class"]] == ["red", "green"]
    # Image 1 has both classes, image 2 is asked about green too, image 3 about one of the two.
    assert (report["presence"]["n_positive"], report["presence"]["n_negative"]) == (3, 2)
    assert [one["prompt"] for one in report["boxes"]["per_prompt"]] == ["red thing", "red one", "green thing"]
    assert report["boxes"]["per_prompt"][1]["AP"] == pytest.approx(1)
    # Two prompts find the same red thing: a duplicate.
    assert report["errors"]["boxes"]["per_kind"]["duplicate"]["n"] == 2


def test_boxes_only(scenes: Path, detector: ColourDetector) -> None:
    report = report_of(scenes, "--boxes-only")
    assert report["boxes"]["AP"] == pytest.approx(1)
    assert not {"masks", "masks_given_true_boxes"} & set(report)
    assert report["presence"]["measured_on"] == "boxes"


def test_help_says_what_the_threshold_is_for() -> None:
    text = " ".join(grounded_seg("eval", "--help").stdout.split())
    threshold = text.partition("--score-threshold")[2].partition("--nms")[0]
    assert "Minimum score for a box to count as found" in threshold
    assert "in presence figures, confusion matrix and worst images; average precision uses all boxes." in threshold
    assert "[default: 0.5]" in threshold
    # Calibration and the other plots take every box as well.
    assert "calibration" not in threshold


def test_help_has_every_exit_code() -> None:
    text = " ".join(grounded_seg("eval", "--help").stdout.split())
    codes = text.partition("Exit code: ")[2].partition(".")[0]
    assert [int(one.split()[0]) for one in codes.split(", ")] == [0, 1, 2, 3, 4, 5, 130]
    assert "1 a file can't be written" in codes


def test_a_run_brings_its_prompts(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    prompts = tmp_path / "classes.yaml"
    prompts.write_text("red thing: red\ngreen thing: green\nblue thing: blue\n")
    images = scenes.parent / "images"
    assert grounded_seg("run", f"@{prompts}", images, "-o", tmp_path / "run", "--save", "none").exit_code == 0
    for name in ("results.jsonl", "annotations.json"):
        file = tmp_path / "report.json"
        outcome = grounded_seg("eval", scenes, "--predictions", tmp_path / "run" / name, "--json", file)
        assert (outcome.exit_code, outcome.stderr.count("\n")) == (0, 1)
        # What the run dropped can't be measured any more.
        assert "the run kept what scores 0.5 or more: AP and recall lack the rest" in outcome.stderr
        report = json.loads(file.read_text())
        weights = report["made_with"].pop("weights")
        assert weights["detector"]["name"] == weights["segmenter"]["name"] == "base-ft"
        assert report["made_with"] == {"predictions": name, "detect": {"score_threshold": 0.5}}
        assert "the run kept what scores 0.5 or more" in report["notes"][-1]
        # The detector's own boxes, not the masks' tight ones.
        assert report["boxes"]["AP"] == pytest.approx(1)
        assert report["boxes"]["per_prompt"][0]["prompt"] == "red thing"
        assert report["masks"]["AP"] < 1
        # The prompts' table has the masks too.
        [row] = [line for line in outcome.stdout.splitlines() if line.startswith("red thing")]
        shown = [
            f"{report[stage]['per_prompt'][0][figure]:.3f}" for stage in ("boxes", "masks") for figure in ("AP", "AP50")
        ]
        assert row.split()[3:] == shown


def test_a_run_that_kept_every_box_needs_no_note(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    images = scenes.parent / "images"
    kept_all = ("--score-threshold", 0, "--save", "none")
    assert grounded_seg("run", "red; green; blue", images, "-o", tmp_path / "run", *kept_all).exit_code == 0
    outcome = grounded_seg("eval", scenes, "--predictions", tmp_path / "run" / "results.jsonl")
    assert (outcome.exit_code, outcome.stderr) == (0, "")


def test_plots_and_the_page_of_the_worst_images(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    document = json.loads(scenes.read_text())
    # A fourth object that nobody finds, with a name that would break a page.
    document["categories"].append({"id": 4, "name": "<b>$ cat & dog</b>"})
    box = (1, 1, 8, 8)
    document["annotations"].append(
        {"id": 9, "image_id": 3, "category_id": 4, "bbox": list(box), "segmentation": [polygon(box)]}
    )
    written(scenes, document)
    report_of(scenes, "--plots", tmp_path / "plots")
    pictures = {path.name for path in (tmp_path / "plots").glob("*.png")}
    kinds = ("precision-recall", "scores", "reliability", "confusion")
    assert pictures == {f"{name}-{stage}.png" for name in kinds for stage in ("boxes", "masks")}
    page = (tmp_path / "plots" / "worst.html").read_text()
    assert "The 1 worst of 3 images" in page
    assert "3.png: F1 0.00, 0 right, 0 wrong, 1 missed" in page
    assert "missed &lt;b&gt;$ cat" in page
    data = (tmp_path / "plots" / "worst" / "data.js").read_text().removeprefix("window.GROUNDED_SEG_WRITTEN = ")
    [item] = json.loads(data.rstrip(";\n"))["items"]
    assert (item["file_name"], item["instances"]) == ("3.png", [])
    [missed] = item["objects"]
    assert (missed["class"], missed["bbox"], missed["found_by"]) == ("<b>$ cat & dog</b>", [1, 1, 8, 8], None)
    assert PIL.Image.open(tmp_path / "plots" / item["picture"]).size == (40, 30)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "--images"),
        (["--predictions", "nowhere.json"], 3, "no file is at nowhere.json"),
        (["--images", "nowhere"], 3, "3 of 3 listed images are not in nowhere, such as '1.png'"),
        (["--predictions", "x.json", "--absent", "2"], 2, "--absent"),
        (["--images", ".", "--resume"], 2, "--output"),
        (["--predictions", "x.json", "-o", "kept"], 2, "leave them out with --predictions"),
        (["--images", ".", "--score-threshold", "2"], 2, "score-threshold"),
    ],
)
def test_wrong_requests_are_one_line(scenes: Path, arguments: list[str], code: int, says: str) -> None:
    outcome = grounded_seg("eval", scenes, *arguments)
    assert (outcome.exit_code, outcome.stdout) == (code, "")
    assert says in outcome.stderr
    assert outcome.stderr.count("\n") == 1


def test_an_image_of_another_size_is_refused(scenes: Path, detector: ColourDetector) -> None:
    PIL.Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(scenes.parent / "images" / "2.png")
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images")
    assert outcome.exit_code == 3
    assert (
        "images[1]: the image '2.png' is 40 x 30 px there, but upright it is 30 x 40 px: width and height are swapped"
        in (outcome.stderr)
    )


def test_the_page_takes_names_that_are_no_text(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    document = json.loads(scenes.read_text())
    document["images"][0]["file_name"] = "odd\udcff.png"
    document["images"][1]["file_name"] = "2.png"
    written(scenes, document)
    images = scenes.parent / "images"
    try:
        (images / "1.png").rename(images / "odd\udcff.png")
    except OSError:
        pytest.skip("this file system takes only names that are text")
    # Nothing is found, so all images with objects are on the page.
    found = written(tmp_path / "found.json", [])
    asked = ("eval", scenes, "--predictions", found, "--images", images, "--plots", tmp_path / "plots")
    outcome = grounded_seg(*asked)
    assert outcome.exit_code == 0, outcome.stderr
    assert "odd\\udcff.png: F1 0.00" in (tmp_path / "plots" / "worst.html").read_text(encoding="utf-8")


def test_plots_without_matplotlib_are_refused_before_anything_is_asked(
    scenes: Path, detector: ColourDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plots, "find_spec", lambda _: None)
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--plots", "plots")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "pip install 'grounded-seg[plots]'" in outcome.stderr
    assert detector.batch_sizes == []


def test_the_page_of_a_files_predictions_needs_images_that_fit(scenes: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = written(tmp_path / "found.json", [{"image_id": 2, "category_id": 2, "bbox": [1, 1, 5, 5], "score": 0.9}])
    images = scenes.parent / "images"
    asked = ("eval", scenes, "--predictions", found, "--images", images, "--plots", tmp_path / "plots")
    assert grounded_seg(*asked).exit_code == 0
    page = (tmp_path / "plots" / "worst.html").read_text()
    assert "The 2 worst of 3 images" in page
    assert "By F1 at IoU 0.5 of boxes with a score of at least 0.5" in page
    PIL.Image.fromarray(np.zeros((40, 30, 3), np.uint8)).save(images / "2.png")
    outcome = grounded_seg(*asked)
    assert outcome.exit_code == 3
    assert (
        "images[1]: the image '2.png' is 40 x 30 px there, but upright it is 30 x 40 px: width and height are swapped"
        in (outcome.stderr)
    )


def test_a_run_as_truth_says_which_boxes_are_compared(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    run = tmp_path / "run"
    images = scenes.parent / "images"
    assert grounded_seg("run", "red; green", images, "-o", run, "--save", "none").exit_code == 0
    truth = run / "annotations.json"
    outcome = grounded_seg("eval", truth, "--predictions", truth)
    assert outcome.exit_code == 0, outcome.stderr
    [line] = [line for line in outcome.stderr.splitlines() if "run's file" in line]
    assert "its boxes are those of the masks, and predicted boxes are the detector's" in line
    # Where both are the annotator's, there is nothing to say.
    assert "run's file" not in grounded_seg("eval", scenes, "--predictions", truth).stderr


def test_the_folder_of_a_run_is_scored_by_its_file(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert grounded_seg("run", "red; green", scenes.parent / "images", "-o", run, "--save", "none").exit_code == 0
    by_name = grounded_seg("eval", scenes, "--predictions", run / "annotations.json")
    assert grounded_seg("eval", scenes, "--predictions", run).stdout == by_name.stdout
    (run / "annotations.json").unlink()
    assert grounded_seg("eval", scenes, "--predictions", run).exit_code == 0
    empty = tmp_path / "empty"
    empty.mkdir()
    refused = grounded_seg("eval", scenes, "--predictions", empty)
    assert refused.exit_code == 3
    assert "is a folder without annotations.json or results.jsonl" in refused.stderr
