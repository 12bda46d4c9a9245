"""Settings: a text means its choice, numbers have limits, and one error names all that is wrong."""

import json
import math
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from grounded_seg.errors import UsageError
from grounded_seg.evaluation.evaluate import EvaluationSettings
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.setting_types import PositiveInt, convert_values, plain_value
from grounded_seg.settings import (
    DetectSettings,
    Drawn,
    ModelSettings,
    OnError,
    Precision,
    Reviewed,
    RunSettings,
    SegmentSettings,
    SuppressionScope,
    TileSettings,
)
from grounded_seg.train.settings import TrainSettings

REQUIRED: dict[Any, dict[str, Any]] = {
    TileSettings: {"side": 100},
    RunSettings: {"output": "out"},
    EvaluationSettings: {
        "ground_truth": "truth.json",
        "source": RunSettings(),
        "images": "photos",
        "score_threshold": 0.5,
    },
    ExportSettings: {"source": "run", "output": "labels", "format": "coco"},
    TrainSettings: {"dataset": "data", "output": "run"},
}
CLASSES = (DetectSettings, SegmentSettings, TileSettings, ModelSettings, *REQUIRED.keys() - {TileSettings})


def choices(kind: Any) -> list[tuple[str, type[StrEnum]]]:
    """The fields of a settings class that are one choice, with their choices."""
    found = []
    for name, one in kind.__dataclass_fields__.items():
        types = get_args(one.type) or (one.type,)
        found += [(name, type_) for type_ in types if isinstance(type_, type) and issubclass(type_, StrEnum)]
    return [(name, choice) for name, choice in found if name not in ("save", "parts", "log_to", "reviewed")]


def problem_of(kind: Any, **values: Any) -> str:
    with pytest.raises(UsageError) as raised:
        kind(**{**REQUIRED.get(kind, {}), **values})
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("kind", sorted(CLASSES, key=str))
def test_a_text_means_its_choice_in_every_class(kind: Any) -> None:
    for name, choice in choices(kind):
        for member in choice:
            settings = kind(**{**REQUIRED.get(kind, {}), name: str(member)})
            assert getattr(settings, name) is member
        wrong = problem_of(kind, **{name: "nonsense"})
        assert f"is 'nonsense', it must be one of {', '.join(choice)}" in wrong


def test_reviewed_means_its_choice_where_a_run_is_read() -> None:
    for member in Reviewed:
        assert EvaluationSettings(Path("truth.json"), Path("run"), 0.5, reviewed=str(member)).reviewed is member  # type: ignore[arg-type]
        assert ExportSettings(**REQUIRED[ExportSettings], reviewed=str(member)).reviewed is member  # type: ignore[arg-type]
    assert TrainSettings(**REQUIRED[TrainSettings], reviewed="accepted").reviewed is Reviewed.ACCEPTED
    choices_told = ", ".join(Reviewed)
    for kind in (EvaluationSettings, ExportSettings, TrainSettings):
        assert f"is 'nonsense', it must be one of {choices_told}" in problem_of(kind, reviewed="nonsense")


def test_every_choice_is_tried() -> None:
    tried = {name for kind in CLASSES for name, _ in choices(kind)}
    assert tried >= {"task", "nms", "dtype", "on_error", "format", "form", "pictures", "method", "schedule"}


def test_texts_and_lists_are_taken_for_paths_and_sets() -> None:
    run = RunSettings("out", save=["crops"], on_error="stop", models={"dtype": "float32"})  # type: ignore[arg-type]
    assert run == RunSettings(
        Path("out"),
        save=frozenset({Drawn.CROPS}),
        on_error=OnError.STOP,
        models=ModelSettings(dtype=Precision.FLOAT32),
    )
    assert DetectSettings(nms="none").nms is SuppressionScope.NONE  # type: ignore[arg-type]


def test_no_pictures_are_an_empty_set() -> None:
    assert RunSettings(Path("out"), save=frozenset({Drawn.NONE})).save == frozenset()
    assert "--save none" in problem_of(RunSettings, save=["none", "crops"])
    assert "--boxes-only" in problem_of(RunSettings, save=["masks"], boxes_only=True)


def test_numbers_of_numpy_are_numbers() -> None:
    settings = DetectSettings(score_threshold=np.float32(0.5), max_detections=np.int64(3))  # type: ignore[arg-type]
    assert (settings.score_threshold, settings.max_detections) == (0.5, 3)
    assert (type(settings.score_threshold), type(settings.max_detections)) == (float, int)
    assert isinstance(DetectSettings(score_threshold=1).score_threshold, float)


