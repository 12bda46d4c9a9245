"""Maps that are fitted to an evaluation's boxes: what they find, how they are judged, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import weights_of
from coco_cases import Box, results, scored, truth
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.errors import InputError, UsageError
from grounded_seg.scoring.calibration import calibration_from
from grounded_seg.scoring.fit_maps import Cases, calibrate, cross_validated, fitted
from grounded_seg.scoring.json_report import read_report, report_of, write_report
from grounded_seg.scoring.score_maps import read_calibration

HERE: Box = (10, 10, 40, 40)


def drawn(n: int, power: float = 3.0, seed: int = 0, n_classes: int = 1) -> Cases:
    """Cases in which a score is right with its power as probability, five to an image."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.uniform(0, 1, n), 6)
    return Cases(score, rng.uniform(size=n) < score**power, rng.integers(n_classes, size=n), np.arange(n) // 5)


def test_a_map_finds_the_probability_that_is_there() -> None:
    maps = fitted(drawn(4000))
    assert maps.overall.method == "isotonic"
    at = np.array([0.2, 0.5, 0.8, 0.95])
    assert maps.overall(at) == pytest.approx(at**3, abs=0.05)


def test_on_new_cases_the_error_is_a_fraction_of_what_it_was() -> None:
    maps, new = fitted(drawn(2000)), drawn(2000, seed=1)
    before, after = calibration_from(new.score, new.is_right), calibration_from(maps(new), new.is_right)
    assert before.error is not None and after.error is not None  # noqa: PT018
    assert before.error > 0.2
    assert after.error < 0.03
    assert before.brier is not None and after.brier is not None  # noqa: PT018
    assert after.brier < before.brier


def test_each_class_has_its_own_map() -> None:
    sure, unsure = drawn(600, power=0.3), drawn(600, power=4, seed=1)
    joined = Cases(
        np.concatenate([sure.score, unsure.score]),
        np.concatenate([sure.is_right, unsure.is_right]),
        np.repeat([0, 1], 600),
        np.concatenate([sure.image, unsure.image + 1000]),
    )
    maps = fitted(joined)
    middle = np.array([0.5])
    assert maps.by_category[0](middle)[0] == pytest.approx(0.5**0.3, abs=0.1)
    assert maps.by_category[1](middle)[0] == pytest.approx(0.5**4, abs=0.1)
    assert maps.by_category[1](middle)[0] < maps.overall(middle)[0] < maps.by_category[0](middle)[0]


def test_few_cases_move_two_parameters_a_little() -> None:
    many = drawn(1000)
    few = Cases(np.full(4, 0.5), np.ones(4, dtype=np.bool_), np.ones(4, dtype=np.int64), np.arange(4) + 900)
    joined = Cases(*(np.concatenate([getattr(many, name), getattr(few, name)]) for name in vars(many)))
    maps = fitted(joined)
    [own] = [maps.by_category[1]]
    assert (own.method, own.n) == ("two-parameter", 4)
    at = np.array([0.5])
    # Four of four are right where one in eight is: it goes up, and by no means to 1.
    assert maps.overall(at)[0] + 0.1 < own(at)[0] < 0.9
    alone = fitted(few)
    assert alone.overall.method == "two-parameter"
    assert 0.5 < alone.overall(at)[0] < 0.99


def test_below_the_scores_seen_a_map_falls_to_0() -> None:
    # A detector that was asked from .6 on, and was always right.
    score = np.linspace(0.6, 1, 80)
    maps = fitted(Cases(score, np.ones(80, dtype=np.bool_), np.zeros(80, dtype=np.int64), np.arange(80)))
    for one in (maps.overall, maps.by_category[0]):
        seen, half, none = one(np.array([0.6, 0.3, 0.0]))
        assert seen > 0.9
        assert half == pytest.approx(seen / 2, abs=1e-4)
        assert none == 0


def test_a_map_that_makes_scores_worse_is_told(tmp_path: Path) -> None:
    # Few boxes with scores that are right already: what is learnt from four fifths of them is chance.
    rng = np.random.default_rng(0)
    scores_of = np.round(rng.uniform(0.05, 0.95, 40), 4).tolist()
    boxes: list[Box] = [HERE if rng.uniform() < score else (60, 60, 30, 30) for score in scores_of]
    found = [(image, 1, box, score) for image, (box, score) in enumerate(zip(boxes, scores_of, strict=True), start=1)]
    document = truth(*((image, 1, HERE) for image in range(1, 41)), n_images=40)
    write_report(report_of(scored(tmp_path, document, results(*found)), None, (), {}), tmp_path / "eval.json")
    made = calibrate(read_report(tmp_path / "eval.json"), tmp_path / "calibration.json")
    assert [one.is_worse for one in made.judged] == [True, True]
    assert "the Brier score rose for all together, car: their scores are better as they are" in made.notes[0]


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=60))
def test_maps_never_fall_whatever_they_are_fitted_to(cases: list[tuple[int, bool]]) -> None:
    score, is_right = (np.array(column) for column in zip(*cases, strict=True))
    n = len(score)
    maps = fitted(Cases(score / 20, is_right.astype(np.bool_), np.zeros(n, dtype=np.int64), np.arange(n)))
    grid = np.linspace(0, 1, 101)
    for one in (maps.overall, maps.by_category[0]):
        values = one(grid)
        assert (np.diff(values) >= 0).all()
        # No handful of cases makes sure of anything.
        assert values.min() >= 0
        assert values.max() <= 1
        assert (one.scores[0], one.scores[-1]) == (0, 1)


