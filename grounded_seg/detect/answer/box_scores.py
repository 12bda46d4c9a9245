"""A score for every box, from the probabilities of the tokens that wrote it. Florence-2 itself gives none.

A box is written as a label (shared by all boxes that follow it) and four location tokens, so two things can be asked of
the model. *Is it there?* The probability of the label's tokens, times the probability that a location follows where
the box's first location stands, and not the answer's end or another label. *Is it there, exactly?* For each coordinate
the share of probability near the chosen bin, among all locations. Near is a fifth of the box's own side either way, for
two reasons: neighbouring bins are the same edge, so a model that spreads its probability over them loses nothing, and
an edge that is a little off costs a small box more overlap than a large one. The geometric mean of the four counts as
one number. The score is the product of both, in [0, 1].

Probabilities are the model's own: float32, before any rule of the generation, and of the final sequence whether it was
found greedily or by beams.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.answer.grammar import Shape
from grounded_seg.detect.answer.tokens import N_BINS

NEAR_SHARE = 0.2
"""How far off a coordinate still counts as the same edge, as a share of the box's width or height."""
NEAR_BINS = 5
"""And at least so many bins, for boxes that are hardly wider than that themselves."""


@dataclass(frozen=True, eq=False)
class TokenEvidence:
    """What the model held likely at each step of one answer, reduced to what scores need."""

    log_probabilities: npt.NDArray[np.float32]
    """(n_tokens,) natural logarithm of the probability of each generated token, given those before it."""
    location_probabilities: npt.NDArray[np.float32]
    """(n_tokens, 1000) probability of every location token at each step, among the whole vocabulary."""


class ScoreRule(StrEnum):
    """Which parts make the score; all but the product are there to be compared with it."""

    PRODUCT = "product"
    PRESENCE = "presence"
    PLACE = "place"
    CONSTANT = "constant"


def shape_score(shape: Shape, evidence: TokenEvidence, rule: ScoreRule = ScoreRule.PRODUCT) -> float:
    """Score one shape of an answer.

    Args:
        shape: What was parsed from the answer; an outline is scored over all of its points.
        evidence: Of the same answer.
        rule: Which parts to take.

    Returns:
        A score in [0, 1].
    """
    if rule is ScoreRule.CONSTANT:
        return 1.0
    presence = 1.0 if rule is ScoreRule.PLACE else _presence(shape, evidence)
    place = 1.0 if rule is ScoreRule.PRESENCE else _place(shape, evidence)
    # Rounding may lift a sum of probabilities a little above 1.
    return float(np.clip(presence * place, 0.0, 1.0))


def _presence(shape: Shape, evidence: TokenEvidence) -> float:
    label = np.exp(evidence.log_probabilities[list(shape.label_positions)].sum(dtype=np.float64))
    return float(label * evidence.location_probabilities[shape.location_positions[0]].sum(dtype=np.float64))


def _place(shape: Shape, evidence: TokenEvidence) -> float:
    steps = evidence.location_probabilities[list(shape.location_positions)].astype(np.float64)
    points = np.array([value for ring in shape.rings for value in ring]).reshape(-1, 2)
    reach = np.maximum(NEAR_SHARE * np.ptp(points, axis=0), NEAR_BINS)
    near = np.abs(np.arange(N_BINS) - points[:, :, None]) <= reach[:, None]
    # A step may hold no location likely at all (a beam, very low precision): then the place is unknown.
    shares = (steps * near.reshape(steps.shape)).sum(axis=1) / np.maximum(steps.sum(axis=1), np.finfo(np.float32).tiny)
    return float(np.exp(np.log(np.maximum(shares, np.finfo(np.float64).tiny)).mean()))
