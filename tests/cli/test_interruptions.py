"""What a command that is interrupted says: that something is kept only where that is so."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from grounded_seg.cli import main


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "error: interrupted"),
        (
            ["-o", "answers"],
            "error: interrupted; predictions so far are kept; to resume, run the same command with --resume (answers)",
        ),
    ],
)
def test_eval_says_how_to_resume_where_answers_are_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], says: str
) -> None:
    monkeypatch.setattr("grounded_seg.evaluation.evaluate.evaluate", interrupt)
    result = CliRunner().invoke(main, ["eval", "truth.json", "--images", str(tmp_path), *arguments])
    assert (result.exit_code, result.stdout) == (130, "")
    assert result.stderr.strip() == says


def test_merge_runs_keeps_nothing_and_says_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grounded_seg.runs.merge.merge_runs", interrupt)
    result = CliRunner().invoke(main, ["merge-runs", "a", "b", "-o", "ab"])
    assert (result.exit_code, result.stderr.strip()) == (130, "error: interrupted")


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        ("", "error: interrupted"),
        (
            "checkpoint-4",
            "error: interrupted; checkpoints are kept; to resume, run the same command with --resume (tuned)",
        ),
    ],
)
def test_train_says_how_to_resume_where_there_is_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, checkpoint: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grounded_seg.train.training.train", interrupt)
    (tmp_path / "tuned" / "checkpoints" / checkpoint).mkdir(parents=True)
    result = CliRunner().invoke(main, ["train", ".", "-o", "tuned"])
    assert (result.exit_code, result.stderr.strip()) == (130, says)
