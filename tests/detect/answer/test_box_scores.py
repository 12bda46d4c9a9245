import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.answer.box_scores import NEAR_BINS, ScoreRule, TokenEvidence, shape_score
from grounded_seg.detect.answer.grammar import Shape, ShapeKind

BINS = (100, 200, 300, 400)
BOX = Shape(ShapeKind.BOX, "red car", (BINS,), label_positions=(0, 1), location_positions=(2, 3, 4, 5))
SECOND = Shape(ShapeKind.BOX, "red car", (BINS,), label_positions=(0, 1), location_positions=(6, 7, 8, 9))


def evidence(label: tuple[float, float], masses: list[float], shares: list[float], far: int = 50) -> TokenEvidence:
    """Steps whose locations have this mass in all, this share of it at the chosen bin, the rest `far` bins away."""
    steps = np.zeros((2 + len(masses), 1000), dtype=np.float32)
    for step, (mass, share) in enumerate(zip(masses, shares, strict=True), start=2):
        chosen = BINS[(step - 2) % 4]
        steps[step, chosen] = mass * share
        steps[step, chosen + far] += mass * (1 - share)
    log_probabilities = np.log(np.array([*label, *[0.1] * len(masses)], dtype=np.float32))
    return TokenEvidence(log_probabilities, steps)


def test_a_sure_box_scores_one() -> None:
    assert shape_score(BOX, evidence((1.0, 1.0), [1.0] * 4, [1.0] * 4)) == 1.0


def test_the_score_is_the_label_and_the_location_that_follows_times_the_mean_share_near_the_coordinates() -> None:
    doubtful = evidence((0.8, 0.5), [0.9, 1.0, 0.5, 1.0], [1.0, 0.5, 0.5, 0.25])
    presence, place = 0.8 * 0.5 * 0.9, (1.0 * 0.5 * 0.5 * 0.25) ** 0.25
    assert shape_score(BOX, doubtful) == pytest.approx(presence * place, rel=1e-6)
    assert shape_score(BOX, doubtful, ScoreRule.PRESENCE) == pytest.approx(presence, rel=1e-6)
    assert shape_score(BOX, doubtful, ScoreRule.PLACE) == pytest.approx(place, rel=1e-6)
    assert shape_score(BOX, doubtful, ScoreRule.CONSTANT) == 1.0


def test_a_second_box_has_its_own_doubt_of_being_there() -> None:
    both = evidence((0.8, 1.0), [1.0] * 4 + [0.25] + [1.0] * 3, [1.0] * 8)
    assert shape_score(BOX, both) == pytest.approx(0.8)
    assert shape_score(SECOND, both) == pytest.approx(0.8 * 0.25)


@pytest.mark.parametrize(("far", "expected"), [(40, 1.0), (41, 0.5)])
def test_a_fifth_of_the_side_off_is_the_same_edge(far: int, expected: float) -> None:
    # The box is 200 bins wide and high.
    assert shape_score(BOX, evidence((1.0, 1.0), [1.0] * 4, [0.5] * 4, far)) == pytest.approx(expected)


def test_width_and_height_have_their_own_fifth_and_the_smallest_box_its_five_bins() -> None:
    flat = Shape(ShapeKind.BOX, "car", ((100, 200, 300, 210),), label_positions=(0, 1), location_positions=(2, 3, 4, 5))
    steps = np.zeros((6, 1000), dtype=np.float32)
    for step, value, far in zip(range(2, 6), flat.rings[0], (40, NEAR_BINS, 41, NEAR_BINS + 1), strict=True):
        steps[step, [value, value + far]] = 0.5
    assert shape_score(flat, TokenEvidence(np.zeros(6, dtype=np.float32), steps)) == pytest.approx(0.25**0.25)


def test_without_a_label_the_first_location_decides() -> None:
    proposal = Shape(ShapeKind.BOX, "", (BINS,), label_positions=(), location_positions=(2, 3, 4, 5))
    assert shape_score(proposal, evidence((0.01, 0.01), [0.5, 1, 1, 1], [1.0] * 4)) == pytest.approx(0.5)


def test_an_outline_is_scored_over_all_of_its_points() -> None:
    rings = ((100, 200), (300, 400))
    outline = Shape(ShapeKind.OUTLINE, "", rings, label_positions=(), location_positions=(2, 3, 4, 5))
    assert shape_score(outline, evidence((1, 1), [1.0] * 4, [1, 1, 1, 0.0625])) == pytest.approx(0.5)


def test_steps_that_hold_no_location_likely_give_nothing_and_not_a_fault() -> None:
    score = shape_score(BOX, evidence((1.0, 1.0), [0.0] * 4, [0.0] * 4))
    assert score == 0.0


@given(st.lists(st.floats(-50, 50, width=32), min_size=4, max_size=4), st.integers(0, 2**32 - 1))
def test_every_score_is_within_zero_and_one(log_label: list[float], seed: int) -> None:
    logits = np.random.default_rng(seed).normal(scale=8, size=(6, 1200))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    steps = TokenEvidence(np.log(np.maximum(probabilities[:, 1100], 1e-30)), probabilities[:, :1000])
    for rule in ScoreRule:
        score = shape_score(BOX, steps, rule)
        assert 0.0 <= score <= 1.0
        assert math.isfinite(score)
