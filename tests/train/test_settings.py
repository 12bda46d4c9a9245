"""Settings come from a recipe, a file and the command line, in this order, and all that is wrong is said at once."""

import json
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.errors import UsageError
from grounded_seg.settings import ModelSettings, Precision
from grounded_seg.train.recipes import RECIPES, settings_from
from grounded_seg.train.settings import (
    Method,
    OptimizerName,
    Part,
    PromptForm,
    Schedule,
    TrainSettings,
)

PATHS: dict[str, Any] = {"dataset": Path("data"), "output": Path("run")}


def test_the_card_recipe_is_what_it_says() -> None:
    settings = settings_from("card", None, PATHS)
    assert (settings.rank, settings.alpha, settings.dropout) == (64, 128.0, 0.1)
    assert (settings.lr, settings.epochs, settings.split, settings.image_size) == (1e-4, 15, (80, 5, 15), 224)
    assert settings.method is Method.LORA


def test_the_caption_recipe_is_what_it_says() -> None:
    settings = settings_from("caption", None, PATHS)
    assert settings.method is Method.FULL
    assert settings.parts == frozenset(Part)
    assert settings.optimizer is OptimizerName.CAME
    assert settings.schedule is Schedule.REX
    assert (settings.lr, settings.epochs) == (3e-6, 2)
    assert (settings.batch_size, settings.accumulation) == (8, 4)
    assert (settings.max_grad_norm, settings.weight_decay) == (1.0, 1e-2)
    assert settings.gradient_checkpointing
    assert (settings.warmup_steps, settings.save_steps, settings.eval_steps, settings.keep) == (10, 10, 10, 3)
    assert (settings.split[1], settings.seed) == (5, 42)


def test_the_quick_recipe_is_what_it_says() -> None:
    settings = settings_from("quick", None, PATHS)
    assert (settings.rank, settings.alpha, settings.dropout) == (16, 32.0, 0.0)
    assert (settings.lr, settings.epochs, settings.batch_size) == (1e-3, 3, 16)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_whole_set_of_settings(name: str) -> None:
    assert settings_from(name, None, PATHS).recipe == name


def test_a_recipes_adapter_is_no_matter_to_full_tuning() -> None:
    settings = settings_from("card", None, {**PATHS, "method": "full"})
    assert (settings.method, settings.rank, settings.image_size) == (Method.FULL, TrainSettings.rank, 224)
    with pytest.raises(UsageError, match="rank belongs to adapters"):
        settings_from("card", None, {**PATHS, "method": "full", "rank": 64})


@pytest.mark.parametrize("ending", ["yaml", "toml", "json"])
def test_a_file_stands_over_the_recipe_and_under_what_is_given(tmp_path: Path, ending: str) -> None:
    file = tmp_path / f"settings.{ending}"
    values = {"recipe": "card", "epochs": 3, "rank": 8, "prompt-form": "od", "parts": ["language", "vision"]}
    if ending == "toml":
        text = "\n".join(f"{key} = {json.dumps(value)}" for key, value in values.items())
    else:
        text = json.dumps(values)
    file.write_text(text + "\n")
    settings = settings_from(None, file, {**PATHS, "rank": 4, "device": "cpu"})
    assert (settings.alpha, settings.epochs, settings.rank) == (128.0, 3, 4)
    assert settings.prompt_form is PromptForm.OD
    assert settings.parts == {Part.LANGUAGE, Part.VISION}
    assert settings.models.device == "cpu"


