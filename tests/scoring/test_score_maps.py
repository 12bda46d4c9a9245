"""Maps from scores to probabilities: their file, and for which weights it is."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import HALF, TENTH, calibration_file, weights_of
from fakes import FakeWeights
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.errors import InputError, WeightsError
from grounded_seg.scoring.score_maps import ScoreMap, check_calibration, read_calibration

BASE, TUNED = FakeWeights.named("base-ft"), FakeWeights.named("tuned")


def test_a_file_is_read_back_with_the_hash_of_its_bytes(tmp_path: Path) -> None:
    path = calibration_file(tmp_path / "calibration.json", dog=TENTH, weights=weights_of("base-ft", "tuned"))
    found = read_calibration(path)
    assert (found.overall, found.classes) == (HALF, {"dog": TENTH})
    assert (found.path, found.name) == (path, "calibration.json")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.weights == weights_of("base-ft", "tuned")
    assert found.probability(0.8, "dog") == 0.08
    # A class without a map has that of all.
    assert found.probability(0.8, "cat") == 0.4


@given(st.floats(0, 1), st.floats(0, 1))
def test_a_map_never_falls_and_gives_equal_scores_of_a_file_equal_probabilities(first: float, second: float) -> None:
    steps = ScoreMap("isotonic", 9, (0.1, 0.4, 0.5, 1.0), (0.05, 0.3, 0.3, 0.98))
    low, high = steps(np.array(sorted([first, second])))
    assert 0.05 <= low <= high <= 0.98
    assert steps(np.array([first]))[0] == steps(np.array([round(first, 6)]))[0]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "other"}, "its format is 'other'"),
        ({"overall": None}, "not of the right kind"),
        ({"overall": {"method": "isotonic", "n": 3, "scores": [0, 1], "probabilities": [0.5, 0.4]}}, "don't rise"),
        ({"overall": {"method": "isotonic", "n": 3, "scores": [0.5, 0.5], "probabilities": [0, 1]}}, "don't rise"),
        ({"overall": {"method": "isotonic", "n": 3, "scores": [0, 2], "probabilities": [0, 1]}}, "don't rise"),
        ({"overall": {"method": "isotonic", "n": 3, "scores": [], "probabilities": []}}, "don't rise"),
        ({"overall": {"method": "isotonic", "n": 3, "scores": [0, 1], "probabilities": [0]}}, "don't rise"),
        ({"weights": {"detector": {"name": "a"}, "adapter": None}}, "'sha256' is missing"),
        ({"classes": [1]}, "not of the right kind"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: dict[str, Any], why: str) -> None:
    path = calibration_file(tmp_path / "calibration.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(InputError, match="is no calibration") as caught:
        read_calibration(path)
    assert why in str(caught.value)
    assert "name a file that `calibrate` wrote" in str(caught.value)


def test_a_list_or_a_missing_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(InputError, match="is no calibration"):
        read_calibration(tmp_path / "list.json")
    with pytest.raises(InputError, match=r"none\.json"):
        read_calibration(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("made_with", "detector", "adapter", "why"),
    [
        (("other", None), BASE, None, "was made with the detector other, and base-ft has other weights"),
        (("base-ft", "tuned"), BASE, None, "was made with the adapter tuned, and here it is none"),
        (("base-ft", None), BASE, TUNED, "was made with no adapter, and here it is tuned"),
        (("base-ft", "other"), BASE, TUNED, "was made with the adapter other, and tuned has other weights"),
    ],
)
def test_other_weights_are_refused_unless_they_are_allowed(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    made_with: tuple[str, str | None],
    detector: FakeWeights,
    adapter: FakeWeights | None,
    why: str,
) -> None:
    calibration = read_calibration(calibration_file(tmp_path / "c.json", weights=weights_of(*made_with)))
    with pytest.raises(WeightsError) as caught:
        check_calibration(calibration, detector, adapter)
    assert why in str(caught.value)
    assert "or add --allow-base-mismatch to use it anyway" in str(caught.value)
    check_calibration(calibration, detector, adapter, allow_mismatch=True)
    assert why in caplog.text


def test_the_same_weights_are_taken_and_unknown_ones_are_not(tmp_path: Path) -> None:
    path = calibration_file(tmp_path / "c.json", weights=weights_of("base-ft", "tuned"))
    check_calibration(read_calibration(path), BASE, TUNED)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weights": None}))
    with pytest.raises(WeightsError, match="doesn't say which weights it was made with"):
        check_calibration(read_calibration(path), BASE, TUNED)
