"""Bootstrap intervals over images: how sure a figure is.

A resample is as many images as there are, chosen with replacement. Every figure is computed on each, and the interval
holds the middle 95 % of what came out (the percentile method of Efron, 1979). A resample without ground truth of a kind
says nothing about its figure and is left out of that interval.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Figures: TypeAlias = Mapping[str, float | None]
Interval: TypeAlias = tuple[float, float]

LOW_PERCENT, HIGH_PERCENT = 2.5, 97.5
SEED = 0


def resamples(n_images: int, n_resamples: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield how often each image is in a resample, (n_images,); always the same resamples."""
    rng = np.random.default_rng(SEED)
    for _ in range(n_resamples if n_images else 0):
        yield rng.multinomial(n_images, np.full(n_images, 1 / n_images)).astype(np.float64)


def intervals(
    figures: Callable[[npt.NDArray[np.float64]], Figures], n_images: int, n_resamples: int
) -> dict[str, Interval | None]:
    """Compute the 95 % interval of each figure.

    Args:
        figures: Computes figures with a weight per image, (n_images,).
        n_images: How many images there are.
        n_resamples: Bootstrap resamples; 1000 settles two digits.

    Returns:
        Low and high end by figure; None where no resample had ground truth. Nothing without images.
    """
    found: dict[str, list[float]] = {}
    for weights in resamples(n_images, n_resamples):
        for name, value in figures(weights).items():
            values = found.setdefault(name, [])
            if value is not None:
                values.append(value)
    return {name: _middle(values) for name, values in found.items()}


def _middle(values: list[float]) -> Interval | None:
    if not values:
        return None
    low, high = np.percentile(values, [LOW_PERCENT, HIGH_PERCENT]).tolist()
    return low, high
