"""Scores of predictions on a data set: both stages, presence, calibration, errors, and intervals of the figures.

An interval says how sure a figure is. A bootstrap resample is as many images as there are, chosen with replacement;
every figure is computed on each, and the interval holds the middle 95 % of what came out (the percentile method of
Efron, 1979). A resample without ground truth of a kind says nothing about its figure and is left out of that interval.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import Kind
from grounded_seg.scoring.average_precision import (
    EvaluationSummary,
    PrecisionRecall,
    SizeRanges,
    mean_of,
    precision_recall,
    summary_of,
    twelve_figures,
)
from grounded_seg.scoring.calibration import Calibration, calibration_of
from grounded_seg.scoring.columns import Floats, Index, Indices, ScoredShapes, measurable, predictions_from, truths_from
from grounded_seg.scoring.error_types import Errors, ErrorSummary, error_summary, errors_of
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, Matches, match
from grounded_seg.scoring.presence import (
    PresenceCounts,
    PresenceSummary,
    PresenceTallies,
    presence_counts,
    presence_summary,
    presence_tallies,
)
from grounded_seg.scoring.thresholds import ClassThresholds, class_thresholds

Figures: TypeAlias = Mapping[str, float | None]
Interval: TypeAlias = tuple[float, float]

PRESENCE_FIGURES = ("IL_FPR", "IL_MCC", "cgF1")


@dataclass(frozen=True)
class PromptFigures:
    """How well one prompt finds its class; None where the class has no objects."""

    prompt: str
    class_name: str
    AP: float | None
    AP50: float | None


@dataclass(frozen=True, eq=False)
class Stage:
    """One stage's predictions, matched and measured."""

    kind: Kind
    truths: ScoredShapes
    predictions: ScoredShapes
    matches: Matches
    tables: PrecisionRecall
    summary: EvaluationSummary
    per_prompt: tuple[PromptFigures, ...] = ()


@dataclass(frozen=True)
class LossShares:
    """Where the chain's mask AP is lost: 1 = AP + the detector's share + the segmenter's."""

    detector: float
    """AP of masks given the true boxes, less the chain's."""
    segmenter: float
    """1 less the AP of masks given the true boxes."""


@dataclass(frozen=True)
class MissedMasks:
    """Objects that the chain's masks miss at IoU .5, by the stage that missed them."""

    box_missed: int
    """By the detector: no predicted box matches either."""
    box_found: int
    """By the segmenter: a box matches, its mask doesn't."""


@dataclass(frozen=True, eq=False)
class Scores:
    """All that was measured."""

    data_set: DataSet
    index: Index
    boxes: Stage
    masks: Stage | None
    masks_given_true_boxes: Stage | None
    presence_kind: Kind
    presence: PresenceSummary
    presence_per_class: tuple[PresenceSummary, ...]
    tallies: PresenceTallies
    calibration: Mapping[Kind, Calibration]
    thresholds: tuple[ClassThresholds, ...]
    """Of each class's boxes."""
    errors: Mapping[Kind, Errors]
    error_summaries: Mapping[Kind, ErrorSummary]
    loss: LossShares | None
    missed_masks: MissedMasks | None
    score_threshold: float
    intervals: Mapping[str, Mapping[str, Interval | None]] = field(default_factory=dict)
    """By stage or "presence", and by figure."""

    def stages(self) -> dict[str, Stage]:
        """Give the stages that were measured, by their names in the report."""
        named = {"boxes": self.boxes, "masks": self.masks, "masks_given_true_boxes": self.masks_given_true_boxes}
        return {name: stage for name, stage in named.items() if stage is not None}


def score(
    data_set: DataSet,
    predictions: Sequence[Prediction],
    given_true_boxes: Sequence[Prediction] | None = None,
    *,
    score_threshold: float,
    asked: Indices | None = None,
    class_by_prompt: Mapping[str, str] | None = None,
    boxes_only: bool = False,
    n_resamples: int = 0,
) -> Scores:
    """Measure the chain's predictions; their masks too, if both sides have any and unless `boxes_only`.

    `given_true_boxes` are what the segmenter made of the objects' own boxes. `score_threshold`, in [0, 1], is the
    minimum score that counts for presence. `asked` holds ids of image and class of each question, (q, 2); None is every
    class on every image. `class_by_prompt` is for figures per prompt, `n_resamples` for 95 % intervals, 0 for none.
    """
    # No predictions at all score 0 as masks too; predictions of boxes only say nothing about masks.
    predicts_masks = not predictions or any(one.mask is not None for one in predictions)
    with_masks = data_set.has_masks and predicts_masks and not boxes_only
    boxes = _stage(data_set, predictions, "bbox", class_by_prompt)
    masks = _stage(data_set, predictions, "segm", class_by_prompt) if with_masks else None
    has_given = given_true_boxes is not None and data_set.has_masks
    given = _stage(data_set, given_true_boxes or (), "segm") if has_given else None
    index = boxes.matches.index
    best = masks or boxes
    if asked is not None:
        ids = (index.image_ids, index.category_ids)
        asked = np.stack([np.searchsorted(known, asked[:, column]) for column, known in enumerate(ids)], axis=1)
    tallies = presence_tallies(best.truths, best.predictions, score_threshold, asked)
    by_class = presence_counts(tallies, tallies.category, index.n_classes)
    measured = {stage.kind: stage for stage in (boxes, masks) if stage is not None}
    errors = {kind: errors_of(stage.truths, stage.predictions, stage.matches) for kind, stage in measured.items()}
    scores = Scores(
        data_set=data_set,
        index=index,
        boxes=boxes,
        masks=masks,
        masks_given_true_boxes=given,
        presence_kind=best.kind,
        presence=presence_summary(by_class),
        presence_per_class=tuple(presence_summary(by_class.of_group(number)) for number in range(index.n_classes)),
        tallies=tallies,
        calibration={kind: calibration_of(stage.matches) for kind, stage in measured.items()},
        thresholds=class_thresholds(boxes.matches, resamples(index.n_images, n_resamples)),
        errors=errors,
        error_summaries={kind: error_summary(errors[kind], stage.matches) for kind, stage in measured.items()},
        loss=_loss(masks, given),
        missed_masks=_missed_masks(boxes, masks),
        score_threshold=score_threshold,
    )
    return _with_intervals(scores, n_resamples) if n_resamples else scores


