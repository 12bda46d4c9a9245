"""Bootstrap intervals: repeatable, around the figure, honest about what wasn't measured."""

import numpy as np
import numpy.typing as npt
import pytest

from grounded_seg.scoring.measure import Figures, intervals, resamples


def test_every_resample_has_as_many_images() -> None:
    drawn = list(resamples(7, 20))
    assert len(drawn) == 20
    assert {weights.sum() for weights in drawn} == {7}
    assert all(np.array_equal(one, other) for one, other in zip(drawn, resamples(7, 20), strict=True))
    assert not np.array_equal(drawn[0], drawn[1])


def test_the_interval_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(5.0, 2.0, 400)

    def figures(weights: npt.NDArray[np.float64]) -> Figures:
        return {"mean": float(np.average(values, weights=weights)), "constant": 3.0, "nothing": None}

    found = intervals(figures, 400, 2000)
    assert found["mean"] is not None
    # The textbook's: mean +- 1.96 standard errors.
    error = 1.96 * values.std() / np.sqrt(400)
    assert found["mean"] == (
        pytest.approx(values.mean() - error, abs=0.02),
        pytest.approx(values.mean() + error, abs=0.02),
    )
    assert found["constant"] == (3.0, 3.0)
    assert found["nothing"] is None


def test_resamples_without_ground_truth_say_nothing() -> None:
    def figures(weights: npt.NDArray[np.float64]) -> Figures:
        return {"of the first": 0.5 if weights[0] else None}

    assert intervals(figures, 2, 50) == {"of the first": (0.5, 0.5)}


def test_no_images_have_no_intervals() -> None:
    assert intervals(lambda _: {"figure": 1.0}, 0, 10) == {}
