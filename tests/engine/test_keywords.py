"""Settings as keywords: their names are the records' fields, and the records that they make."""

from dataclasses import fields
from pathlib import Path

import pytest

from grounded_seg.engine.keywords import EngineKeywords, RunKeywords, StageKeywords, refuse_unknown, run_settings_from
from grounded_seg.errors import UsageError
from grounded_seg.settings import (
    DetectSettings,
    Drawn,
    ModelSettings,
    RunSettings,
    SegmentSettings,
    SuppressionScope,
    TileSettings,
)


def names_of(kind: type) -> set[str]:
    return {one.name for one in fields(kind)}  # type: ignore[arg-type]


def test_keywords_are_the_fields() -> None:
    stages = names_of(DetectSettings) | names_of(SegmentSettings) | {"tile", "overlap"}
    assert set(StageKeywords.__annotations__) == stages
    of_run = names_of(RunSettings) - {"models", "detect", "segment", "tiles", "output"}
    assert set(RunKeywords.__annotations__) == stages | names_of(ModelSettings) | of_run
    assert set(RunKeywords.__annotations__) - set(EngineKeywords.__annotations__) == of_run - {
        "boxes_only",
        "batch_size",
        "max_pixels",
        "devices",
        "engine",
        "workers",
    }


def test_they_make_the_settings_of_a_run() -> None:
    keywords = {"output": "out", "preset": "demo", "nms": "none", "clean": True, "compile": True, "tile": 640}
    settings = run_settings_from({**keywords, "save": ["masks"]})
    assert settings == RunSettings(
        output=Path("out"),
        models=ModelSettings("demo"),
        detect=DetectSettings(nms=SuppressionScope.NONE, compile=True),
        segment=SegmentSettings(clean=True, compile=True),
        tiles=TileSettings(640),
        save=frozenset({Drawn.MASKS}),
    )


def test_they_replace_those_of_the_records() -> None:
    assert run_settings_from({"tile": "auto"}).tiles == TileSettings("auto")
    base = RunSettings(detect=DetectSettings(beams=3, score_threshold=0.1), tiles=TileSettings(64, 0.5))
    settings = run_settings_from({"score_threshold": 0.3, "tile": 32}, base)
    assert settings.detect == DetectSettings(beams=3, score_threshold=0.3)
    assert settings.tiles == TileSettings(32, 0.5)
    assert run_settings_from({"overlap": 0.1}, base).tiles == TileSettings(64, 0.1)
    assert run_settings_from({"tile": None}, base).tiles is None


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UsageError, match=r"dtype is 'float8'.*beams is 0.*min-area is 0.*batch-size is 0"):
        run_settings_from({"dtype": "float8", "beams": 0, "min_area": 0, "batch_size": 0})


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("conf", ["iou_threshold", "score_threshold"], " (did you mean 'score_threshold'?)"),
        ("threshold", ["iou_threshold", "score_threshold"], " (did you mean 'score_threshold'?)"),
        ("confidence", ["min_score"], " (did you mean 'min_score'?)"),
        ("copy_images", ["images", "pictures"], ' (did you mean pictures="copy"?)'),
        ("torch_dtype", ["dtype"], " (did you mean 'dtype'?)"),
        ("conf", ["rank"], ""),
    ],
)
def test_the_words_of_other_tools_lead_to_the_setting(name: str, known: list[str], meant: str) -> None:
    with pytest.raises(UsageError) as caught:
        refuse_unknown([name], known)
    assert str(caught.value) == f"there is no setting {name!r}{meant}; the settings are {', '.join(known)}"
