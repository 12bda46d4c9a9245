"""Expected calibration error, its bins and Brier score: whether a score of 0.8 means right in 8 of 10 cases.

As Guo et al., "On Calibration of Modern Neural Networks" (arXiv 1706.04599) define it for classifiers and Küppers et
al. (arXiv 2004.13546) for detectors: predictions in bins of equal width by score, in each the gap between mean score
and the share that is right, averaged by the number of predictions. Right means matched with an object at IoU .5.
Brier's score (1950) is the mean square of what a score lacks to 1 where it is right, to 0 where it is wrong.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from grounded_seg.scoring.columns import Flags, Floats
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches

N_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """The predictions whose score lies between two values."""

    low: float
    high: float
    """Belongs to the next bin, but for the last one."""
    n: int
    mean_score: float | None
    """None where the bin is empty, as is the share."""
    share_right: float | None


@dataclass(frozen=True)
class Calibration:
    """How far scores are from the share that is right, without predictions on crowds."""

    error: float | None
    """Expected calibration error in [0, 1]; None without predictions."""
    n: int
    bins: tuple[ReliabilityBin, ...]
    brier: float | None
    """In [0, 1], 0 is best; None without predictions."""


def calibration_of(matches: Matches) -> Calibration:
    """Compare scores with what is right at IoU .5.

    Two predictions with score 0.9, one of them right: mean score 0.9, share 0.5, error 0.4.
    """
    judged = ~matches.ignored[:, ALL_SIZES, AT_50]
    return calibration_from(matches.score[judged], matches.matched[judged, ALL_SIZES, AT_50])


def calibration_from(scores: Floats, is_right: Flags) -> Calibration:
    """Compare scores, (n,), with what is right, (n,)."""
    scores = np.clip(scores, 0.0, 1.0)
    # Tenths as text has them: 0.3 belongs into the bin that begins with 0.3, though 0.3 * 10 is less than 3.
    edges = np.round(np.linspace(0.0, 1.0, N_BINS + 1), 12)
    bin_of = np.clip(np.searchsorted(edges, scores, side="right") - 1, 0, N_BINS - 1)
    bins = []
    error = 0.0
    for number, (low, high) in enumerate(pairwise(edges.tolist())):
        inside = bin_of == number
        n = int(inside.sum())
        mean_score, share_right = (float(scores[inside].mean()), float(is_right[inside].mean())) if n else (None, None)
        if mean_score is not None and share_right is not None:
            error += n / len(scores) * abs(mean_score - share_right)
        bins.append(ReliabilityBin(low, high, n, mean_score, share_right))
    if not len(scores):
        return Calibration(None, 0, tuple(bins), None)
    return Calibration(error, len(scores), tuple(bins), float(np.mean((scores - is_right) ** 2)))
