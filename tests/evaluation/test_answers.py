"""The answers that `eval -o` keeps: gone on with, locked, each once; and asked as `run` asks."""

import sys
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from eval_cases import grounded_seg, report_of
from fakes import ColourDetector, InnerSegmenter, found_models

from grounded_seg.errors import DeviceMemoryError, OutputError
from grounded_seg.evaluation import answers
from grounded_seg.evaluation.answer_file import keep
from grounded_seg.records import Detection, Image, SegmentedImage
from grounded_seg.runs.journal import lock


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

    real = keep
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


def test_two_evaluations_cannot_write_one_folder(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    asked = ("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", "--resume")
    with FileIO(tmp_path / "kept" / "answers.jsonl", "a+") as file:
        lock(file)
        outcome = grounded_seg(*asked)
        assert (outcome.exit_code, outcome.stdout) == (2, "")
        assert "another eval is writing" in outcome.stderr
        assert detector.batch_sizes == []
    assert grounded_seg(*asked).exit_code == 0


def test_an_answer_that_is_there_twice_counts_once(scenes: Path, detector: ColourDetector, tmp_path: Path) -> None:
    kept = ("-o", tmp_path / "kept")
    whole = report_of(scenes, *kept)
    lines = tmp_path / "kept" / "answers.jsonl"
    header, *answered = lines.read_text().splitlines(keepends=True)
    lines.write_text("".join([header, *answered, *answered[:2]]))
    assert {**report_of(scenes, *kept, "--resume"), "speed": None} == {**whole, "speed": None}
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", *kept, "--resume")
    assert "holds 2 answers twice; each counts once" in outcome.stderr


@pytest.mark.parametrize("line", ["[]", "7", "{}"])
def test_what_holds_no_answers_is_refused(scenes: Path, detector: ColourDetector, tmp_path: Path, line: str) -> None:
    report_of(scenes, "-o", tmp_path / "kept")
    lines = tmp_path / "kept" / "answers.jsonl"
    lines.write_text(lines.read_text() + line + "\n")
    outcome = grounded_seg("eval", scenes, "--images", scenes.parent / "images", "-o", tmp_path / "kept", "--resume")
    assert outcome.exit_code == 2
    assert "holds no answers of eval; name another --output" in outcome.stderr


def test_too_little_memory_halves_the_batches_of_both_stages(
    scenes: Path, detector: ColourDetector, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = report_of(scenes, "--batch-size", 1)
    detect, segment = ColourDetector.detect, InnerSegmenter.segment

    def small_detector(self: ColourDetector, images: Sequence[Image], *rest: Any) -> list[tuple[Detection, ...]]:
        if len(images) > 2:
            raise DeviceMemoryError(f"no room for {len(images)}")
        return detect(self, images, *rest)

    def small_segmenter(
        self: InnerSegmenter, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> list[SegmentedImage]:
        # The true boxes, whose prompts are class names alone, need more.
        is_true = any(one.score == 1 for found in detections for one in found)
        if is_true and len(images) > 1:
            raise DeviceMemoryError("no room for the true boxes of 2")
        return segment(self, images, detections)

    # The real one belongs to torch, which takes seconds to load.
    monkeypatch.setitem(sys.modules, "grounded_seg.device.memory", SimpleNamespace(free_memory=lambda: None))
    monkeypatch.setattr(ColourDetector, "detect", small_detector)
    monkeypatch.setattr(InnerSegmenter, "segment", small_segmenter)
    detector.batch_sizes.clear()
    halved = report_of(scenes, "--batch-size", 4)
    assert detector.batch_sizes == [2, 2]
    assert halved["made_with"].pop("batch_size") == 4
    whole["made_with"].pop("batch_size")
    assert {**halved, "speed": None} == {**whole, "speed": None}