def test_judging_leaves_the_own_image_out() -> None:
    # Every image's boxes are all right or all wrong, at the same score: its own cases would give it away.
    score = np.full(200, 0.5)
    image = np.arange(200) // 20
    is_right = image % 2 == 0
    cases = Cases(score, is_right, np.zeros(200, dtype=np.int64), image)
    probabilities = cross_validated(cases)
    assert probabilities is not None
    assert np.unique(probabilities).size <= 5
    for number in range(10):
        assert np.unique(probabilities[image == number]).size == 1
    # Images that are right are left out where the map is fitted, so it is lower there, and the other way round.
    assert probabilities[is_right].mean() <= probabilities[~is_right].mean()
    assert cross_validated(Cases(score[:9], is_right[:9], cases.category[:9], np.zeros(9, dtype=np.int64))) is None


def report(folder: Path, n: int = 60, **made_with: Any) -> Path:
    """A report of boxes that are right with the square of their score."""
    rng = np.random.default_rng(0)
    found = []
    for image in range(1, n + 1):
        score = round(float(rng.uniform(0.05, 1)), 4)
        box: Box = HERE if rng.uniform() < score**2 else (60, 60, 30, 30)
        found.append((image, 1, box, score))
    document = truth(*((image, 1, HERE) for image in range(1, n + 1)), n_images=n)
    scores = scored(folder, document, results(*found))
    path = folder / "eval.json"
    write_report(report_of(scores, None, (), made_with), path)
    return path


def test_a_report_becomes_a_file(tmp_path: Path) -> None:
    weights = weights_of("base-ft", "tuned") | {"segmenter": None}
    path = report(tmp_path, weights=weights)
    made = calibrate(read_report(path), tmp_path / "calibration.json")
    assert [(one.name, one.method) for one in made.judged] == [(None, "isotonic"), ("car", "isotonic")]
    assert made.notes == ()
    first = made.judged[0]
    assert (first.before.n, first.after and first.after.n) == (60, 60)
    # What eval itself says of these scores.
    assert first.before.error == pytest.approx(json.loads(path.read_text())["calibration"]["boxes"]["error"])
    found = read_calibration(tmp_path / "calibration.json")
    assert found.weights == weights_of("base-ft", "tuned")
    assert list(found.classes) == ["car"]
    content = json.loads((tmp_path / "calibration.json").read_text())
    assert content["measured_on"]["data_set"] == "truth.json"
    assert content["judged"][0]["error"] == [first.before.error, first.after and first.after.error]
    again = calibrate(read_report(path), tmp_path / "again.json")
    assert again.path.read_bytes() == made.path.read_bytes()


def test_what_can_not_be_calibrated(tmp_path: Path) -> None:
    path = report(tmp_path, calibration={"name": "c.json", "sha256": "ab"})
    with pytest.raises(UsageError, match=r"was measured with a calibration; measure again without --calibration"):
        calibrate(read_report(path), tmp_path / "c.json")
    empty = scored(tmp_path, truth((1, 1, HERE)), [])
    write_report(report_of(empty, None, (), {}), path)
    with pytest.raises(InputError, match="has no predictions to learn from"):
        calibrate(read_report(path), tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


def test_unknown_weights_and_a_cut_are_told(tmp_path: Path) -> None:
    path = report(tmp_path, detect={"score_threshold": 0.5})
    made = calibrate(read_report(path), tmp_path / "c.json")
    assert "the predictions were cut off at a score of 0.5: below it nothing was learnt" in made.notes[0]
    assert "doesn't say which weights it was made with, so run needs --allow-base-mismatch" in made.notes[1]
    assert read_calibration(tmp_path / "c.json").weights is None


def test_one_image_can_not_be_judged(tmp_path: Path) -> None:
    made = calibrate(read_report(report(tmp_path, n=1, weights=weights_of())), tmp_path / "c.json")
    assert [one.after for one in made.judged] == [None, None]
