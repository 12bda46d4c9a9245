"""The predictions that `eval -o` keeps in a run folder: resumed, locked, each once; and asked as `run` asks."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from eval_cases import grounded_seg, report_of
from fakes import ColourDetector, InnerSegmenter

from grounded_seg.errors import DeviceMemoryError, OutputError
from grounded_seg.files import Lock
from grounded_seg.records import Detection, Image, ImageResult
from grounded_seg.runs.journal import LOCK_NAME, Journal


def without_speed(report: dict[str, Any]) -> dict[str, Any]:
    return {**report, "speed": None}


def interrupted_after_one(monkeypatch: pytest.MonkeyPatch, *command: object) -> None:
    """Run a command whose journal takes one line only."""
    real = Journal.append

    def append_one(journal: Journal, line: Any) -> None:
        if journal.has_lines:
            raise OutputError("the disk is full")
        real(journal, line)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "append", append_one)
        assert grounded_seg(*command).exit_code == 1


def test_an_evaluation_is_resumed_where_it_was(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report_of(scenes)
    kept = tmp_path / "kept"
    asked = ("eval", scenes, "--images", scenes.parent / "images", "-o", kept)
    interrupted_after_one(monkeypatch, *asked)
    lines = kept / "results.jsonl"
    lines.write_text(lines.read_text() + '{"image_id": 2, "inst')
    before = lines.stat().st_ino
    assert "add --resume" in grounded_seg(*asked).stderr
    # Of other weights or settings, it is another evaluation.
    (tmp_path / "other").mkdir()
    for other, says in (
        (("--detector", tmp_path / "other"), "models detector sha256 was"),
        (("--beams", 3), "detect beams was 1 and is 3"),
        (("--absent", 0), "absent was null and is 0"),
        (("--batch-size", 2), "batch-size was 1 and is 2"),
    ):
        refused = grounded_seg(*asked, "--resume", *other)
        assert (refused.exit_code, says in refused.stderr) == (2, True), refused.stderr
    detector.batch_sizes.clear()
    report = report_of(scenes, "-o", kept, "--resume")
    assert detector.batch_sizes == [1, 1]
    assert without_speed(report) == without_speed(whole)
    detector.batch_sizes.clear()
    assert without_speed(report_of(scenes, "-o", kept, "--resume")) == without_speed(whole)
    assert detector.batch_sizes == []
    # Written on, never written anew: there is no moment at which predictions could be lost.
    assert lines.stat().st_ino == before
    assert len(lines.read_text().splitlines()) == 3
    # Other weights are refused where all is done, too.
    refused = grounded_seg(*asked, "--resume", "--detector", tmp_path / "other")
    assert (refused.exit_code, "models detector sha256 was" in refused.stderr) == (2, True)


def test_another_data_set_is_another_evaluation(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    report_of(scenes, "-o", tmp_path / "kept")
    document = json.loads(scenes.read_text())
    document["annotations"][0]["bbox"][0] += 1
    scenes.write_text(json.dumps(document))
    refused = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", "--resume")
    assert refused.exit_code == 2
    assert "data set was" in refused.stderr


def test_the_folder_of_an_evaluation_is_a_run_folder(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    report_of(scenes, "-o", kept, "--absent", 1)
    assert sorted(path.name for path in kept.iterdir()) == ["results.jsonl", "run.json"]
    manifest = json.loads((kept / "run.json").read_text())
    assert manifest["evaluation"]["ground_truth"] == str(scenes)
    assert manifest["evaluation"]["absent"] == 1
    assert manifest["settings"]["detect"]["score_threshold"] == 0
    assert (manifest["counts"]["images"], manifest["exit_code"]) == (3, 0)
    lines = [json.loads(text) for text in (kept / "results.jsonl").read_text().splitlines()]
    assert [line["file_name"] for line in lines] == ["1.png", "2.png", "3.png"]
    assert [line["image_id"] for line in lines] == [1, 2, 3]
    assert [len(line["asked"]) for line in lines] == [3, 2, 1]
    assert [len(line["given_true_boxes"]) for line in lines] == [2, 1, 0]
    assert all({"read", "detect", "segment"} <= line["seconds"].keys() for line in lines)
    # Without --absent, all are asked the same.
    report_of(scenes, "-o", tmp_path / "all")
    lines = [json.loads(text) for text in (tmp_path / "all" / "results.jsonl").read_text().splitlines()]
    assert [line["asked"] for line in lines] == [None] * 3


def test_commands_that_need_a_run_refuse_an_evaluation(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    kept, images = tmp_path / "kept", scenes.parent / "images"
    report_of(scenes, "-o", kept)
    grounded_seg("run", "red", images, "-o", tmp_path / "run")
    for command in (
        ("run", "red", images, "-o", kept, "--resume"),
        ("merge-runs", kept, tmp_path / "run", "-o", tmp_path / "merged"),
        ("export", kept, "--to", "coco", "-o", tmp_path / "exported"),
        ("eval", scenes, "--predictions", kept / "results.jsonl"),
    ):
        outcome = grounded_seg(*command)
        assert outcome.exit_code == 2, outcome.stderr
        assert "holds the predictions of an eval, not a run" in outcome.stderr
    outcome = grounded_seg("eval", scenes, "--images", images, "-o", tmp_path / "run", "--resume")
    assert outcome.exit_code == 2
    assert "holds a run, not the predictions of an eval" in outcome.stderr


def test_the_folder_of_an_older_version_is_refused(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "answers.jsonl").write_text("{}\n")
    for options in ([], ["--resume"]):
        outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", *options)
        assert (outcome.exit_code, len(outcome.stderr.splitlines())) == (2, 1)
        assert "answers.jsonl of an older version" in outcome.stderr
    assert (tmp_path / "kept" / "answers.jsonl").read_text() == "{}\n"


def test_predictions_that_may_not_be_read_are_one_line(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report_of(scenes, "-o", tmp_path / "kept")
    opened = Path.open

    def forbidden(path: Path, *arguments: Any, **options: Any) -> Any:
        if path.name == "run.json":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", forbidden)
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", "--resume")
    assert outcome.exit_code == 3
    assert "run.json can't be read (Permission denied)" in outcome.stderr


def test_two_evaluations_cannot_write_one_folder(
    scenes: Path, detector: ColourDetector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept")
    interrupted_after_one(monkeypatch, *asked)
    detector.batch_sizes.clear()
    held = Lock(tmp_path / "kept" / LOCK_NAME, "")
    outcome = grounded_seg(*asked, "--resume")
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "another run is writing" in outcome.stderr
    assert detector.batch_sizes == []
    held.release()
    assert grounded_seg(*asked, "--resume").exit_code == 0


@pytest.mark.parametrize("line", ["[]", "7", "{}"])
def test_what_is_no_line_of_an_evaluation_is_done_again(
    scenes: Path, detector: ColourDetector, tmp_path: Path, line: str
) -> None:
    whole = report_of(scenes, "-o", tmp_path / "kept")
    lines = tmp_path / "kept" / "results.jsonl"
    first, *_ = lines.read_text().splitlines(keepends=True)
    lines.write_text(first + line + "\n")
    detector.batch_sizes.clear()
    assert without_speed(report_of(scenes, "-o", tmp_path / "kept", "--resume")) == without_speed(whole)
    assert detector.batch_sizes == [1, 1]


def test_lines_without_what_an_evaluation_adds_are_one_line_of_error(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    report_of(scenes, "-o", tmp_path / "kept")
    lines = tmp_path / "kept" / "results.jsonl"
    lines.write_text(lines.read_text().replace('"image_id"', '"id"'))
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", "--resume")
    assert outcome.exit_code == 3
    assert "holds no predictions of an eval that can be read" in outcome.stderr


def test_an_image_that_cannot_be_read_ends_an_evaluation(
    scenes: Path, detector: ColourDetector, tmp_path: Path
) -> None:
    (scenes.parent / "images" / "2.png").write_bytes(b"")
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept")
    assert outcome.exit_code == 3
    assert "2.png" in outcome.stderr
    assert len((tmp_path / "kept" / "results.jsonl").read_text().splitlines()) == 1


def test_absent_classes_are_asked_in_batches(scenes: Path, detector: ColourDetector) -> None:
    one_by_one = report_of(scenes, "--absent", 1)
    assert detector.batch_sizes == [1] * 3
    detector.batch_sizes.clear()
    together = report_of(scenes, "--absent", 1, "--batch-size", 2)
    assert detector.batch_sizes == [2, 2]
    assert together["made_with"].pop("batch_size") == 2
    one_by_one["made_with"].pop("batch_size")
    assert without_speed(together) == without_speed(one_by_one)


def test_too_little_memory_halves_the_batches_of_both_stages(
    scenes: Path, detector: ColourDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report_of(scenes, "--batch-size", 1)
    detect, segment = ColourDetector.detect, InnerSegmenter.segment

    def small_detector(
        self: ColourDetector, images: Sequence[Image], *rest: Any, **options: Any
    ) -> list[tuple[Detection, ...]]:
        if len(images) > 2:
            raise DeviceMemoryError(f"no room for {len(images)}")
        return detect(self, images, *rest, **options)

    def small_segmenter(
        self: InnerSegmenter, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> list[ImageResult]:
        # The true boxes, whose prompts are class names alone, need more.
        is_true = any(one.score == 1 for found in detections for one in found)
        if is_true and len(images) > 1:
            raise DeviceMemoryError("no room for the true boxes of 2")
        return segment(self, images, detections)

    monkeypatch.setattr(ColourDetector, "detect", small_detector)
    monkeypatch.setattr(InnerSegmenter, "segment", small_segmenter)
    detector.batch_sizes.clear()
    halved = report_of(scenes, "--batch-size", 4)
    assert detector.batch_sizes == [2, 2]
    assert halved["made_with"].pop("batch_size") == 4
    whole["made_with"].pop("batch_size")
    assert without_speed(halved) == without_speed(whole)


def test_what_a_folder_holds_is_told_first(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    images = scenes.parent / "images"
    report_of(scenes, "-o", tmp_path / "kept")
    grounded_seg("run", "red", images, "-o", tmp_path / "run")
    for options in ([], ["--overwrite"]):
        outcome = grounded_seg("run", "red", images, "-o", tmp_path / "kept", *options)
        assert (outcome.exit_code, "holds the predictions of an eval" in outcome.stderr) == (2, True)
    outcome = grounded_seg("eval", scenes, "--images", images, "-o", tmp_path / "run")
    assert (outcome.exit_code, "holds a run, not the predictions" in outcome.stderr) == (2, True)
    assert (tmp_path / "kept" / "results.jsonl").exists()
