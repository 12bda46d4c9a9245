"""`grounded-seg train` from the shell: what it prints, what it refuses, and that `run` loads what it wrote."""

import json
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tiny_florence import save_tiny_florence
from train_cases import coco_document, write_coco

from grounded_seg.cli import main
from grounded_seg.errors import InputError
from grounded_seg.train.settings import TrainSettings


def invoke(*words: Any) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("base"))


def options(base: Path, run: Path) -> list[Any]:
    return ["-o", run, "--detector", base, "--device", "cpu", "--batch-size", "4", "--split", "60/20/20"]


def test_help_names_every_setting() -> None:
    text = invoke("train", "--help").stdout
    missing = [
        one.name
        for one in fields(TrainSettings)
        if one.name not in ("dataset", "models", "metrics") and f"--{one.name.replace('_', '-')}" not in text
    ]
    assert missing == []


def test_the_whole_loop(base: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "data").parent
    run = tmp_path / "run"
    trained = invoke("train", data, *options(base, run), "--max-steps", "2", "--epochs", "1")
    assert trained.exit_code == 0, trained.output
    lines = trained.stdout.splitlines()
    assert lines[0].split()[:3] == ["step", "epoch", "loss"]
    assert lines[1].split()[:2] == ["2", "1"]
    assert str(run / "adapter") in lines
    report = (run / "report.md").read_text()
    assert "| red |" in report
    assert "Test split: 1 image." in report
    assert "| box AP (higher is better) |" in report
    assert "| absent prompts with a box (lower is better) |" in report
    assert "![tuned](report/001-tuned.jpg)" in report
    assert (run / "report" / "001-tuned.jpg").is_file()
    found = tmp_path / "found"
    models = ["--adapter", run / "adapter", "--boxes-only", "--device", "cpu"]
    ran = invoke("run", "red", data, "-o", found, "--detector", base, *models)
    assert ran.exit_code == 0, ran.output
    manifest = json.loads((found / "run.json").read_text())
    assert manifest["models"]["adapter"]["name"] == str(run / "adapter")
    # The folder of the training means the adapter in it.
    scored = invoke("eval", run / "test.json", "--images", data, "--detector", base, "--adapter", run, *models[2:])
    assert scored.exit_code == 0, scored.output
    other = save_tiny_florence(tmp_path / "other", seed=1)
    refused = invoke("run", "red", data, "-o", tmp_path / "x", "--detector", other, *models)
    assert refused.exit_code == 4
    assert "was trained on" in refused.stderr


def test_a_dry_run_trains_nothing(base: Path, tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][3]["bbox"] = [30, 0, 20, 10]
    data = write_coco(tmp_path / "data", document).parent
    run = tmp_path / "run"
    looked = invoke("train", data, *options(base, run), "--dry-run")
    assert looked.exit_code == 0, looked.output
    assert "train: 3 images (" in looked.stdout
    # 4 questions about what is there, 2 about what isn't, in batches of 4; 10 epochs are the default.
    assert "20 steps, 2 per epoch" in looked.stdout
    assert "1 validation image is too few to choose the best checkpoint by" in looked.stdout
    assert "answer tokens: " in looked.stdout
    # What would be left out is what a dry run is for: a result.
    assert "lies partly outside the image" in looked.stdout
    assert looked.stderr == ""
    assert {path.name for path in run.iterdir()} == {"examples"}
    assert list((run / "examples").glob("*.jpg"))


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (["--recipe", "caption"], 2, "warmup-steps is 10, and the whole training has 2;"),
        (["--warmup-steps", "500"], 2, "warmup-steps is 500"),
        (["--best-metric", "mAP"], 2, "no figure 'mAP'"),
        (["--quantization", "4bit"], 2, "needs a CUDA device"),
        (["--log-to", "wandb"], 2, "log-to names wandb"),
        (["--device", "cuda:99"], 5, "cuda:99"),
        (["--resume"], 2, "holds no training to resume"),
        (["--retention", "nothing.json"], 3, "nothing.json"),
    ],
)
def test_a_dry_run_refuses_what_the_training_refuses_and_neither_leaves_a_folder(
    base: Path, tmp_path: Path, more: list[str], code: int, what: str
) -> None:
    if "wandb" in more and find_spec("wandb") is not None:
        pytest.skip("wandb is installed")
    data, run = write_coco(tmp_path / "data").parent, tmp_path / "run"
    ways = [invoke("train", data, *options(base, run), *more, *dry) for dry in ([], ["--dry-run"])]
    assert [way.exit_code for way in ways] == [code, code]
    assert ways[0].stderr == ways[1].stderr
    assert what in ways[0].stderr
    assert not run.exists()


