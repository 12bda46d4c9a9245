"""Settings of a training as keywords: their names are the record's fields, and they make the record."""

from dataclasses import fields
from pathlib import Path

import pytest

from grounded_seg.errors import UsageError
from grounded_seg.settings import ModelSettings
from grounded_seg.train import TrainSettings, train
from grounded_seg.train.recipes import MODEL_KEYS, TrainKeywords, settings_from, settings_or_keywords


def no_figures(_: object) -> dict[str, float]:
    return {}


def test_keywords_are_the_fields() -> None:
    own = {one.name for one in fields(TrainSettings)}
    assert set(TrainKeywords.__annotations__) == own | set(MODEL_KEYS) | {"config"}


def test_they_make_the_settings_that_the_command_makes(tmp_path: Path) -> None:
    given = {"dataset": "data", "output": "out", "preset": "demo", "epochs": 3, "method": "full", "split": (50, 25, 25)}
    assert settings_or_keywords(None, given) == settings_from(None, None, given)
    file = tmp_path / "settings.yaml"
    file.write_text("epochs: 5\nlr: 1e-3\n")
    settings = settings_or_keywords(None, {**given, "recipe": "quick", "config": str(file), "metrics": [no_figures]})
    assert (settings.epochs, settings.lr, settings.batch_size, settings.recipe) == (3, 1e-3, 16, "quick")
    assert settings.metrics == (no_figures,)


def test_models_may_be_given_as_a_record() -> None:
    models = ModelSettings("demo", device="cpu", allow_base_mismatch=True)
    settings = settings_or_keywords(None, {"dataset": "data", "output": "out", "models": models})
    assert settings == TrainSettings(dataset=Path("data"), output=Path("out"), models=models)


def test_settings_stay_as_they_are_and_go_without_keywords() -> None:
    settings = TrainSettings(dataset=Path("data"), output=Path("out"))
    assert settings_or_keywords(settings, {}) is settings
    with pytest.raises(UsageError, match="epochs given beside settings"):
        train(settings, epochs=3)


def test_an_unknown_keyword_is_told_with_those_there_are() -> None:
    with pytest.raises(UsageError, match=r"'epoch' \(did you mean 'epochs'\?\); the settings are accumulation, alpha"):
        train(dataset="data", output="out", epoch=3)  # type: ignore[call-arg]
    with pytest.raises(UsageError, match="output is missing"):
        train(dataset="data")
