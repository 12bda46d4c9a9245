"""The loss of answers, against numbers by hand."""

import math

import pytest
import torch
from torch.nn import functional

from grounded_seg.train.fit.loss import AnswerLoss

LOCATIONS = range(4, 14)  # ten bins are enough
VOCABULARY = 20


def test_without_spread_it_is_the_cross_entropy() -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([5, 1, 16])
    expected = functional.cross_entropy(logits, targets, reduction="sum")
    assert torch.equal(AnswerLoss(LOCATIONS)(logits, targets), expected)


def test_a_spread_target_is_a_mean_over_its_neighbours() -> None:
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1))
    weights = [math.exp(-0.5 * offset**2) for offset in range(-4, 5)]
    log_probabilities = logits[0].log_softmax(0)
    expected = -sum(
        weight * float(log_probabilities[LOCATIONS[5 + offset]])
        for weight, offset in zip(weights, range(-4, 5), strict=True)
    ) / sum(weights)
    found = AnswerLoss(LOCATIONS, 1.0)(logits, torch.tensor([LOCATIONS[5]]))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_words_are_never_spread_and_the_border_is_kept() -> None:
    logits = torch.randn(3, VOCABULARY, generator=torch.Generator().manual_seed(2))
    words = torch.tensor([1, 19, 3])
    assert float(AnswerLoss(LOCATIONS, 2.0)(logits, words)) == pytest.approx(
        float(AnswerLoss(LOCATIONS)(logits, words))
    )
    # At the last bin, what would lie beyond counts for the last one.
    sure = torch.full((1, VOCABULARY), -1e4)
    sure[0, LOCATIONS[9]] = 0.0
    assert float(AnswerLoss(LOCATIONS, 0.1)(sure, torch.tensor([LOCATIONS[9]]))) == pytest.approx(0.0, abs=1e-3)
