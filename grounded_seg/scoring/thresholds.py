"""Score thresholds by data: for each class the one with the best F1, and those for a precision, with intervals.

What a threshold promises has to hold on other images than those that it was chosen on. So in each bootstrap resample it
is chosen anew, and its F1 and precision are taken on the images that the resample lacks (Efron, 1983).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from grounded_seg.scoring.columns import Flags, Floats, Indices
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches

PRECISIONS = {"precision_90": 0.90, "precision_95": 0.95}
"""What is asked of the lowest threshold that reaches it."""
TARGETS = ("best_f1", *PRECISIONS)
_SPAN_PER_CENT = (2.5, 97.5)
_MOST_DECIMALS = 6
_SMOOTHED_SHARE = 0.05
"""Of a class's boxes, on either side of one; the best F1 is looked for on the curve that this makes smooth."""
_FLAT_F1 = 0.002
"""Thresholds whose F1 is this close to the best count as equally good: the one nearest to the usual is taken."""
_USUAL = 0.5
"""The default score threshold of `run`."""

Interval: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class AtThreshold:
    """What boxes of a class at or above a threshold come to at IoU .5; intervals are None without resamples."""

    threshold: float
    precision: float
    recall: float | None
    """None without objects, as is F1."""
    F1: float | None
    threshold_interval: Interval | None = None
    """What was chosen in 95 % of the resamples."""
    precision_interval: Interval | None = None
    """On images that it wasn't chosen on, and so for F1."""
    F1_interval: Interval | None = None


@dataclass(frozen=True)
class ClassThresholds:
    """The thresholds of one class; None where none reaches what is asked."""

    name: str
    n_objects: int
    best_f1: AtThreshold | None
    precision_90: AtThreshold | None
    """The lowest one from which on 90 % are right."""
    precision_95: AtThreshold | None


@dataclass(frozen=True, eq=False)
class _Ranked:
    """The boxes of one class from high to low score, (n,), and the images of its objects, (m,)."""

    score: Floats
    is_right: Flags
    image: Indices
    truth_image: Indices

    @property
    def ends(self) -> Flags:
        """Boxes with which a threshold may end: the next one scores less."""
        return np.append(self.score[1:] < self.score[:-1], [True]) if len(self.score) else np.zeros(0, dtype=np.bool_)

    def between(self, last: int) -> float:
        """The threshold that keeps the boxes up to an index: few digits, between two scores; the lowest for all boxes.

        What scores less than all of them was never judged.
        """
        upper = float(self.score[last])
        return _short_between(float(self.score[last + 1]), upper) if last + 1 < len(self.score) else upper

    def nearest_to(self, wanted: float, ends: Indices) -> float:
        """Of the thresholds that keep the boxes up to one of these indices, the one nearest to `wanted`."""
        upper, lower = self.score[ends], np.append(self.score[1:], 0.0)[ends]
        off = np.maximum(wanted - upper, 0) + np.maximum(lower - wanted, 0)
        if ((lower < wanted) & (wanted <= upper)).any():
            return wanted
        return self.between(int(ends[off.argmin()]))

    def at(self, threshold: float, weights: Floats) -> tuple[float, float, float]:
        """How many are kept, how many of these are right, and how many objects there are; by weights of the images."""
        kept = self.score >= threshold
        weight = weights[self.image[kept]]
        return float(weight.sum()), float(weight @ self.is_right[kept]), float(weights[self.truth_image].sum())


def class_thresholds(matches: Matches, resamples: Iterable[Floats] = ()) -> tuple[ClassThresholds, ...]:
    """Choose the thresholds of every class.

    Args:
        matches: Of boxes.
        resamples: How often each image is in a resample, (n images,), one by one.
    """
    index = matches.index
    classes = [_ranked(matches, category) for category in range(index.n_classes)]
    everything = np.ones(index.n_images)
    chosen = [_chosen(one, everything) for one in classes]
    drawn: list[dict[str, list[tuple[float, float | None, float | None]]]] = [
        {target: [] for target in TARGETS} for _ in classes
    ]
    for weights in resamples:
        left_out = (weights == 0).astype(np.float64)
        for one, found, before in zip(classes, drawn, chosen, strict=True):
            if not before:
                continue
            for target, threshold in _chosen(one, weights).items():
                found[target].append((threshold, *_precision_and_f1(one.at(threshold, left_out))))
    return tuple(
        ClassThresholds(
            name,
            len(one.truth_image),
            **{target: _described(one, found.get(target), draws[target], everything) for target in TARGETS},
        )
        for name, one, found, draws in zip(index.names, classes, chosen, drawn, strict=True)
    )