def _stage(
    data_set: DataSet, predictions: Sequence[Prediction], kind: Kind, prompts: Mapping[str, str] | None = None
) -> Stage:
    truths, predicted = truths_from(data_set, kind), predictions_from(predictions, data_set, kind)
    matches = match(truths, predicted, SizeRanges().as_array())
    tables = precision_recall(matches)
    asked = np.array([one.prompt or "" for one in measurable(predictions, data_set, kind)])
    per_prompt = tuple(
        _prompt_figures(prompt, class_name, truths, predicted.chosen(asked == prompt))
        for prompt, class_name in (prompts or {}).items()
        if class_name in matches.index.names
    )
    return Stage(kind, truths, predicted, matches, tables, summary_of(matches, tables), per_prompt)


def _prompt_figures(prompt: str, class_name: str, truths: ScoredShapes, its: ScoredShapes) -> PromptFigures:
    """Measure one prompt's predictions against all objects of its class."""
    category = truths.index.names.index(class_name)
    matches = match(truths.chosen(truths.category == category), its, SizeRanges().as_array()[:1])
    precision = precision_recall(matches).precision[category, ALL_SIZES]
    return PromptFigures(prompt, class_name, AP=mean_of(precision), AP50=mean_of(precision[AT_50]))


def _loss(masks: Stage | None, given: Stage | None) -> LossShares | None:
    if masks is None or given is None or masks.summary.AP is None or given.summary.AP is None:
        return None
    return LossShares(detector=given.summary.AP - masks.summary.AP, segmenter=1 - given.summary.AP)


def _missed_masks(boxes: Stage, masks: Stage | None) -> MissedMasks | None:
    if masks is None or len(boxes.truths) != len(masks.truths):
        return None
    is_missed, has_box = ~masks.truths.is_crowd & ~masks.matches.is_found, boxes.matches.is_found
    return MissedMasks(box_missed=int((is_missed & ~has_box).sum()), box_found=int((is_missed & has_box).sum()))


def _with_intervals(scores: Scores, n_resamples: int) -> Scores:
    n_images = scores.index.n_images
    measured = {
        name: intervals(partial(stage_figures, stage.matches), n_images, n_resamples)
        for name, stage in scores.stages().items()
    }
    by_image = presence_counts(scores.tallies, scores.tallies.image, n_images)
    measured["presence"] = intervals(partial(presence_figures, by_image), n_images, n_resamples)
    return replace(scores, intervals=measured)


def intervals(figures: Callable[[Floats], Figures], n_images: int, n_resamples: int) -> dict[str, Interval | None]:
    """95 % interval of each figure, low and high; None where no resample had ground truth. Nothing without images.

    `figures` takes a weight per image, (n_images,); 1000 resamples settle two digits.
    """
    found: dict[str, list[float]] = {}
    for weights in resamples(n_images, n_resamples):
        for name, value in figures(weights).items():
            found.setdefault(name, []).extend([] if value is None else [value])
    return {
        name: tuple(np.percentile(values, [2.5, 97.5]).tolist()) if values else None for name, values in found.items()
    }


def resamples(n_images: int, n_resamples: int) -> Iterator[Floats]:
    """How often each image is in a resample, (n_images,), one by one; always the same resamples."""
    rng = np.random.default_rng(seed=0)
    for _ in range(n_resamples if n_images else 0):
        yield rng.multinomial(n_images, np.full(n_images, 1 / n_images)).astype(np.float64)


def stage_figures(matches: Matches, image_weights: Floats) -> Figures:
    """COCO's twelve figures with a weight per image."""
    return twelve_figures(precision_recall(matches, image_weights))


def presence_figures(by_image: PresenceCounts, image_weights: Floats) -> Figures:
    """Presence figures with a weight per image."""
    summary = presence_summary(by_image, image_weights)
    return {name: getattr(summary, name) for name in PRESENCE_FIGURES}
