"""Fit maps from scores to probabilities on the matches of an evaluation, and judge them by cross-validation.

Isotonic regression (Zadrozny and Elkan, 2002) where there are enough cases. Its steps become a line through the middle
of each (centered isotonic regression, Oron and Flournoy, arXiv 1701.05964), so that scores keep their order. With fewer
cases two parameters are fitted, slope and offset in logits (Platt, 1999), and held near those that change nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit, logit

from grounded_seg.coco.write import SCORE_DECIMALS
from grounded_seg.errors import InputError, UsageError
from grounded_seg.scoring.calibration import Calibration, calibration_from
from grounded_seg.scoring.columns import Flags, Floats, Indices
from grounded_seg.scoring.json_report import SavedScores
from grounded_seg.scoring.matching import ALL_SIZES, AT_50
from grounded_seg.scoring.score_maps import PARTS, ScoreMap, write_calibration

MIN_CASES = 30
"""For an isotonic map."""
N_FOLDS = 5
"""Of the cross-validation; images are whole in one of them."""
_PRIOR_CASES = 10.0
"""How many cases the map that is fitted first counts for, spread over the scores: no step says never or always."""
_N_PRIOR_POINTS = 20
_SURE = 1e-6
"""Probabilities are kept as far from 0 and 1 in logits."""
_GRID = np.array([0.0, *expit(np.linspace(-7, 7, 57)), 1.0])
"""Scores of the points of a map of two parameters."""
_END_SLOPE = 1e-3
"""How far a map goes on from its outermost steps to the scores seen, as a share of what is left to 0 or 1."""


@dataclass(frozen=True, eq=False)
class Cases:
    """Predictions that are right or wrong at IoU .5; columns are (n,)."""

    score: Floats
    is_right: Flags
    category: Indices
    image: Indices

    def chosen(self, rows: Flags) -> "Cases":
        """Those that (n,) says."""
        return Cases(self.score[rows], self.is_right[rows], self.category[rows], self.image[rows])


@dataclass(frozen=True, eq=False)
class Maps:
    """A map for all classes, and one for each class with cases, by its index."""

    overall: ScoreMap
    by_category: Mapping[int, ScoreMap]

    def __call__(self, cases: Cases) -> Floats:
        """Probabilities of cases, (n,)."""
        probabilities = self.overall(cases.score)
        for category, one in self.by_category.items():
            rows = cases.category == category
            probabilities[rows] = one(cases.score[rows])
        return probabilities


@dataclass(frozen=True)
class JudgedMap:
    """How a map does on images that it wasn't fitted to."""

    name: str | None
    """Of the class; None for all classes together, each with its own map."""
    method: str
    before: Calibration
    """Of the scores as they are."""
    after: Calibration | None
    """Of the probabilities; None with fewer than two images that have cases."""

    @property
    def errors(self) -> tuple[float | None, float | None]:
        """Calibration error before and after."""
        return self.before.error, None if self.after is None else self.after.error

    @property
    def briers(self) -> tuple[float | None, float | None]:
        """Brier score before and after."""
        return self.before.brier, None if self.after is None else self.after.brier

    @property
    def is_worse(self) -> bool:
        """Whether the Brier score rose, by what the table shows."""
        before, after = self.briers
        return before is not None and after is not None and round(after, 3) > round(before, 3)


@dataclass(frozen=True)
class CalibrationReport:
    """What `calibrate` fitted and wrote: the file, and how its maps do before and after, class by class."""

    path: Path
    judged: tuple[JudgedMap, ...]
    """All classes together first."""
    notes: tuple[str, ...]
    """What there is to say about the scores, a line each."""


def calibrate(report: SavedScores, path: Path) -> CalibrationReport:
    """Fit maps to the boxes of an evaluation, and write them to a file.

    Raises:
        UsageError: If the scores are probabilities of a calibration already.
        InputError: If there is no prediction to learn from.
        OutputError: If the file can't be written.
    """
    if report.made_with.get("calibration") is not None:
        raise UsageError(f"{report.path} was measured with a calibration; measure again without --calibration")
    cases, names = cases_of(report), report.matches["boxes"].index.names
    if not len(cases.score):
        raise InputError(f"{report.path} has no predictions to learn from; measure with predictions")
    maps = fitted(cases)
    judged = tuple(_judged(cases, maps, names))
    classes = {names[category]: one for category, one in maps.by_category.items()}
    notes = []
    if report.cut_at:
        notes.append(
            f"the predictions were cut off at a score of {report.cut_at:g}: below it nothing was learnt; measure with "
            "eval --images, or a run with --score-threshold 0"
        )
    if worse := [one.name or "all together" for one in judged if one.is_worse]:
        notes.append(
            f"on images that it wasn't fitted to the Brier score rose for {', '.join(worse)}: their scores are better "
            "as they are; measure on more images"
        )
    weights = _weights_of(report.made_with)
    if weights is None:
        notes.append(f"{report.path} doesn't say which weights it was made with, so run needs --allow-base-mismatch")
    facts = {
        "measured_on": {"data_set": report.data_set, "sha256": report.truth_sha256},
        "judged": [
            {"class": one.name, "n": one.before.n, "error": list(one.errors), "brier": list(one.briers)}
            for one in judged
        ],
    }
    write_calibration(path, maps.overall, classes, weights, facts)
    return CalibrationReport(path, judged, tuple(notes))


