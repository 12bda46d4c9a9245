"""What is written beside tuned weights is read again, and a full disk is one message whichever library meets it."""

import errno
from pathlib import Path

import pytest
from safetensors import SafetensorError

from grounded_seg.detect.model.record import check_questions, trained_image_size, write_adapter_base
from grounded_seg.errors import OutputError, WeightsError
from grounded_seg.train.fit.checkpoints import weights_as_output_error
from grounded_seg.weights.locate import LocatedWeights

BASE = LocatedWeights(Path("base"), "owner/base", "abc", "0123")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "adapter"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        RuntimeError("[enforce fail at inline_container.cc] . PytorchStreamWriter failed writing file data/0"),
    ],
)
def test_a_full_disk_is_an_output_error(error: Exception) -> None:
    with pytest.raises(OutputError, match=r"can't be written.*make room"), weights_as_output_error():
        raise error


def test_other_faults_are_left_as_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes"), weights_as_output_error():
        raise RuntimeError("shapes differ")


def test_the_size_of_images_is_read_back(tmp_path: Path) -> None:
    assert trained_image_size(tmp_path) is None
    for side in (224, None):
        write_adapter_base(tmp_path, BASE, {"image_size": side})
        assert trained_image_size(tmp_path) == side
    write_adapter_base(tmp_path, BASE)
    assert trained_image_size(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"image_size": "big"}'])
def test_a_damaged_record_is_one_message(tmp_path: Path, text: str) -> None:
    (tmp_path / "grounded_seg.json").write_text(text)
    with pytest.raises(WeightsError, match=r"grounded_seg\.json is damaged"):
        trained_image_size(tmp_path)


@pytest.mark.parametrize(
    ("facts", "hint"),
    [
        ({"prompt_form": "od", "classes": ["fig"]}, "all classes in one answer; it may find little"),
        ({"prompt_form": "class", "classes": []}, "answer with text; it may find little"),
        ({"prompt_form": "class", "classes": ["fig"]}, ""),
        ({}, ""),
    ],
)
def test_who_learnt_other_questions_than_run_asks_is_named(
    tmp_path: Path, facts: dict[str, object], hint: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_adapter_base(tmp_path, BASE, facts)
    check_questions(tmp_path, "--preset demo --adapter tuned")
    assert hint in caplog.text
    assert ("IMAGE --preset demo --adapter tuned" in caplog.text) == bool(hint)
    assert bool(caplog.records) == bool(hint)
