"""A score for every box, from the probabilities of its tokens. Florence-2 itself gives none.

A box is a label (shared by all boxes that follow it) and four location tokens. Its score in [0, 1] is the product of

- presence: the probability of the label's tokens, times that of any location token (rather than the answer's end or
  another label) where the box's first location stands;
- place: for each coordinate the share of probability near the chosen bin, among all locations; the geometric mean of
  the four. Near is a fifth of the box's side either way: neighbouring bins are the same edge, and an edge that is a
  little off costs a small box more overlap than a large one.

Probabilities are the model's own: float32, before any rule of generation, of the final sequence, whether it was found
greedily or by beams.
"""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.answer.grammar import Shape
from grounded_seg.detect.answer.tokens import N_BINS

NEAR_SHARE, NEAR_BINS = 0.2, 5
"""Distance up to which a coordinate counts as the same edge: a share of the box's width or height, at least 5 bins."""


@dataclass(frozen=True, eq=False)
class TokenEvidence:
    """The probabilities of one answer, reduced to what scores need."""

    log_probabilities: npt.NDArray[np.float32]
    """(n_tokens,) natural logarithm of each generated token's probability, given those before it."""
    location_probabilities: npt.NDArray[np.float32]
    """(n_tokens, 1000) probability of every location token at each step, among the whole vocabulary."""


class ScoreRule(StrEnum):
    """Which parts make the score; the product, unless another one is to be compared with it."""

    PRODUCT = "product"
    PRESENCE = "presence"
    PLACE = "place"
    CONSTANT = "constant"


def shape_score(shape: Shape, evidence: TokenEvidence, rule: ScoreRule = ScoreRule.PRODUCT) -> float:
    """The score of a shape in [0, 1], from the evidence of its answer; an outline's is over all of its points."""
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
    # At a step no location may be likely at all (a beam, very low precision): then the place is unknown.
    shares = (steps * near.reshape(steps.shape)).sum(axis=1) / np.maximum(steps.sum(axis=1), np.finfo(np.float32).tiny)
    return float(np.exp(np.log(np.maximum(shares, np.finfo(np.float64).tiny)).mean()))
