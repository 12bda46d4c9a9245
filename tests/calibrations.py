"""Calibrations made by hand, that several test modules share."""

from pathlib import Path
from typing import Any

from fakes import FakeWeights

from grounded_seg.scoring.score_maps import ScoreMap, write_calibration

HALF = ScoreMap("isotonic", 100, (0.0, 1.0), (0.0, 0.5))
"""Half of the score."""
TENTH = ScoreMap("two-parameter", 10, (0.0, 1.0), (0.0, 0.1))


def weights_of(detector: str = "base-ft", adapter: str | None = None) -> dict[str, Any]:
    """Weights as a fake run has them, by their names."""
    named = {"detector": detector, "adapter": adapter}
    return {
        part: None if name is None else {"name": name, "sha256": FakeWeights.named(name).sha256}
        for part, name in named.items()
    }


def calibration_file(
    path: Path, *, weights: dict[str, Any] | None = None, overall: ScoreMap = HALF, **classes: ScoreMap
) -> Path:
    """A file for the weights of a fake run."""
    write_calibration(path, overall, classes, weights or weights_of(), {})
    return path
