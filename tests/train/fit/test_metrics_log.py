"""The log of a training's figures over an interruption, which row is the best, and the curves."""

import json
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import InputError
from grounded_seg.train.fit.metrics_log import MetricsLog, draw_losses, smoothed

ROWS = [
    {"step": 1, "epoch": 0.5, "loss": 3.0},
    {"step": 2, "epoch": 1.0, "loss": 2.0},
    {"step": 2, "epoch": 1.0, "valid_loss": 2.5, "valid_AP": 0.25},
    {"step": 3, "epoch": 1.5, "loss": 1.0},
    {"step": 4, "epoch": 2.0, "valid_loss": 2.6, "valid_AP": 0.25},
]


def log_of(path: Path, up_to_step: int = 99, tail: str = "") -> MetricsLog:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + tail)
    return MetricsLog(path, up_to_step)


def test_lines_after_the_checkpoint_are_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = log_of(path, up_to_step=2)
    log.start()
    log.add({"step": 3, "epoch": 1.5, "loss": 1.0})
    assert log.rows == ROWS[:4]
    assert [json.loads(line) for line in path.read_text().splitlines()] == ROWS[:4]


def test_a_new_training_starts_an_empty_log(tmp_path: Path) -> None:
    log = log_of(tmp_path / "metrics.jsonl", up_to_step=0)
    log.start()
    assert log.rows == []
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_line_cut_off_by_a_kill_is_dropped_and_a_damaged_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    assert log_of(path, tail='{"step": 5, "lo').rows == ROWS
    with pytest.raises(InputError, match=r"metrics\.jsonl:6: this is no row of figures"):
        log_of(path, tail='{"step": 5, "lo\n{"step": 6}\n')


def test_another_process_writes_nothing(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", writes=False)
    log.start()
    log.add(ROWS[0])
    assert log.rows == ROWS[:1]
    assert not (tmp_path / "metrics.jsonl").exists()


def test_the_best_has_the_highest_figure_and_low_losses_are_good(tmp_path: Path) -> None:
    log = log_of(tmp_path / "metrics.jsonl")
    assert log.best("AP") == log.best("loss") == ROWS[2]
    assert log.best("AP50") is None
    assert (log.epochs_since_best("AP"), log.epochs_since_best("AP50")) == (1.0, 0.0)


def test_of_equal_ones_the_lowest_loss_is_the_best_and_patience_counts_from_the_first(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for epoch, loss in enumerate((3.0, 2.0, 1.0, 1.5), start=1):
        log.rows.append({"step": epoch, "epoch": float(epoch), "valid_loss": loss, "valid_AP": 0.0})
    assert log.best("AP") == log.rows[2]
    assert log.epochs_since_best("AP") == 3.0


def test_a_figure_may_be_better_when_lower(tmp_path: Path) -> None:
    for lower, best in (((), 1), (("error",), 0)):
        log = MetricsLog(tmp_path / "metrics.jsonl", lower_is_better=lower)
        log.rows += [{"step": 1, "epoch": 1.0, "valid_error": 0.5}, {"step": 2, "epoch": 2.0, "valid_error": 0.7}]
        assert log.best("error") == log.rows[best]
        assert log.epochs_since_best("error") == 1.0 - best


@pytest.mark.parametrize("line", ["[1]", '{"step": 1}', '{"step": [1], "epoch": 1}', "[" * 100_000, "\u2028"])
def test_a_row_of_anything_else_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(f"{json.dumps(ROWS[0])}\n{line}\n".encode() + b"\xff\n" + json.dumps(ROWS[1]).encode())
    with pytest.raises(InputError, match=r"metrics\.jsonl:2: this is no row of figures"):
        MetricsLog(path, 99)


def test_the_curves_are_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib isn't installed")
    draw_losses(ROWS, tmp_path / "loss.png")
    assert [path.name for path in tmp_path.iterdir()] == ["loss.png"]


def test_the_picture_has_a_title_and_whole_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = pytest.importorskip("matplotlib.figure", reason="matplotlib isn't installed")
    drawn: list[Any] = []
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, *_, **__: drawn.append(self))
    draw_losses(ROWS, tmp_path / "loss.png")
    [axes] = drawn[0].axes
    assert axes.get_title() == "Loss of the training"
    assert all(step == int(step) for step in axes.get_xticks())
    labels = [line.get_label() for line in axes.get_lines()]
    assert labels == ["training, each step", "training, smoothed", "validation"]
    # The legend lies below: it hides no line.
    assert axes.get_legend().get_bbox_to_anchor().y1 < axes.bbox.y0


def test_losses_are_smoothed_evenly_to_both_sides() -> None:
    assert smoothed([]) == []
    assert smoothed([3.0]) == [3.0]
    straight = [float(number) for number in range(100)]
    # Means of eleven: a straight line stays one, but for its ends.
    assert smoothed(straight)[5:-5] == straight[5:-5]
    assert smoothed(straight)[0] == sum(range(6)) / 6