def test_texts_are_read_as_their_settings(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("lr: 1e-4\nsplit: 70/10/20\nnegatives: cat; dog\nparts: vision\nmax-steps: null\ndtype: float32\n")
    settings = settings_from(None, file, PATHS)
    assert settings.lr == 1e-4
    assert settings.split == (70, 10, 20)
    assert settings.negatives == ("cat", "dog")
    assert settings.parts == {Part.VISION}
    assert settings.max_steps is None
    assert settings.models.dtype is Precision.FLOAT32


def test_all_wrong_keys_and_values_are_named_at_once(tmp_path: Path) -> None:
    file = tmp_path / "settings.json"
    file.write_text('{"epoch": 3, "rank": "many", "augment": 1, "schedule": "steps", "batch-size": 1.5, "metrics": []}')
    with pytest.raises(UsageError) as raised:
        settings_from(None, file, PATHS)
    message = str(raised.value)
    for part in ("'epoch'", "rank is 'many'", "augment is 1", "schedule is 'steps'", "batch-size is 1.5", "'metrics'"):
        assert part in message
    assert str(file) in message


def test_all_values_out_of_range_are_named_at_once() -> None:
    with pytest.raises(UsageError) as raised:
        TrainSettings(**PATHS, rank=0, lr=0, dropout=1, split=(50, 50, 0), negative_ratio=-1, epochs=0)
    for name in ("rank is 0", "lr is 0", "dropout is 1", "split is 50/50/0", "negative-ratio is -1", "epochs is 0"):
        assert name in str(raised.value)


def test_texts_are_taken_for_choices_and_paths() -> None:
    """Else `is` would tell a method from its own name, and full tuning with CAME would be what is left."""
    settings = TrainSettings(
        dataset="data",  # type: ignore[arg-type]
        output="run",  # type: ignore[arg-type]
        models=ModelSettings(dtype="float16"),  # type: ignore[arg-type]
        method="lora",  # type: ignore[arg-type]
        optimizer="adamw",  # type: ignore[arg-type]
        parts={"vision", Part.LANGUAGE},  # type: ignore[arg-type]
        split=[60, 20, 20],  # type: ignore[arg-type]
        negatives=["cat"],  # type: ignore[arg-type]
        lr=1,
    )
    assert (settings.dataset, settings.output) == (Path("data"), Path("run"))
    assert settings.method is Method.LORA
    assert settings.optimizer is OptimizerName.ADAMW
    assert settings.models.dtype is Precision.FLOAT16
    assert settings.parts == frozenset({Part.VISION, Part.LANGUAGE})
    assert (settings.split, settings.negatives) == ((60, 20, 20), ("cat",))
    assert isinstance(settings.lr, float)


def test_all_values_of_another_type_are_named_at_once() -> None:
    wrong: dict[str, Any] = {
        "method": "lorra",
        "parts": "language",
        "dataset": 3,
        "rank": 2.5,
        "epochs": True,
        "lr": "1e-4",
        "alpha": float("nan"),
        "augment": 1,
        "recipe": None,
        "negatives": "cat",
        "models": {"dtype": "float8"},
        "metrics": (3,),
    }
    with pytest.raises(UsageError) as raised:
        TrainSettings(**PATHS | wrong, keep=0)
    for name in wrong.keys() - {"models"}:
        assert f"{name} is" in str(raised.value)
    assert "keep is 0" in str(raised.value)
    assert "dtype is 'float8', it must be one of auto, float32" in str(raised.value)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"parts": frozenset()}, "nothing would be trained"),
        ({"method": Method.FULL, "dora": True}, "dora belongs to adapters"),
        ({"method": Method.FULL, "rank": 8, "dropout": 0.0}, "rank belongs to adapters.*dropout belongs to adapters"),
        ({"prompt_form": PromptForm.OD, "negatives": ("cat",)}, "negatives are asked one at a time"),
        ({"retention": Path("known.json"), "report": False}, "retention is measured in the report"),
    ],
)
def test_what_does_not_go_together_is_refused(more: dict[str, Any], what: str) -> None:
    with pytest.raises(UsageError, match=what):
        TrainSettings(**PATHS, **more)


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("a.yaml", "[1, 2]", "isn't a list of"),
        ("a.yaml", "a: [", "correct it"),
        ("a.toml", "a = ", "correct it"),
        ("a.json", "{", "correct it"),
        ("a.yaml", "recipe: cake", "no recipe 'cake'"),
        ("a.yaml", "recipe: [card]", "no recipe"),
        ("a.yaml", "lr: .inf", "inf stands where a number belongs; correct it"),
    ],
)
def test_a_file_that_makes_no_sense_is_one_line(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=what) as raised:
        settings_from(None, tmp_path / name, PATHS)
    assert "\n" not in str(raised.value)


def test_settings_are_written_as_plain_values() -> None:
    values = settings_from("card", None, PATHS).option_values()
    assert json.loads(json.dumps(values)) == values
    assert values["parts"] == ["language"]
    assert values["preset"] == "base-ft"
