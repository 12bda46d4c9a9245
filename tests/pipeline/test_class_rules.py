"""What becomes of boxes: thresholds of prompts, `not`, smallest area, most detections, and probabilities."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from calibrations import HALF, TENTH, calibration_file
from fakes import InnerSegmenter, painted
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.detect.prompts import prompt_set_from
from grounded_seg.errors import UsageError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.class_rules import parted
from grounded_seg.records import BoxXyxy, Detection, Image
from grounded_seg.scoring.score_maps import ScoreCalibration, read_calibration
from grounded_seg.settings import DetectSettings, SuppressionScope, TileSettings

CAR, TOY, FAR = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0), (20.0, 10.0, 30.0, 20.0)


class Scripted:
    """A detector that says what it is told, from a score on; it remembers what it was asked, in which classes."""

    def __init__(self, found: dict[str, list[tuple[BoxXyxy, float]]], least: float = 0.5) -> None:
        self.found, self.least = found, least
        self.asked: dict[str, str] = {}

    def with_score_threshold(self, score_threshold: float) -> "Scripted":
        other = Scripted(self.found, score_threshold)
        other.asked = self.asked
        return other

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        asked: Any = None,
    ) -> list[tuple[Detection, ...]]:
        self.asked |= dict(zip(prompts, class_names or prompts, strict=True))
        each = [prompts if asked is None else [one for one in prompts if one in some] for some in asked or images]
        return [
            tuple(
                Detection(prompt, prompt, box, score)
                for prompt in some
                for box, score in sorted(self.found.get(prompt, ()), key=lambda one: -one[1])
                if score >= self.least
            )
            for some in each
        ]


def image(width: int = 40) -> Image:
    return Image(Path("x.png"), painted(width, 30))


def found(prompts: Any, script: dict[str, list[tuple[BoxXyxy, float]]], **options: Any) -> list[tuple[str, float]]:
    """Prompt and score of what stays on one image."""
    chain = Chain(Scripted(script), **options)
    [result] = chain.results([image()], [prompt_set_from(prompts)])
    return [(one.prompt, one.score) for one in result.instances]


@pytest.fixture
def calibration(tmp_path: Path) -> ScoreCalibration:
    return read_calibration(calibration_file(tmp_path / "calibration.json", overall=HALF, dog=TENTH))


def test_a_prompts_threshold_counts_for_it_alone() -> None:
    script = {"car": [(CAR, 0.4), (FAR, 0.3)], "dog": [(CAR, 0.4), (FAR, 0.6)]}
    assert found(["car", "dog"], script) == [("dog", 0.6)]
    assert found({"car": {"threshold": 0.4}, "dog": "dog"}, script) == [("car", 0.4), ("dog", 0.6)]
    assert found({"car": {"threshold": 0.9}, "dog": {"threshold": 0}}, script) == [("dog", 0.6), ("dog", 0.4)]
    # That of a call is for prompts without one.
    chain = Chain(Scripted(script)).with_score_threshold(0.1)
    [result] = chain.results([image()], [prompt_set_from({"car": {"threshold": 0.4}, "dog": "dog"})])
    assert [one.score for one in result.instances] == [0.4, 0.6, 0.4]


def test_a_box_that_a_look_alike_beats_is_dropped_and_the_look_alike_never_written() -> None:
    rule = {"car": {"not": ["toy car", "wheel"]}}
    # IoU .8, and the higher score.
    assert found(rule, {"car": [(CAR, 0.6)], "toy car": [(TOY, 0.7)]}) == []
    # The lower one, one just as high, one elsewhere.
    for box, score in ((TOY, 0.5), (TOY, 0.6), (FAR, 0.9)):
        assert found(rule, {"car": [(CAR, 0.6)], "toy car": [(box, score)]}) == [("car", 0.6)]
    # IoU .5 is enough, less isn't.
    for height, kept in ((5.0, 0), (4.9, 1)):
        script = {"car": [(CAR, 0.6)], "wheel": [((0.0, 0.0, 10.0, height), 0.9)]}
        assert len(found(rule, script)) == kept
    # What scores too low to be written may still be beaten, and beat.
    assert found({"car": {"threshold": 0.1, "not": "toy car"}}, {"car": [(CAR, 0.2)], "toy car": [(TOY, 0.3)]}) == []


def test_a_look_alike_that_is_asked_for_itself_is_written_as_such() -> None:
    script = {"car": [(CAR, 0.6)], "truck": [(TOY, 0.7)]}
    assert found({"car": {"not": "truck"}, "truck": "truck"}, script) == [("truck", 0.7)]
    # It beats though it is too unsure to be written.
    assert found({"car": {"not": "truck"}, "truck": {"threshold": 0.8}}, script) == []


def test_what_is_too_unsure_for_its_prompt_hides_no_find_of_another() -> None:
    script = {"red car": [(CAR, 0.6)], "van": [(TOY, 0.5)]}
    rules: Any = {"red car": {"class": "car", "threshold": 0.7}, "van": {"class": "car", "threshold": 0.3}}
    assert found(rules, script) == [("van", 0.5)]
    # Else the best of the boxes of a class wins.
    rules["red car"]["threshold"] = 0.6
    assert found(rules, script) == [("red car", 0.6)]
    assert found(rules, script, detect=DetectSettings(nms=SuppressionScope.NONE)) == [("red car", 0.6), ("van", 0.5)]
    rules["van"]["class"] = "van"
    assert found(rules, script) == [("red car", 0.6), ("van", 0.5)]
    assert found(rules, script, detect=DetectSettings(nms=SuppressionScope.AGNOSTIC)) == [("red car", 0.6)]


def test_look_alikes_are_no_duplicates_of_anything() -> None:
    detector = Scripted({})
    prompts = prompt_set_from({"red car": {"class": "car", "not": "toy car"}, "van": {"class": "car"}})
    Chain(detector).results([image()], [prompts])
    assert list(detector.asked) == ["red car", "van", "toy car"]
    assert detector.asked["toy car"] not in ("car", "toy car")


def test_images_of_a_batch_may_be_asked_different_things() -> None:
    script = {"car": [(CAR, 0.6)], "truck": [(TOY, 0.7)]}
    prompts = [prompt_set_from(one) for one in ({"car": {"not": "truck"}}, {"truck": "truck"}, {"car": "car"})]  # type: ignore[arg-type]
    results = Chain(Scripted(script)).results([image()] * 3, prompts)
    assert [[one.prompt for one in result.instances] for result in results] == [[], ["truck"], ["car"]]


def test_small_things_and_those_over_the_limit_are_dropped() -> None:
    script = {"car": [(FAR, 0.9), (CAR, 0.8), ((0.0, 20.0, 9.0, 29.0), 0.7)]}
    assert found({"car": {"min_area": 82}}, script) == [("car", 0.9), ("car", 0.8)]
    assert found({"car": {"max_detections": 2}}, script) == [("car", 0.9), ("car", 0.8)]
    # The masks lack their outermost pixels: 8 x 8 and 7 x 7.
    large = prompt_set_from({"car": {"min_area": 50}})  # type: ignore[dict-item]
    [result] = Chain(Scripted(script), InnerSegmenter()).results([image()], [large])
    assert ([one.score for one in result.instances], result.n_empty_masks) == ([0.9, 0.8], 1)


def test_rules_that_say_nothing_change_nothing() -> None:
    script = {"car": [(CAR, 0.6), (FAR, 0.4)]}
    plain, ruled = (Chain(Scripted(script), InnerSegmenter()).results([image()], [prompt_set_from(one)]) for one in (
        ["car"], {"car": {"max_detections": 100}}))  # fmt: skip
    assert plain[0].instances == ruled[0].instances


def test_scores_become_probabilities_of_the_class_and_so_do_thresholds(calibration: ScoreCalibration) -> None:
    script = {"car": [(CAR, 0.9), (FAR, 0.6)], "dog": [(CAR, 0.9)]}
    detect = DetectSettings(score_threshold=0.31)
    chain = Chain(Scripted(script), detect=detect, calibration=calibration)
    [result] = chain.results([image()], [prompt_set_from(["car", "dog"])])
    [one] = result.instances
    assert (one.prompt, one.score, one.detection.detector_score) == ("car", 0.45, 0.9)
    [result] = chain.with_score_threshold(0.09).results([image()], [prompt_set_from(["dog"])])
    assert [one.score for one in result.instances] == [0.09]
    # The threshold of a prompt is a probability too; scores are compared as the detector gives them.
    rules: Any = {"car": {"threshold": 0.3, "not": "dog"}}
    assert found(rules, script | {"dog": [(CAR, 0.91)]}, calibration=calibration) == [("car", 0.3)]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_probabilities_keep_the_order_of_scores(scores: list[float]) -> None:
    overall = replace(HALF, scores=(0.0, 0.3, 0.6, 1.0), probabilities=(0.0, 0.2, 0.2, 0.9))
    steps = ScoreCalibration(Path("c"), "c", "0", None, overall, {})
    script = {"car": [((float(index), 0.0, index + 1.0, 5.0), score) for index, score in enumerate(scores)]}
    chain = Chain(Scripted(script), detect=DetectSettings(score_threshold=0), calibration=steps)
    [result] = chain.results([image()], [prompt_set_from(["car"])])
    raw = [one.detection.detector_score for one in result.instances]
    assert raw == sorted(scores, reverse=True)
    assert np.all(np.diff([one.score for one in result.instances]) <= 0)


def test_a_look_alike_on_a_tile_counts_on_the_image() -> None:
    class OnTiles(Scripted):
        """Sees the car on the whole image, and on the second tile what it really is."""

        def detect(self, images: Sequence[Image], *rest: Any, **options: Any) -> list[tuple[Detection, ...]]:
            whole = images[0].width == 60
            car = Detection("car", "car", (35.0, 5.0, 45.0, 15.0), 0.6)
            toy = Detection("toy car", "toy car", (5.0, 5.0, 15.0, 15.0), 0.9)
            self.n_asked += 1
            return [(car,) if whole else (toy,) if self.n_asked == 3 else ()]

        n_asked = 0
        with_score_threshold = None  # type: ignore[assignment]

    tiles = TileSettings(30, 0)
    detector = OnTiles({})
    prompts = prompt_set_from({"car": {"not": "toy car"}})  # type: ignore[dict-item]
    [result] = Chain(detector, tiles=tiles).results([image(60)], [prompts])
    assert (result.instances, detector.n_asked) == ((), 3)
    # Another thing elsewhere doesn't drop it.
    detector = OnTiles({})
    detector.n_asked = 10
    assert len(Chain(detector, tiles=tiles).results([image(60)], [prompts])[0].instances) == 1


def test_thresholds_of_another_calibration_are_refused(calibration: ScoreCalibration) -> None:
    prompts = prompt_set_from({"car": {"threshold": 0.3}})  # type: ignore[dict-item]
    chains = {"none": Chain(Scripted({})), calibration.sha256: Chain(Scripted({}), calibration=calibration)}
    for own, chain in chains.items():
        for named in (*chains, "ab" * 32):
            asked = replace(prompts, calibration=named)
            if named == own:
                chain.results([image()], [asked])
                continue
            with pytest.raises(UsageError, match="the thresholds of the classes were chosen"):
                chain.results([image()], [asked])


def test_scores_that_are_no_numbers_are_no_boxes(calibration: ScoreCalibration) -> None:
    detections = [Detection("car", "car", CAR, float("nan"))]
    assert parted(detections, prompt_set_from(["car"]), calibration, DetectSettings(score_threshold=0)).wanted == ()
