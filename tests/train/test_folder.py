"""The folder of a training: its log over an interruption, its checkpoints, and whose it is."""

import json
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import InputError, UsageError
from grounded_seg.train.folder import MetricsLog, TrainFolder
from grounded_seg.train.settings import Method

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
    with pytest.raises(InputError, match=r"metrics\.jsonl:6: this is no line of figures"):
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


def test_the_last_whole_checkpoint_is_gone_on_from(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    assert folder.last_checkpoint() is None
    for step, text in ((9, '{"global_step": 9}'), (10, '{"global_step": 10}'), (11, '{"global_st')):
        checkpoint = folder.checkpoints / f"checkpoint-{step}"
        checkpoint.mkdir(parents=True)
        (checkpoint / "trainer_state.json").write_text(text)
    (folder.checkpoints / "checkpoint-12").mkdir()
    assert folder.last_checkpoint() == folder.checkpoints / "checkpoint-10"


def manifest(lr: float = 1.0, data: str = "d", output: str = "o") -> dict[str, Any]:
    return {"settings": {"lr": lr, "output": output}, "base": {"sha256": "b"}, "data": {"sha256": data}}


def test_only_the_same_training_is_gone_on_with(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    with pytest.raises(UsageError, match="no training to go on with"):
        folder.check_same(manifest())
    folder.write_manifest(manifest())
    folder.check_same(manifest(output="moved"))
    with pytest.raises(UsageError, match="other lr, data;"):
        folder.check_same(manifest(lr=2.0, data="e"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device": "cuda:1"}, r"other device \(was cpu, is cuda:1\)"),
        ({"dtype": "bfloat16"}, r"other dtype \(was float32, is bfloat16\)"),
        ({"threads": 4, "processes": 2}, r"other threads \(was 2, is 4\), processes \(was 1, is 2\)"),
    ],
)
def test_what_rounds_otherwise_is_not_gone_on_with(tmp_path: Path, change: dict[str, Any], told: str) -> None:
    folder = TrainFolder(tmp_path)
    same = manifest() | {"device": "cpu", "dtype": "float32", "threads": 2, "processes": 1}
    folder.write_manifest(same)
    folder.check_same(same)
    with pytest.raises(UsageError, match=told):
        folder.check_same(same | change)
    on_card = same | {"device": "cuda:0"}
    folder.write_manifest(on_card)
    folder.check_same(on_card | {"device": "cuda:1", "threads": 8})


def test_a_folder_in_use_is_refused_and_examples_are_no_use(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    (tmp_path / "examples").mkdir()
    # The library makes it before the training's last checks.
    folder.checkpoints.mkdir()
    folder.check_free()
    folder.adapter.mkdir()
    (folder.adapter / "adapter_config.json").write_text("")
    with pytest.raises(UsageError, match="already holds adapter"):
        folder.check_free()
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        TrainFolder(tmp_path / "file").check_free()


def test_full_tuning_leaves_a_model(tmp_path: Path) -> None:
    assert TrainFolder(tmp_path).result(Method.FULL) == tmp_path / "model"
    assert TrainFolder(tmp_path).result(Method.LORA) == tmp_path / "adapter"