def cases_of(report: SavedScores) -> Cases:
    """The boxes of an evaluation, without those on crowds."""
    matches = report.matches["boxes"]
    rows = ~matches.ignored[:, ALL_SIZES, AT_50]
    return Cases(
        np.clip(matches.score[rows], 0.0, 1.0),
        matches.matched[rows, ALL_SIZES, AT_50],
        matches.category[rows],
        matches.image[rows],
    )


def fitted(cases: Cases) -> Maps:
    """Fit a map to all cases, and from it one to those of each class."""
    overall = _fitted_map(cases.score, cases.is_right, None)
    of_classes = {}
    for category in np.unique(cases.category).tolist():
        rows = cases.category == category
        of_classes[category] = _fitted_map(cases.score[rows], cases.is_right[rows], overall)
    return Maps(overall, of_classes)


def cross_validated(cases: Cases) -> Floats | None:
    """Probabilities, (n,), each by maps that were fitted without its image; None where there is but one image."""
    images = np.unique(cases.image)
    if len(images) < 2:
        return None
    n_folds = min(N_FOLDS, len(images))
    fold_of = np.random.default_rng(seed=0).permutation(len(images)) % n_folds
    fold = fold_of[np.searchsorted(images, cases.image)]
    probabilities = np.zeros(len(cases.score))
    for number in range(n_folds):
        probabilities[fold == number] = fitted(cases.chosen(fold != number))(cases.chosen(fold == number))
    return probabilities


def _judged(cases: Cases, maps: Maps, names: tuple[str, ...]) -> list[JudgedMap]:
    after = cross_validated(cases)
    everything = np.ones(len(cases.score), dtype=np.bool_)
    groups: list[tuple[str | None, str, Flags]] = [(None, maps.overall.method, everything)]
    groups += [(names[category], one.method, cases.category == category) for category, one in maps.by_category.items()]
    return [
        JudgedMap(
            name,
            method,
            calibration_from(cases.score[rows], cases.is_right[rows]),
            None if after is None else calibration_from(after[rows], cases.is_right[rows]),
        )
        for name, method, rows in groups
    ]


def _weights_of(made_with: Mapping[str, Any]) -> dict[str, Any] | None:
    weights = made_with.get("weights")
    return None if weights is None else {part: weights.get(part) for part in PARTS}


def _fitted_map(scores: Floats, is_right: Flags, prior: ScoreMap | None) -> ScoreMap:
    """Fit two parameters, and from them an isotonic map if there are enough cases.

    With a `prior`, as for a class the map of all classes, what is fitted is how the cases differ from it.
    """
    smooth = _two_parameter(scores, is_right, prior)
    return _isotonic(scores, is_right, smooth) if len(scores) >= MIN_CASES else smooth


def _two_parameter(scores: Floats, is_right: Flags, prior: ScoreMap | None) -> ScoreMap:
    logits = _logits(scores, prior)

    def loss(parameters: Floats) -> tuple[float, Floats]:
        slope, offset = parameters
        at = slope * logits + offset
        excess = expit(at) - is_right
        # As if a case more stood against each step away from what changes nothing.
        value = np.logaddexp(0, at).sum() - at[is_right].sum() + 0.5 * ((slope - 1) ** 2 + offset**2)
        return float(value), np.array([(excess * logits).sum() + slope - 1, excess.sum() + offset])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="L-BFGS-B", bounds=[(0.05, 20.0), (-20.0, 20.0)])
    slope, offset = found.x.tolist()
    return _map_through(_GRID, expit(slope * _logits(_GRID, prior) + offset), "two-parameter", len(scores))


def _logits(scores: Floats, prior: ScoreMap | None) -> Floats:
    probabilities = scores if prior is None else prior(scores)
    return np.asarray(logit(np.clip(probabilities, _SURE, 1 - _SURE)))


def _isotonic(scores: Floats, is_right: Flags, prior: ScoreMap) -> ScoreMap:
    quantiles = np.quantile(scores, (np.arange(_N_PRIOR_POINTS) + 0.5) / _N_PRIOR_POINTS)
    # Equal scores are one point: the fit takes its points in order.
    at, index = np.unique(np.concatenate([scores, quantiles]), return_inverse=True)
    weights = np.concatenate([np.ones(len(scores)), np.full(len(quantiles), _PRIOR_CASES / len(quantiles))])
    weight = np.bincount(index, weights)
    share = np.bincount(index, weights * np.concatenate([is_right, prior(quantiles)])) / weight
    fit = isotonic_regression(share, weights=weight)
    starts = fit.blocks[:-1]
    middles = np.add.reduceat(at * weight, starts) / np.add.reduceat(weight, starts)
    heights = fit.x[starts]
    # Nothing is known of scores below those seen: from there it falls to 0, however right these were.
    lowest = float(at[0])
    points = [(0.0, 0.0)] if lowest > 0 else []
    points += [(lowest, heights[0] * (1 - _END_SLOPE))] if lowest < middles[0] else []
    points += list(zip(middles.tolist(), heights.tolist(), strict=True))
    points += [(1.0, heights[-1] + (1 - heights[-1]) * _END_SLOPE)] if middles[-1] < 1 else []
    columns = np.array(points)
    return _map_through(columns[:, 0], columns[:, 1], "isotonic", len(scores))


def _map_through(scores: Floats, probabilities: Floats, method: str, n: int) -> ScoreMap:
    """A map through points, rounded as scores are; of points that fall together the last one stays."""
    at = np.round(scores, SCORE_DECIMALS)[::-1]
    values = np.clip(np.round(probabilities, SCORE_DECIMALS), 0.0, 1.0)[::-1]
    kept, first = np.unique(at, return_index=True)
    return ScoreMap(method, n, tuple(kept.tolist()), tuple(values[first].tolist()))