def test_a_dry_run_refuses_a_folder_in_use(base: Path, tmp_path: Path) -> None:
    data, run = write_coco(tmp_path / "data").parent, tmp_path / "run"
    run.mkdir()
    (run / "metrics.jsonl").write_text("")
    ways = [invoke("train", data, *options(base, run), *dry) for dry in ([], ["--dry-run"])]
    assert [way.exit_code for way in ways] == [2, 2]
    assert ways[0].stderr == ways[1].stderr
    assert "already holds metrics.jsonl" in ways[0].stderr


def test_what_is_left_out_is_told(base: Path, tmp_path: Path) -> None:
    document = coco_document()
    document["annotations"][3]["bbox"] = [30, 0, 20, 10]
    path = write_coco(tmp_path / "data", document)
    trained = invoke("train", path.parent, *options(base, tmp_path / "run"), "--max-steps", "1", "--no-report")
    assert trained.exit_code == 0, trained.output
    [line] = trained.stderr.splitlines()
    assert line.startswith(f"warning: left out: {path}:")
    assert json.loads((tmp_path / "run" / "run.json").read_text())["data"]["left_out"] == [line.partition("out: ")[2]]


@pytest.mark.parametrize(
    ("more", "code", "what"),
    [
        (["--rank", "0", "--lr", "-1"], 2, "rank is 0"),
        (["--recipe", "cake"], 2, "cake"),
        (["--parts", ""], 2, "nothing would be trained"),
        (["--parts", "heart"], 2, "language, vision, projector, head"),
        (["--resume"], 2, "no training to resume"),
        (["--strict"], 3, "_annotations.coco.json:"),
        (["--warmup-steps", "500"], 2, "warmup-steps is 500"),
    ],
)
def test_what_is_wrong_is_one_line(base: Path, tmp_path: Path, more: list[str], code: int, what: str) -> None:
    document = coco_document()
    document["annotations"][3]["bbox"] = [30, 0, 20, 10]
    data = write_coco(tmp_path / "data", document).parent
    result = invoke("train", data, *options(base, tmp_path / "run"), *more)
    assert result.exit_code == code
    [line] = [line for line in result.stderr.splitlines() if line.startswith("error:") or "Error" in line]
    assert what in line


def test_what_is_not_given_is_the_recipes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[TrainSettings] = []

    def look(settings: TrainSettings, *_: Any, resume: bool) -> None:
        assert not resume
        seen.append(settings)
        raise InputError("enough seen")

    monkeypatch.setattr("grounded_seg.train.dry_run.dry_run", look)
    words = ["train", tmp_path, "-o", tmp_path / "run", "--preset", "demo", "--recipe", "caption", "--dry-run"]
    assert invoke(*words).exit_code == invoke(*words, "--no-augment", "--epochs", "7").exit_code == 3
    assert invoke(*words, "--no-gradient-checkpointing").exit_code == 3
    assert [(one.gradient_checkpointing, one.augment, one.epochs) for one in seen] == [
        (True, True, 2),
        (True, False, 7),
        (False, True, 2),
    ]


def test_the_environments_preset_is_under_the_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[str] = []

    def look(settings: TrainSettings, *_: Any, resume: bool) -> None:
        assert not resume
        seen.append(settings.models.preset)
        raise InputError("enough seen")

    monkeypatch.setattr("grounded_seg.train.dry_run.dry_run", look)
    monkeypatch.setenv("GROUNDED_SEG_PRESET", "large")
    named, silent = tmp_path / "named.yaml", tmp_path / "silent.yaml"
    named.write_text("preset: base\n")
    silent.write_text("epochs: 3\n")
    words = ["train", tmp_path, "-o", tmp_path / "run", "--dry-run"]
    for more in ([], ["--config", silent], ["--config", named], ["--config", named, "--preset", "large-ft"]):
        assert invoke(*words, *more).exit_code == 3
    assert seen == ["large", "large", "base", "large-ft"]


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_data_set_without_anything_to_learn_is_exit_3(base: Path, tmp_path: Path, more: list[str]) -> None:
    data = write_coco(tmp_path / "data", {**coco_document(), "annotations": []}).parent
    result = invoke("train", data, *options(base, tmp_path / "run"), *more)
    assert result.exit_code == 3
    assert "has neither objects nor texts to train on" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_data_set_is_exit_3(base: Path, tmp_path: Path) -> None:
    result = invoke("train", tmp_path / "nowhere", *options(base, tmp_path / "run"))
    assert result.exit_code == 3
    assert "no data set is at" in result.stderr
