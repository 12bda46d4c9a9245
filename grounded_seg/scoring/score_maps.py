"""Maps from a detector's scores to probabilities, and the file that `calibrate` writes them to.

A map is a rising line through points. It keeps the order of scores, so that the average precision of a class stays what
it was; where it is flat, the score before it decides.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from grounded_seg.coco.text import read_json
from grounded_seg.coco.write import SCORE_DECIMALS
from grounded_seg.errors import InputError, WeightsError
from grounded_seg.files import write_text
from grounded_seg.scoring.columns import Floats
from grounded_seg.text.documents import reason_of

_LOG = logging.getLogger(__name__)

FORMAT = "grounded-seg calibration 1"
PARTS = ("detector", "adapter")
"""The weights that a detector's scores depend on."""


class Weights(Protocol):
    """What is needed of weights that were found."""

    @property
    def name(self) -> str:
        """As they were asked for."""

    @property
    def sha256(self) -> str:
        """Hash of their files."""


@dataclass(frozen=True)
class ScoreMap:
    """A rising line from a score to the probability that its box is right at IoU .5."""

    method: str
    """isotonic or two-parameter."""
    n: int
    """Cases that it was fitted to."""
    scores: tuple[float, ...]
    """Of the points, rising, in [0, 1]."""
    probabilities: tuple[float, ...]
    """Of the points, never falling, in [0, 1]."""

    def __call__(self, scores: Floats) -> Floats:
        """Probabilities of scores, (n,), rounded as files have them.

        Scores are rounded likewise first, so that two that are equal in a file stay equal.
        """
        rounded = np.round(np.asarray(scores, dtype=np.float64), SCORE_DECIMALS)
        return np.round(np.interp(rounded, self.scores, self.probabilities), SCORE_DECIMALS)


@dataclass(frozen=True)
class ScoreCalibration:
    """The maps of a file, and which file and weights these are."""

    path: Path
    name: str
    """Of the file."""
    sha256: str
    """Of the file's bytes."""
    weights: Mapping[str, Mapping[str, str] | None] | None
    """Name and hash of each of `PARTS`, None for none; None as a whole where they weren't known."""
    overall: ScoreMap
    """For classes without a map of their own."""
    classes: Mapping[str, ScoreMap]
    truth_sha256: str | None = None
    """Hash of the annotations that it was fitted to, as `truth_sha256` gives it; None where that isn't known."""

    def probability(self, score: float, class_name: str) -> float:
        """The probability that a box with this score of the detector is right, for one of this class; nan for nan."""
        return float(self.classes.get(class_name, self.overall)(np.array([score]))[0])


def read_calibration(path: Path) -> ScoreCalibration:
    """Read what `calibrate` wrote.

    Raises:
        InputError: If it can't be read, or is another file.
    """
    content = read_json(path)
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']!r:.60}, not {FORMAT!r}")
        weights = content["weights"]
        return ScoreCalibration(
            path=path,
            name=path.name,
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            weights=None if weights is None else {part: _weights_of(weights[part]) for part in PARTS},
            overall=_map_of(content["overall"]),
            classes={str(name): _map_of(one) for name, one in content["classes"].items()},
            truth_sha256=_truth_of(content.get("measured_on")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{path} is no calibration ({reason_of(error)}); name a file that `calibrate` wrote"
        ) from error


def write_calibration(
    path: Path,
    overall: ScoreMap,
    classes: Mapping[str, ScoreMap],
    weights: Mapping[str, Any] | None,
    facts: Mapping[str, Any],
) -> None:
    """Write maps, the weights that they are for, and more facts for people; the same content gives the same bytes."""
    content = {
        "format": FORMAT,
        "weights": weights,
        **facts,
        "overall": asdict(overall),
        "classes": {name: asdict(one) for name, one in classes.items()},
    }
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "another file with -o")


def check_calibration(
    calibration: ScoreCalibration, detector: Weights, adapter: Weights | None, *, allow_mismatch: bool = False
) -> None:
    """Refuse a calibration that was made with other weights, or only warn.

    Raises:
        WeightsError: If a hash differs, or the file doesn't say for which weights it is.
    """
    own = {
        part: None if one is None else {"name": one.name, "sha256": one.sha256}
        for part, one in zip(PARTS, (detector, adapter), strict=True)
    }
    if calibration.weights is None:
        mismatch = f"{calibration.path} doesn't say which weights it was made with"
    else:
        made_with = calibration.weights
        part = next((one for one in PARTS if _hash_of(made_with[one]) != _hash_of(own[one])), None)
        if part is None:
            return
        was, now = made_with[part], own[part]
        what = f"no {part}" if was is None else f"the {part} {was['name']}"
        other = f"here it is {'none' if now is None else now['name']}"
        if was is not None and now is not None:
            other = f"{now['name']} has other weights"
        mismatch = f"{calibration.path} was made with {what}, and {other}"
    if not allow_mismatch:
        raise WeightsError(
            f"{mismatch}; make one for these weights with eval --json and calibrate, or add --allow-base-mismatch to "
            "use it anyway"
        )
    _LOG.warning("--allow-base-mismatch: %s.", mismatch)


def _hash_of(weights: Mapping[str, str] | None) -> str | None:
    return None if weights is None else weights["sha256"]


def _weights_of(given: Any) -> Mapping[str, str] | None:
    return None if given is None else {key: str(given[key]) for key in ("name", "sha256")}


def _truth_of(measured_on: Any) -> str | None:
    given = measured_on.get("sha256") if isinstance(measured_on, Mapping) else None
    return given if isinstance(given, str) else None


def _map_of(given: Mapping[str, Any]) -> ScoreMap:
    scores, probabilities = (np.array(given[key], dtype=np.float64) for key in ("scores", "probabilities"))
    rises = bool((np.diff(scores) > 0).all() and (np.diff(probabilities) >= 0).all())
    within = all(((one >= 0) & (one <= 1)).all() for one in (scores, probabilities))
    if not (rises and within and len(scores) == len(probabilities) > 0):
        raise ValueError("the points of a map don't rise within 0 and 1")
    return ScoreMap(str(given["method"]), int(given["n"]), tuple(scores.tolist()), tuple(probabilities.tolist()))
