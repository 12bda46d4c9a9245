"""What is around a training's steps: what is asked for its report, its curves, measuring again, and failed starts."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from tiny_florence import save_tiny_florence
from train_cases import od_row, read_data, tiny_settings, write_coco, write_jsonl

from grounded_seg.errors import DeviceMemoryError, InputError, OutputError, UsageError
from grounded_seg.train import evaluate, train
from grounded_seg.train.fit.loss import BatchLoss
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.measure.comparison import write_test_file
from grounded_seg.train.measure.report import write_report
from grounded_seg.train.settings import Method


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data")).parent


def test_the_report_asks_for_the_negatives_too(
    base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(file: Path, *_: Any) -> None:
        raise InputError(", ".join(one["name"] for one in json.loads(file.read_text())["categories"]))

    monkeypatch.setattr("grounded_seg.train.measure.report.pair_on", look)
    settings = tiny_settings(dataset, tmp_path, base, negatives=("cat", "red"))
    data = read_data(dataset)
    with pytest.raises(InputError, match=r"^red, green, cat$"):
        write_report(settings, data, lambda _what, _done, _all: None)


def test_a_cut_off_test_file_leaves_the_older_one(
    base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(dataset, tmp_path, base)
    boxed = read_data(dataset).test.examples
    file, _ = write_test_file(boxed, ("red", "green"), TrainFolder(settings.output))
    before = file.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match=r"test\.json can't be written \(no space left\)"):
        write_test_file(boxed, ("red", "green", "blue"), TrainFolder(settings.output))
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["test.json"]


def test_evaluate_leaves_out_what_a_training_does_and_shows_the_base_whole_images(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [od_row(name, "three", "y" * length) for name, length in (("a.png", 200), ("b.png", 9), ("c.png", 9))]
    for split in ("train", "valid", "test"):
        write_jsonl(tmp_path / split, rows)
    seen: list[tuple[int, int]] = []

    def ask(_florence: Any, questions: Any, images: Any, _limit: int) -> list[Any]:
        seen.append((images.read(questions[0]).pixels.shape[0], len(questions)))
        return []

    monkeypatch.setattr("grounded_seg.train.measure.answers.answered", ask)
    settings = tiny_settings(tmp_path, tmp_path / "run", base, image_size=20, method=Method.FULL)
    evaluate(settings)
    evaluate(settings, base)
    assert seen == [(30, 2), (20, 2)]


ALOUD = """
import json, logging, sys, warnings
from pathlib import Path

from train_cases import tiny_settings

from grounded_seg.train import evaluate, train
from grounded_seg.train.settings import Method, Part


def noisy(answered):
    logging.getLogger("accelerate.somewhere").warning("accelerate logs")
    for module in ("torch", "transformers.models.any"):
        warnings.warn_explicit("a library warns", FutureWarning, "somewhere.py", 1, module)
    warnings.warn("the user warns")
    return {"n": len(answered)}


data, run, base = map(Path, sys.argv[1:])
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for method in Method:
        settings = tiny_settings(
            data, run / method, base, max_steps=1, method=method, parts=frozenset(Part), gradient_checkpointing=True,
            metrics=(noisy,), report=method is Method.LORA,
        )
        evaluate(settings, train(settings).result)
print(json.dumps(sorted({str(one.message) for one in caught})))
"""


def test_no_warning_of_another_library_reaches_the_caller(base: Path, dataset: Path, tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-c", ALOUD, str(dataset), str(tmp_path), str(base)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests")))},
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stderr == ""
    assert json.loads(told.stdout) == ["the user warns"]


@pytest.mark.parametrize(
    ("wrong", "error", "told"),
    [
        (torch.OutOfMemoryError("full"), DeviceMemoryError, "Lower --batch-size"),
        (torch.tensor(float("nan")), UsageError, "the loss is nan at step 1"),
    ],
)
def test_a_first_step_that_failed_leaves_no_folder(
    base: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: Any, error: Any, told: str
) -> None:
    whole = BatchLoss.__call__

    def fail(self: Any, model: Any, batch: Any) -> torch.Tensor:
        if isinstance(wrong, Exception):
            raise wrong
        return whole(self, model, batch) * wrong

    monkeypatch.setattr(BatchLoss, "__call__", fail)
    with pytest.raises(error, match=told):
        train(tiny_settings(dataset, tmp_path / "run", base))
    assert not (tmp_path / "run").exists()


def test_a_start_that_failed_is_no_training_in_the_folder(base: Path, dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UsageError, match="warmup-steps is 50"):
        train(tiny_settings(dataset, run, base, warmup_steps=50))
    assert not run.exists()
    train(tiny_settings(dataset, run, base, max_steps=1))
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