@pytest.mark.parametrize(
    ("kind", "values", "says"),
    [
        (DetectSettings, {"score_threshold": 1.5}, "score-threshold is 1.5, it must be between 0 and 1"),
        (DetectSettings, {"score_threshold": math.nan}, "score-threshold is nan, it must be a finite number, between"),
        (DetectSettings, {"score_threshold": "0.5"}, "score-threshold is '0.5', it must be a finite number, between"),
        (DetectSettings, {"beams": 2.5}, "beams is 2.5, it must be a whole number, at least 1"),
        (DetectSettings, {"beams": True}, "beams is True, it must be a whole number, at least 1"),
        (DetectSettings, {"compile": 1}, "compile is 1, it must be true or false"),
        (TileSettings, {"side": 0}, "tile is 0, it must be at least 1"),
        (TileSettings, {"side": "large"}, "tile is 'large', it must be auto or a whole number, at least 1"),
        (TileSettings, {"side": 1.5}, "tile is 1.5, it must be a whole number, at least 1"),
        (TileSettings, {"overlap": 1}, "overlap is 1, it must be between 0 and 0.5"),
        (ModelSettings, {"preset": 3}, "preset is 3, it must be text"),
        (RunSettings, {"output": 3}, "output is 3, it must be a path"),
        (RunSettings, {"save": ["crop"]}, "save is ['crop'], it must be a list, each item one of overlay, masks"),
        (RunSettings, {"tiles": {}}, "tiles is {}, it must be TileSettings or a mapping of its fields"),
        (RunSettings, {"detect": {"nmss": 1}}, "it must be DetectSettings or a mapping of its fields"),
        (ExportSettings, {"tolerance_px": math.inf}, "tolerance is inf, it must be a finite number, at least 0"),
        (ExportSettings, {"format": "excel"}, "to is 'excel', it must be one of coco, yolo"),
        (ExportSettings, {"split": ("80", "x")}, "split is ('80', 'x'), it must be a list, each item a whole number"),
        (TrainSettings, {"lr": 0}, "lr is 0, it must be above 0"),
        (TrainSettings, {"image_size": 8}, "image-size is 8, it must be at least 16"),
        (TrainSettings, {"split": (80, 20)}, "split is (80, 20), it must be a list of 3, each item a whole number"),
    ],
)
def test_a_wrong_value_is_told_with_the_right_ones(kind: Any, values: dict[str, Any], says: str) -> None:
    assert says in problem_of(kind, **values)


def test_all_problems_are_told_at_once() -> None:
    wrong = problem_of(
        RunSettings,
        batch_size=0,
        resume=True,
        overwrite=True,
        detect={"nms": "some", "beams": 0},
        tiles={"side": 0},
        models={"dtype": "float8"},
    )
    for name in ("batch-size is 0", "--overwrite", "nms is 'some'", "beams is 0", "tile is 0", "dtype is 'float8'"):
        assert name in wrong
    wrong = problem_of(ExportSettings, format="excel", form="outline", min_score=2, tolerance_px=-1, split=(1,))
    for name in ("to is 'excel'", "seg is 'outline'", "min-score is 2", "tolerance is -1", "split is 1"):
        assert name in wrong
    wrong = problem_of(
        EvaluationSettings, score_threshold=2, n_absent=-1, n_resamples=-1, source=RunSettings(resume=True)
    )
    for name in ("score-threshold is 2", "absent is -1", "intervals is -1", "--output"):
        assert name in wrong


def test_a_form_that_the_format_lacks_is_told_with_those_it_has() -> None:
    assert "for voc it must be one of none" in problem_of(ExportSettings, format="voc", form="rle")


def test_numbers_are_read_from_text_only_where_that_is_asked_for() -> None:
    kinds = {"lr": float, "rank": PositiveInt, "max_steps": PositiveInt | None, "augment": bool}
    texts = {"lr": "1e-4", "rank": "8", "max_steps": "null", "augment": "true"}
    assert convert_values(texts, kinds, numbers_as_text=True) == (
        {"lr": 1e-4, "rank": 8, "max_steps": None, "augment": True},
        [],
    )
    assert len(convert_values(texts, kinds)[1]) == 4
    assert convert_values({"augment": 1, "rank": "0"}, kinds, numbers_as_text=True) == (
        {},
        ["augment is 1, it must be true or false", "rank is '0', it must be a whole number, at least 1"],
    )


def test_plain_values_are_json() -> None:
    values = [Path("a"), LabelFormat.COCO, frozenset({Drawn.MASKS, Drawn.CROPS}), (1, 2), None, 0.5]
    assert json.loads(json.dumps([plain_value(one) for one in values])) == [
        "a",
        "coco",
        ["crops", "masks"],
        [1, 2],
        None,
        0.5,
    ]
