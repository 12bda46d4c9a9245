"""Which of the detector's boxes stay, and with which score: thresholds, `not`, smallest area, calibration.

All but the scores themselves works on the detector's own: `not` compares them, and what is left keeps their order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from grounded_seg.detect.prompt_set import NO_CALIBRATION, PromptRule, PromptSet
from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group, pairwise_iou
from grounded_seg.geometry.masks import area_px
from grounded_seg.records import Detection, ImageResult, Instance
from grounded_seg.scoring.score_maps import ScoreCalibration
from grounded_seg.settings import DetectSettings, SuppressionScope

UNWANTED_IOU = 0.5
"""A box of a prompt under `not` counts for another one from this IoU on."""

_SHOWN_OF_HASH = 12
"""Digits of a hash in a message."""


@dataclass(frozen=True)
class Parted:
    """The boxes of one image, or of one tile."""

    wanted: tuple[Detection, ...]
    """Those that stay."""
    unwanted: tuple[Detection, ...] = ()
    """Those of the prompts that stand under a `not`, whatever their scores; some may be wanted too."""

    def moved(self, right_px: float, down_px: float) -> Iterator[Detection]:
        """The unwanted boxes of a tile in pixels of its image."""
        for one in self.unwanted:
            x0, y0, x1, y1 = one.box_xyxy
            box_xyxy = (x0 + right_px, y0 + down_px, x1 + right_px, y1 + down_px)
            yield replace(one, box_xyxy=box_xyxy)


def check_thresholds(prompts: PromptSet, calibration: ScoreCalibration | None) -> None:
    """Refuse thresholds that were chosen with another calibration than this one, or without any.

    Raises:
        UsageError: If that is so.
    """
    chosen_with, used = prompts.calibration, NO_CALIBRATION if calibration is None else calibration.sha256
    if chosen_with in (None, used):
        return
    if chosen_with == NO_CALIBRATION:
        raise UsageError(
            "the thresholds of the classes were chosen for scores without a calibration; leave --calibration out, or "
            "choose them again with eval --calibration and --suggest"
        )
    given = "none is given" if calibration is None else f"{calibration.path} is {used[:_SHOWN_OF_HASH]}"
    raise UsageError(
        f"the thresholds of the classes were chosen with the calibration {str(chosen_with)[:_SHOWN_OF_HASH]}, and "
        f"{given}; name that one with --calibration, or choose them again with eval --suggest"
    )


def needs_rules(prompts: PromptSet, calibration: ScoreCalibration | None) -> bool:
    """Whether anything here is to be done; then the detector has to give every box, whatever its score."""
    return bool(prompts.rules) or calibration is not None


def parted(
    detections: Sequence[Detection],
    prompts: PromptSet,
    calibration: ScoreCalibration | None,
    detect: DetectSettings,
) -> Parted:
    """Drop boxes that score less than their prompt's threshold, then duplicates, then those that a `not` box beats.

    In this order: what is too unsure for its own prompt is no better find than that of another one.

    Args:
        detections: Of one image, whatever their scores.
        prompts: What was asked.
        calibration: Says what a score means to a threshold.
        detect: The threshold of prompts without one of their own, and which boxes are duplicates, by the detector's
            scores.
    """
    rules, classes = prompts.rule_by_prompt, prompts.class_by_prompt
    against = frozenset(prompt for rule in prompts.rules for prompt in rule.unwanted)
    unwanted = tuple(one for one in detections if one.prompt in against)
    sure = []
    for one in detections:
        if one.prompt not in classes:
            continue
        rule = rules.get(one.prompt)
        least = detect.score_threshold if rule is None or rule.threshold is None else rule.threshold
        score = one.score if calibration is None else calibration.probability(one.score, classes[one.prompt])
        if score >= least:
            sure.append(one)
    order = {prompt: index for index, prompt in enumerate(prompts.prompts)}
    distinct = sorted(_distinct(sure, classes, detect), key=lambda one: (order[one.prompt], -one.score))
    return Parted(tuple(one for one in distinct if not _is_beaten(one, unwanted, rules.get(one.prompt))), unwanted)


def _distinct(found: Sequence[Detection], classes: Mapping[str, str], detect: DetectSettings) -> list[Detection]:
    """Keep the best of those that overlap, within a class or among all."""
    if detect.nms is SuppressionScope.NONE:
        return list(found)
    kept = kept_by_group(
        array_from_boxes([one.box_xyxy for one in found]),
        np.array([one.score for one in found]),
        [classes[one.prompt] if detect.nms is SuppressionScope.CLASS else "" for one in found],
        detect.iou_threshold,
        detect.box_containment_threshold,
    )
    return [found[index] for index in kept]


def settled(
    result: ImageResult, unwanted: Sequence[Detection], prompts: PromptSet, calibration: ScoreCalibration | None
) -> ImageResult:
    """Apply the rules to an image as a whole, and put probabilities in the place of scores.

    Args:
        result: What was found, of tiles already merged, in the order of the prompts and from high to low score.
        unwanted: The boxes of prompts under a `not`, of the image and of its tiles, in pixels of the image.
        prompts: What was asked.
        calibration: Gives the probabilities.
    """
    rules, classes = prompts.rule_by_prompt, prompts.class_by_prompt
    kept: list[Instance] = []
    n_small = 0
    n_by_prompt = dict.fromkeys(prompts.prompts, 0)
    for one in result.instances:
        rule = rules.get(one.prompt)
        if rule is not None:
            if _is_beaten(one.detection, unwanted, rule):
                continue
            if rule.min_area is not None and _area_px(one) < rule.min_area:
                n_small += one.mask is not None
                continue
            if rule.max_detections is not None and n_by_prompt[one.prompt] >= rule.max_detections:
                continue
        n_by_prompt[one.prompt] += 1
        kept.append(one)
    if calibration is not None:
        kept = [_calibrated(one, calibration, classes[one.prompt]) for one in kept]
    return replace(result, instances=tuple(kept), n_empty_masks=result.n_empty_masks + n_small)


def _is_beaten(one: Detection, unwanted: Sequence[Detection], rule: PromptRule | None) -> bool:
    """Whether a box of a prompt that stands under this one's `not` covers it, and scores more."""
    better = [other for other in unwanted if rule and other.prompt in rule.unwanted and other.score > one.score]
    if not better:
        return False
    overlap = pairwise_iou(array_from_boxes([one.box_xyxy]), array_from_boxes([other.box_xyxy for other in better]))
    return bool(np.any(overlap >= UNWANTED_IOU))


def _area_px(one: Instance) -> float:
    if one.mask is not None:
        return area_px(one.mask)
    x0, y0, x1, y1 = one.box_xyxy
    return (x1 - x0) * (y1 - y0)


def _calibrated(one: Instance, calibration: ScoreCalibration, class_name: str) -> Instance:
    detection = one.detection
    score = calibration.probability(detection.score, class_name)
    return replace(one, detection=replace(detection, score=score, detector_score=detection.score))
