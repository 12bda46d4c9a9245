"""Thresholds by hand, and what they promise."""

import numpy as np
import pytest
from coco_cases import Box, columns, results, truth

from grounded_seg.scoring import thresholds
from grounded_seg.scoring.average_precision import SizeRanges
from grounded_seg.scoring.matching import Matches, match
from grounded_seg.scoring.measure import resamples
from grounded_seg.scoring.thresholds import class_thresholds, f1_at
from grounded_seg.settings import DetectSettings

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def matches(*found: tuple[int, int, Box, float], n_images: int = 4, classes: tuple[str, ...] = ("car",)) -> Matches:
    """Every image has one car."""
    document = truth(*((image, 1, HERE) for image in range(1, n_images + 1)), n_images=n_images, classes=classes)
    return match(*columns(document, results(*found)), SizeRanges().as_array())


def test_the_threshold_of_best_f1_by_hand() -> None:
    # Right, right, wrong, right, wrong: F1 of the first k is 2/5, 4/6, 4/7, 6/8, 6/9.
    found = matches((1, 1, HERE, 0.9), (2, 1, HERE, 0.8), (1, 1, FAR, 0.7), (3, 1, HERE, 0.46), (2, 1, FAR, 0.34))
    [car] = class_thresholds(found)
    assert (car.name, car.n_objects) == ("car", 4)
    best = car.best_f1
    assert best is not None
    assert best.threshold == 0.4
    assert (best.precision, best.recall, best.F1) == (0.75, 0.75, 0.75)
    assert (best.threshold_interval, best.F1_interval) == (None, None)
    # Two of two are right, three of four aren't 90 %.
    assert car.precision_90 is not None
    assert (car.precision_90.threshold, car.precision_90.recall) == (0.75, 0.5)
    assert f1_at(found, [0.4]) == [0.75]
    assert f1_at(found, [0.85]) == [pytest.approx(2 / 5)]
    assert f1_at(found, [0.4], np.array([1.0, 0, 0, 0])) == [pytest.approx(2 / 3)]


@pytest.mark.parametrize(
    ("scores", "threshold"),
    [
        ((0.95, 0.9, 0.8), 0.5),
        ((0.9, 0.3, 0.2), 0.5),
        ((0.4, 0.3, 0.2), 0.35),
        ((0.9, 0.5, 0.3), 0.5),
        ((0.500001, 0.5, 0.3), 0.5),
        ((0.9, 0.6, 0.5), 0.5),
        ((0.9, 0.6, 0.55), 0.5),
        ((0.5, 0.4, 0.3), 0.5),
    ],
)
def test_of_thresholds_that_are_as_good_the_one_nearest_to_the_usual(
    scores: tuple[float, float, float], threshold: float
) -> None:
    # 598 right ones, one more, and one wrong: F1 is .9983 to .9992 whatever is kept of the last two.
    found = matches(
        *((image, 1, HERE, scores[0]) for image in range(1, 599)),
        (599, 1, HERE, scores[1]),
        (600, 1, FAR, scores[2]),
        n_images=600,
    )
    [car] = class_thresholds(found)
    assert car.best_f1 is not None
    assert car.best_f1.threshold == threshold


def test_a_better_threshold_is_taken_however_far_from_the_usual_one() -> None:
    wrong = [(image, 1, FAR, 0.8) for image in range(1, 60)]
    found = matches(*((image, 1, HERE, 0.95) for image in range(1, 101)), *wrong, n_images=100)
    [car] = class_thresholds(found)
    assert car.best_f1 is not None
    assert 0.8 < car.best_f1.threshold <= 0.95


def test_the_usual_threshold_is_the_one_that_runs_take() -> None:
    assert DetectSettings().score_threshold == thresholds._USUAL


def test_boxes_of_one_score_stay_together() -> None:
    found = matches((1, 1, HERE, 0.5), (2, 1, FAR, 0.5), (3, 1, FAR, 0.5), (4, 1, HERE, 0.5))
    [car] = class_thresholds(found)
    assert car.best_f1 is not None
    assert (car.best_f1.threshold, car.best_f1.precision) == (0.5, 0.5)
    assert car.precision_90 is None


def test_a_share_is_reached_exactly() -> None:
    wrong = (1, 1, FAR, 0.05)
    found = matches(*((image, 1, HERE, 0.1 * image) for image in range(1, 10)), wrong, n_images=9)
    [car] = class_thresholds(found)
    assert car.precision_90 is not None
    # What scores less than all of them was never judged, so it is no lower than the lowest.
    assert car.precision_90.threshold == 0.05
    assert car.precision_95 is not None
    assert 0.05 < car.precision_95.threshold < 0.1


def test_a_class_without_boxes_or_objects_has_none() -> None:
    found = matches((1, 1, FAR, 0.9), (1, 3, HERE, 0.9), classes=("car", "dog", "cat"))
    car, dog, cat = class_thresholds(found, resamples(4, 20))
    assert (car.best_f1, car.precision_90, dog.best_f1, cat.best_f1) == (None, None, None, None)
    assert f1_at(found, [0.5, 0.5, 0.5]) == [0, None, 0]


def test_crowds_count_for_nothing() -> None:
    document = truth((1, 1, HERE), (1, 1, FAR), classes=("car",))
    document["annotations"][1]["iscrowd"] = 1
    found = match(*columns(document, results((1, 1, HERE, 0.5), (1, 1, FAR, 0.9))), SizeRanges().as_array())
    [car] = class_thresholds(found)
    assert car.best_f1 is not None
    assert (car.n_objects, car.best_f1.F1) == (1, 1)


def many(seed: int, n_images: int = 200) -> Matches:
    """One object an image; a box of it and one beside it, whose scores overlap."""
    rng = np.random.default_rng(seed)
    found: list[tuple[int, int, Box, float]] = []
    for image in range(1, n_images + 1):
        found.append((image, 1, HERE, round(float(rng.beta(5, 3)), 6)))
        found.append((image, 1, FAR, round(float(rng.beta(3, 5)), 6)))
    return matches(*found, n_images=n_images)


def test_what_is_promised_holds_on_other_images() -> None:
    n_within = 0
    for seed in range(20):
        [car] = class_thresholds(many(seed, 60), resamples(60, 200))
        assert car.best_f1 is not None
        assert car.best_f1.F1_interval is not None
        low, high = car.best_f1.F1_interval
        [reached] = f1_at(many(seed + 100, 60), [car.best_f1.threshold])
        assert reached is not None
        n_within += low <= reached <= high
    # 95 % of them are 19.
    assert n_within >= 18


def test_intervals_hold_the_threshold_and_shrink_with_more_images() -> None:
    widths = []
    for n_images in (50, 400):
        [car] = class_thresholds(many(3, n_images), resamples(n_images, 100))
        best = car.best_f1
        assert best is not None
        assert best.threshold_interval is not None
        assert best.threshold_interval[0] <= best.threshold <= best.threshold_interval[1]
        assert best.F1_interval is not None
        widths.append(best.F1_interval[1] - best.F1_interval[0])
    assert widths[1] < widths[0] / 2
