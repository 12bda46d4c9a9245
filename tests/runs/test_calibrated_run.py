"""Runs with a calibration and with rules under prompts: what is written, and what it may be resumed and merged with."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from calibrations import HALF, TENTH, calibration_file, weights_of
from conftest import Paint
from fakes import ColourDetector, Silent

from grounded_seg.detect.prompts import PromptSet, prompt_set_from
from grounded_seg.errors import InputError, UsageError, WeightsError
from grounded_seg.runs.merge import merge_runs
from grounded_seg.runs.run import run_images
from grounded_seg.scoring.score_maps import read_calibration
from grounded_seg.settings import DetectSettings, ModelSettings, RunSettings

CARS = prompt_set_from({"red car": "car", "blue ball": "ball"})
LOW = DetectSettings(score_threshold=0.05)
N_IMAGES = 5


@pytest.fixture
def photos(paint: Paint) -> Path:
    """Each shows a red and a blue thing; the detector's score is 2/3."""
    for number in range(N_IMAGES):
        folder = paint(f"photos/{number}.png", red=(0, 0, 9 + number, 9), blue=(20, 5, 30, 15)).parent
    return folder


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    return calibration_file(tmp_path / "calibration.json", overall=HALF, ball=TENTH)


def run(photos: Path, output: Path, prompts: PromptSet = CARS, calibration: Path | None = None, **more: Any) -> Path:
    models = more.pop("models", ModelSettings(calibration=calibration))
    settings = RunSettings(output, models=models, batch_size=2, save=frozenset(), **more)
    run_images(prompts, [photos], settings, Silent())
    return output


def read(run: Path, name: str = "run.json") -> Any:
    return json.loads((run / name).read_text())


def files(run: Path) -> list[bytes]:
    return [(run / name).read_bytes() for name in ("annotations.json", "results.jsonl")]


def test_scores_are_probabilities_and_the_detectors_own_stay_beside(
    detector: ColourDetector, photos: Path, tmp_path: Path, calibration: Path
) -> None:
    plain = read(run(photos, tmp_path / "plain", detect=LOW), "annotations.json")["annotations"]
    out = run(photos, tmp_path / "out", calibration=calibration, detect=LOW)
    found = read(out, "annotations.json")["annotations"]
    assert [one["score"] for one in found] == [0.333334, 0.066667] * N_IMAGES
    assert {one["attributes"]["detector_score"] for one in found} == {0.666667}
    # All else is as it was.
    for before, after in zip(plain, found, strict=True):
        assert before["score"] == before["attributes"]["detector_score"] == after["attributes"]["detector_score"]
        assert before | {"score": after["score"]} == after
    manifest = read(out)
    assert manifest["models"]["calibration"] == {
        "path": str(calibration),
        "name": "calibration.json",
        "sha256": read_calibration(calibration).sha256,
    }
    assert "calibration" not in read(tmp_path / "plain")["models"]


def test_the_threshold_is_a_probability(
    detector: ColourDetector, photos: Path, tmp_path: Path, calibration: Path
) -> None:
    third = DetectSettings(score_threshold=0.3)
    found = read(run(photos, tmp_path / "out", calibration=calibration, detect=third), "annotations.json")
    assert {one["score"] for one in found["annotations"]} == {0.333334}
    assert [one["name"] for one in found["categories"]] == ["car", "ball"]
    assert read(run(photos, tmp_path / "none", calibration=calibration), "annotations.json")["annotations"] == []


def test_a_calibrated_run_is_resumed_with_the_same_calibration_only(
    detector: ColourDetector, photos: Path, tmp_path: Path, calibration: Path
) -> None:
    whole = files(run(photos, tmp_path / "whole", calibration=calibration, detect=LOW))
    out = run(photos, tmp_path / "out", calibration=calibration, detect=LOW)
    journal, manifest = out / "results.jsonl", read(out)
    lines = journal.read_text().splitlines(keepends=True)

    def cut_off() -> None:
        journal.write_text("".join(lines[:3]))
        (out / "annotations.json").unlink(missing_ok=True)
        (out / "run.json").write_text(json.dumps({**manifest, "exit_code": None}))

    cut_off()
    other = calibration_file(tmp_path / "other.json", overall=TENTH)
    for wrong in (other, None):
        with pytest.raises(UsageError, match=r"models calibration sha256 was "):
            run(photos, out, calibration=wrong, detect=LOW, resume=True)
    # The same file elsewhere is the same.
    moved = tmp_path / "moved.json"
    moved.write_bytes(calibration.read_bytes())
    run(photos, out, calibration=moved, detect=LOW, resume=True)
    assert files(out) == whole


