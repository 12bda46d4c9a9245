"""The models of a run: which weights are found for it."""

from dataclasses import replace
from pathlib import Path

import pytest
from calibrations import calibration_file
from fakes import found_models
from paths import ROOT

from grounded_seg.detect.prompts import prompts_from
from grounded_seg.errors import WeightsError
from grounded_seg.images.read import read_or_skip
from grounded_seg.pipeline.load import find_models, load_chain
from grounded_seg.records import Image
from grounded_seg.scoring.score_maps import read_calibration
from grounded_seg.settings import DetectSettings, ModelSettings, Precision, SegmentSettings
from grounded_seg.weights.locate import locate
from grounded_seg.weights.sources import resolve


def test_the_models_of_a_run_are_found_for_its_sources() -> None:
    models = ModelSettings("demo", device="cpu")
    sources = resolve(models)
    found = find_models(models)
    assert found.detector == locate(sources.detector)
    assert sources.adapter is not None
    assert found.adapter == locate(sources.adapter, is_adapter=True)
    assert found.segmenter == locate(sources.segmenter)
    assert find_models(models, sources=sources) == found
    without = find_models(ModelSettings("demo", adapter="none", device="cpu"), boxes_only=True)
    assert (without.adapter, without.segmenter) == (None, None)


def test_a_calibration_is_found_with_its_weights_and_reaches_the_chain(tmp_path: Path) -> None:
    models = ModelSettings("demo", device="cpu", dtype=Precision.FLOAT32)
    found = find_models(models)
    assert found.adapter is not None
    own = {"detector": found.detector, "adapter": found.adapter}
    weights = {part: {"name": one.name, "sha256": one.sha256} for part, one in own.items()}
    path = calibration_file(tmp_path / "c.json", weights=weights)
    calibrated = find_models(replace(models, calibration=path), boxes_only=True)
    assert calibrated.calibration == read_calibration(path)
    everything = DetectSettings(score_threshold=0.0)
    [before], [after] = (
        load_chain(one, everything, SegmentSettings()).results([scene_1()], [prompts_from(["red car"])])
        for one in (replace(found, segmenter=None), calibrated)
    )
    assert len(before) == len(after) > 0
    assert [one.detection.detector_score for one in after] == [one.score for one in before]
    assert after.scores == pytest.approx(before.scores / 2, abs=1e-6)
    without = replace(models, calibration=path, adapter="none")
    with pytest.raises(WeightsError, match=r"was made with the adapter .*, and here it is none"):
        find_models(without, boxes_only=True)
    assert find_models(replace(without, allow_base_mismatch=True), boxes_only=True).calibration is not None


def scene_1() -> Image:
    image = read_or_skip(ROOT / "examples" / "scene-1.jpg")
    assert isinstance(image, Image)
    return image


@pytest.mark.parametrize(
    ("detector", "adapter", "options"),
    [
        ("demo/detector", "my tuned", "--preset demo --adapter 'my tuned'"),
        ("demo/detector", None, "--preset demo --adapter none"),
        ("florence-community/Florence-2-large-ft", "tuned", "--preset large-ft --adapter tuned"),
        # Of base-ft and of fast.
        (
            "florence-community/Florence-2-base-ft",
            "tuned",
            "--detector florence-community/Florence-2-base-ft --adapter tuned",
        ),
        ("tuned/model", None, "--detector tuned/model"),
    ],
)
def test_weights_that_learnt_other_questions_are_asked_with_their_own_options(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, detector: str, adapter: str | None, options: str
) -> None:
    found = found_models(ModelSettings(detector=detector, adapter=adapter), boxes_only=True)
    tuned = found.adapter or found.detector
    (tmp_path / "grounded_seg.json").write_text('{"base": {}, "prompt_form": "od", "classes": ["fig"]}')
    tuned = replace(tuned, path=tmp_path)
    found = replace(found, **{"adapter" if adapter else "detector": tuned})
    # They are told before weights are loaded, of which there are none here.
    with pytest.raises(WeightsError):
        load_chain(found, DetectSettings(), SegmentSettings())
    assert f"try grounded-seg ask OD IMAGE {options}" in caplog.text
