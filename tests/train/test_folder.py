"""The folder of a training: what is in it, and whose it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import OutputError, UsageError
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.settings import Method, TrainSettings


def manifest(lr: float = 1.0, data: str = "d", output: str = "o") -> dict[str, Any]:
    return {"settings": {"lr": lr, "output": output}, "base": {"sha256": "b"}, "data": {"sha256": data}}


def test_only_the_same_training_is_resumed(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    with pytest.raises(UsageError, match="no training to resume"):
        folder.check_same(manifest())
    folder.write_manifest(manifest())
    folder.check_same(manifest(output="moved"))
    with pytest.raises(UsageError, match="other settings or data: lr, data;"):
        folder.check_same(manifest(lr=2.0, data="e"))


def test_a_training_is_finished_with_its_last_step_and_its_report(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    settings = TrainSettings(dataset=tmp_path, output=tmp_path)
    assert not folder.is_finished(settings, 4)
    folder.write_manifest({"status": "done", "steps": 4, "settings": settings.option_values()})
    folder.adapter.mkdir()
    assert not folder.is_finished(settings, 4)
    folder.report.write_text("# figures")
    assert folder.is_finished(settings, 4)
    assert not folder.is_finished(settings, 5)
    # A report on more data is asked for.
    assert not folder.is_finished(replace(settings, retention=tmp_path / "known.json"), 4)


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", '{"settings": 1, "base": {}}', '{"settings": {}}'])
def test_a_manifest_that_is_none_is_no_training(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UsageError, match="holds no training to resume"):
        TrainFolder(tmp_path).check_same(manifest())


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"seconds": "x"}', '{"seconds": NaN}', '{"seconds": -1}'])
def test_seconds_that_are_none_are_0(tmp_path: Path, text: str) -> None:
    assert TrainFolder(tmp_path).seconds_so_far() == 0
    (tmp_path / "run.json").write_text(text)
    assert TrainFolder(tmp_path).seconds_so_far() == 0


def test_what_a_manifest_says_stays_on_its_line(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path)
    folder.write_manifest(manifest() | {"settings": {"lr": 1.0, "\x1b[31m\n": 1}})
    with pytest.raises(UsageError, match=r"with other settings or data: \?\[31m\?; give the same") as caught:
        folder.check_same(manifest())
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"device": "cuda:1"}, r"data: device \(was cpu, is cuda:1\)"),
        ({"dtype": "bfloat16"}, r"data: dtype \(was float32, is bfloat16\)"),
        ({"threads": 4, "processes": 2}, r"data: threads \(was 2, is 4\), processes \(was 1, is 2\)"),
    ],
)
def test_what_rounds_otherwise_is_not_resumed(tmp_path: Path, change: dict[str, Any], told: str) -> None:
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


def test_one_process_trains_in_a_folder(tmp_path: Path) -> None:
    folder = TrainFolder(tmp_path / "new" / "run")
    with folder.locked():
        with pytest.raises(UsageError, match=r"another process trains in .*run; name another folder with -o"):
            TrainFolder(folder.root).locked().__enter__()
        folder.write_manifest(manifest())
    assert [path.name for path in folder.root.iterdir()] == ["run.json"]
    with folder.locked():
        pass
    assert folder.manifest.exists()


def test_a_training_that_wrote_nothing_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(LookupError), TrainFolder(tmp_path / "new" / "run").locked():
        raise LookupError
    assert list(tmp_path.iterdir()) == []
    # But for a folder that was there.
    (tmp_path / "old").mkdir()
    with TrainFolder(tmp_path / "old").locked():
        pass
    assert list(tmp_path.iterdir()) == [tmp_path / "old"]


def test_a_folder_that_can_not_be_written_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"is a file; name a folder with -o"):
        TrainFolder(tmp_path / "file").locked().__enter__()
    with pytest.raises(OutputError, match=r"can't be written .*; make room or get permission there, or name another"):
        TrainFolder(tmp_path / "file" / "run").locked().__enter__()
