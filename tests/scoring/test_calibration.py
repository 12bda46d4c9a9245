"""The calibration error by hand."""

from pathlib import Path

import pytest
from coco_cases import Box, results, scored, truth

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def test_error_by_hand(tmp_path: Path) -> None:
    # In the bin of .9: one right, one wrong, gap .4. In that of .3, which 0.3 begins: one right, gap .7.
    document = truth((1, 1, HERE), (2, 1, HERE), n_images=2)
    found = results((1, 1, HERE, 0.9), (1, 1, FAR, 0.9), (2, 1, HERE, 0.3))
    calibration = scored(tmp_path, document, found).calibration["bbox"]
    assert calibration.error == pytest.approx(2 / 3 * 0.4 + 1 / 3 * 0.7)
    filled = {round(one.low, 1): (one.n, one.share_right) for one in calibration.bins if one.n}
    assert filled == {0.3: (1, 1.0), 0.9: (2, 0.5)}
    assert sum(one.n for one in calibration.bins) == calibration.n == 3


def test_sure_and_right_is_no_error(tmp_path: Path) -> None:
    scores = scored(tmp_path, truth((1, 1, HERE)), results((1, 1, HERE, 1.0)))
    assert [one.error for one in scores.calibration.values()] == [0, 0]


def test_what_lies_on_a_crowd_is_not_judged(tmp_path: Path) -> None:
    document = truth((1, 1, HERE))
    document["annotations"][0]["iscrowd"] = 1
    calibration = scored(tmp_path, document, results((1, 1, HERE, 0.9))).calibration["bbox"]
    assert (calibration.n, calibration.error) == (0, None)


def test_without_predictions_there_is_no_error(tmp_path: Path) -> None:
    assert scored(tmp_path, truth((1, 1, HERE)), []).calibration["bbox"].error is None


@pytest.mark.parametrize(("score", "low"), [(0.0, 0.0), (0.1, 0.1), (0.7, 0.7), (0.999, 0.9), (1.0, 0.9), (1.7, 0.9)])
def test_bins_begin_with_their_lower_edge(tmp_path: Path, score: float, low: float) -> None:
    calibration = scored(tmp_path, truth((1, 1, HERE)), results((1, 1, HERE, score))).calibration["bbox"]
    assert [round(one.low, 1) for one in calibration.bins if one.n] == [low]
