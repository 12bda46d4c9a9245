"""`eval` and `compare` through the command line, on painted pictures with models that need no weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner, Result
from coco_cases import Box, polygon, results, truth, written
from conftest import Paint
from fakes import ColourDetector, found_models

from grounded_seg.cli import main
from grounded_seg.coco import plots
from grounded_seg.errors import OutputError
from grounded_seg.evaluation import answers

COLOURS = ("red", "green", "blue")


def grounded_seg(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(one) for one in arguments])


@pytest.fixture
def scenes(tmp_path: Path, paint: Paint) -> Path:
    """Three pictures of 40 x 30 px: red and green, red, nothing. The fake masks lack their boxes' outermost pixels."""
    boxes: dict[int, dict[str, Box]] = {
        1: {"red": (2, 3, 10, 10), "green": (20, 5, 10, 12)},
        2: {"red": (5, 5, 20, 20)},
    }
    for number in (1, 2, 3):
        xyxy = {name: (x, y, x + w, y + h) for name, (x, y, w, h) in boxes.get(number, {}).items()}
        paint(f"images/{number}.png", **{name: tuple(map(int, box)) for name, box in xyxy.items()})
    document = truth(
        *((image, COLOURS.index(name) + 1, box) for image, here in boxes.items() for name, box in here.items()),
        n_images=3,
        classes=COLOURS,
    )
    for image in document["images"]:
        image |= {"width": 40, "height": 30}
    return written(tmp_path / "truth.json", document)


def report_of(scenes: Path, *options: object) -> dict[str, Any]:
    file = scenes.parent / "report.json"
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "--json", file, *options)
    assert outcome.exit_code == 0, outcome.stderr
    report: dict[str, Any] = json.loads(file.read_text())
    return report


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


def test_an_evaluation_goes_on_where_it_was(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report_of(scenes)
    asked = ("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept")
    kept: list[Any] = []

    def keep_one(line: Any, settings: Any) -> None:
        if kept:
            raise OutputError("the disk is full")
        kept.append(line)
        real(line, settings)

    real = answers.keep
    with monkeypatch.context() as patch:
        patch.setattr(answers, "keep", keep_one)
        assert grounded_seg(*asked).exit_code == 1
    lines = tmp_path / "kept" / "answers.jsonl"
    lines.write_text(lines.read_text() + '{"image_id": 2, "inst')
    before = lines.stat().st_ino
    assert "add --resume" in grounded_seg(*asked).stderr
    detector.batch_sizes.clear()
    report = report_of(scenes, "-o", tmp_path / "kept", "--resume")
    assert detector.batch_sizes == [1, 1]
    assert {**report, "speed": None} == {**whole, "speed": None}
    detector.batch_sizes.clear()
    assert {**report_of(scenes, "-o", tmp_path / "kept", "--resume"), "speed": None} == {**whole, "speed": None}
    assert detector.batch_sizes == []
    # Written on, never written anew: there is no moment at which answers could be lost.
    assert lines.stat().st_ino == before
    assert len(lines.read_text().splitlines()) == 1 + 3
    other = grounded_seg(*asked, "--resume", "--beams", 3)
    assert other.exit_code == 2
    assert "answers to other detect" in other.stderr
    monkeypatch.setattr(answers, "find_models", lambda *_, **__: found_models("2" * 64))
    other = grounded_seg(*asked, "--resume")
    assert other.exit_code == 2
    assert "answers to other weights; name another --output" in other.stderr


def test_answers_that_may_not_be_read_are_one_line(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_text = Path.read_text

    def forbidden(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "answers.jsonl":
            raise PermissionError(13, "Permission denied", str(path))
        return read_text(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", forbidden)
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept")
    assert outcome.exit_code == 2
    assert "answers.jsonl can't be read (Permission denied); name another --output" in outcome.stderr


def test_help_says_what_the_threshold_is_for() -> None:
    text = " ".join(grounded_seg("eval", "--help").stdout.split())
    threshold = text.partition("--score-threshold")[2].partition("--nms")[0]
    assert "From which score on a box says that something is there" in threshold
    assert "Average precision takes every box. [default: 0.5]" in threshold


def test_a_run_brings_its_prompts(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    prompts = tmp_path / "classes.yaml"
    prompts.write_text("red thing: red\ngreen thing: green\nblue thing: blue\n")
    images = scenes.parent / "images"
    assert grounded_seg("run", f"@{prompts}", images, "-o", tmp_path / "run", "--save", "none").exit_code == 0
    for name in ("results.jsonl", "annotations.json"):
        file = tmp_path / "report.json"
        outcome = grounded_seg("eval", scenes, "--predictions", tmp_path / "run" / name, "--json", file)
        assert (outcome.exit_code, outcome.stderr) == (0, "")
        report = json.loads(file.read_text())
        # The detector's own boxes, not the masks' tight ones.
        assert report["boxes"]["AP"] == pytest.approx(1)
        assert report["boxes"]["per_prompt"][0]["prompt"] == "red thing"
        assert report["masks"]["AP"] < 1


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
    for name in ("001-truth.jpg", "001-predicted.jpg"):
        assert f'src="worst/{name}"' in page
        assert PIL.Image.open(tmp_path / "plots" / "worst" / name).size == (40, 30)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([], 2, "--images"),
        (["--predictions", "nowhere.json"], 3, "no file is at nowhere.json"),
        (["--images", "nowhere"], 3, "3 of 3 listed images are not in nowhere, such as '1.png'"),
        (["--predictions", "x.json", "--absent", "2"], 2, "--absent"),
        (["--images", ".", "--resume"], 2, "--output"),
        (["--predictions", "x.json", "-o", "kept"], 2, "they don't go with --predictions"),
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
    assert "'2.png' is 40 x 30 px there, but upright it is 30 x 40 px" in outcome.stderr


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
    assert "'2.png' is 40 x 30 px there, but upright it is 30 x 40 px" in outcome.stderr


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
    assert "take scores from 0.5 on in all.json, from 0.25 on in some.json" in outcome.stdout
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