def f1_at(matches: Matches, thresholds: Sequence[float], weights: Floats | None = None) -> list[float | None]:
    """F1 of each class's boxes at IoU .5 with a threshold for each; None without boxes and objects.

    `weights` say how often each image counts, (n images,).
    """
    counts = np.ones(matches.index.n_images) if weights is None else weights
    ranked = (_ranked(matches, category) for category in range(matches.index.n_classes))
    return [_precision_and_f1(one.at(value, counts))[1] for one, value in zip(ranked, thresholds, strict=True)]


def _ranked(matches: Matches, category: int) -> _Ranked:
    rows = matches.rows_of(category)
    judged = ~matches.ignored[rows, ALL_SIZES, AT_50]
    of_class = (matches.truth_category == category) & matches.truth_counts[:, ALL_SIZES]
    return _Ranked(
        matches.score[rows][judged],
        matches.matched[rows, ALL_SIZES, AT_50][judged],
        matches.image[rows][judged],
        matches.truth_image[of_class],
    )


def _chosen(ranked: _Ranked, weights: Floats) -> Mapping[str, float]:
    """The threshold for each target that is reached."""
    weight = weights[ranked.image]
    n_kept, n_right = weight.cumsum(), (weight * ranked.is_right).cumsum()
    possible = ranked.ends & (n_kept > 0)
    if not possible.any():
        return {}
    found = {}
    f1 = 2 * n_right / np.maximum(n_kept + weights[ranked.truth_image].sum(), 1)
    if n_right[-1] > 0:
        smooth = np.where(possible, _smoothed(f1), -1.0)
        found["best_f1"] = ranked.nearest_to(_USUAL, np.flatnonzero(smooth >= smooth.max() - _FLAT_F1))
    for target, precision in PRECISIONS.items():
        # Sums of whole numbers: a tenth of the last bit is no reason to miss a share.
        reaching = np.flatnonzero(possible & (n_right >= precision * n_kept - 1e-9))
        if reaching.size:
            found[target] = ranked.between(int(reaching[-1]))
    return found


def _smoothed(f1: Floats) -> Floats:
    """Averages over a share of the boxes on either side, (n,): no single box decides on a flat top."""
    kernel = np.ones(2 * int(len(f1) * _SMOOTHED_SHARE) + 1)
    n_beside = np.convolve(np.ones(len(f1)), kernel, "same")
    return np.asarray(np.convolve(f1, kernel, "same") / n_beside)


def _described(
    ranked: _Ranked,
    threshold: float | None,
    drawn: Sequence[tuple[float, float | None, float | None]],
    everything: Floats,
) -> AtThreshold | None:
    if threshold is None:
        return None
    kept, right, truths = ranked.at(threshold, everything)
    precision, f1 = _precision_and_f1((kept, right, truths))
    described = AtThreshold(threshold, precision or 0.0, right / truths if truths else None, f1 if truths else None)
    if not drawn:
        return described
    thresholds, precisions, f1s = zip(*drawn, strict=True)
    return replace(
        described,
        threshold_interval=_interval(thresholds),
        precision_interval=_interval(precisions),
        F1_interval=_interval(f1s),
    )


def _precision_and_f1(counts: tuple[float, float, float]) -> tuple[float | None, float | None]:
    kept, right, truths = counts
    return right / kept if kept else None, 2 * right / (kept + truths) if kept + truths else None


def _interval(values: Sequence[float | None]) -> Interval | None:
    known = [one for one in values if one is not None]
    if not known:
        return None
    low, high = np.percentile(known, _SPAN_PER_CENT).tolist()
    return low, high


def _short_between(lower: float, upper: float) -> float:
    """The number with fewest digits between two, near their middle, of two digits at least; `upper` if there is none.

    >>> _short_between(0.31, 0.46), _short_between(0.4142, 0.4149), _short_between(0.5, 0.500001)
    (0.39, 0.4145, 0.500001)
    """
    for decimals in range(2, _MOST_DECIMALS + 1):
        value = round((lower + upper) / 2, decimals)
        if lower < value < upper:
            return value
    return upper