def test_a_run_of_a_version_before_is_resumed_without_one(
    detector: ColourDetector, photos: Path, tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = run(photos, tmp_path / "out")
    manifest = read(out)
    del manifest["settings"]["models"]["calibration"]
    (out / "run.json").write_text(json.dumps(manifest))
    before = files(out)
    monkeypatch.setattr("grounded_seg.runs.run.find_models", None)
    # Finished, and named alike: nothing is loaded.
    run(photos, out, resume=True)
    assert files(out) == before


def test_shards_have_one_calibration_and_are_joined_to_the_bytes_of_one_run(
    detector: ColourDetector, photos: Path, tmp_path: Path, calibration: Path
) -> None:
    whole = run(photos, tmp_path / "whole", calibration=calibration, detect=LOW)
    first, second, plain = (
        run(photos, tmp_path / name, calibration=one, detect=LOW, shard=shard)
        for name, one, shard in (("1", calibration, "1/2"), ("2", calibration, "2/2"), ("3", None, "2/2"))
    )
    merge_runs([first, second], tmp_path / "merged")
    assert files(tmp_path / "merged") == files(whole)
    with pytest.raises(UsageError, match=r"have scores of different calibrations \(\w{12}, none\)"):
        merge_runs([first, plain], tmp_path / "mixed")


def test_runs_of_different_calibrations_are_not_merged(
    detector: ColourDetector, paint: Paint, tmp_path: Path, calibration: Path
) -> None:
    parts = [
        run(paint(f"{name}/{name}.png", red=(0, 0, 9, 9)).parent, tmp_path / f"run-{name}", calibration=one, detect=LOW)
        for name, one in (("a", calibration), ("b", calibration), ("c", None))
    ]
    merged = tmp_path / "merged"
    merge_runs(parts[:2], merged)
    for some in ([parts[0], parts[2]], [merged, parts[2]]):
        with pytest.raises(UsageError, match="different calibrations"):
            merge_runs(some, tmp_path / "mixed")


def test_other_weights_are_refused_before_anything_is_written(
    detector: ColourDetector, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibration = calibration_file(tmp_path / "c.json", weights=weights_of("large", "tuned"))
    with pytest.raises(WeightsError, match="was made with the detector large, and base-ft has other weights"):
        run(photos, tmp_path / "out", calibration=calibration)
    assert not (tmp_path / "out").exists()
    run(photos, tmp_path / "out", models=ModelSettings(calibration=calibration, allow_base_mismatch=True))
    assert "--allow-base-mismatch" in caplog.text


def test_a_file_that_is_no_calibration_is_refused(detector: ColourDetector, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(InputError, match="is no calibration"):
        run(photos, tmp_path / "out", calibration=tmp_path / "c.json")


RULED = prompt_set_from({"red car": {"class": "car", "threshold": 0.7}, "blue ball": {"class": "ball", "not": "green"}})


def test_rules_are_written_down_and_are_the_same_in_all_parts(
    detector: ColourDetector, photos: Path, tmp_path: Path
) -> None:
    whole = run(photos, tmp_path / "whole", RULED)
    manifest = read(whole)
    assert manifest["prompts"] == {"red car": "car", "blue ball": "ball"}
    assert manifest["rules"] == {"red car": {"threshold": 0.7}, "blue ball": {"not": ["green"]}}
    found = read(whole, "annotations.json")
    assert {one["attributes"]["prompt"] for one in found["annotations"]} == {"blue ball"}
    assert [one["name"] for one in found["categories"]] == ["car", "ball"]
    assert "rules" not in read(run(photos, tmp_path / "plain"))
    first, second, other = (
        run(photos, tmp_path / name, prompts, shard=shard)
        for name, prompts, shard in (("1", RULED, "1/2"), ("2", RULED, "2/2"), ("3", CARS, "2/2"))
    )
    merge_runs([first, second], tmp_path / "merged")
    assert files(tmp_path / "merged") == files(whole)
    with pytest.raises(UsageError, match="weren't run alike: rules of the classes is null and"):
        merge_runs([first, other], tmp_path / "mixed")
    with pytest.raises(UsageError, match="holds another run: rules of the classes was"):
        run(photos, whole, CARS, resume=True)


def test_thresholds_of_another_calibration_are_refused_before_anything_is_loaded(
    photos: Path, tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grounded_seg.runs.run.find_models", None)
    plain = replace(RULED, calibration="none")
    with pytest.raises(UsageError, match="were chosen for scores without a calibration; leave --calibration out"):
        run(photos, tmp_path / "out", plain, calibration)
    other = replace(RULED, calibration="ab" * 32)
    with pytest.raises(UsageError, match=r"with the calibration abababababab, and none is given"):
        run(photos, tmp_path / "out", other)
    with pytest.raises(UsageError, match=rf"and {calibration} is \w{{12}}; name that one with --calibration"):
        run(photos, tmp_path / "out", other, calibration)
    assert not (tmp_path / "out").exists()
