"""A batch of images through both stages: the detector's boxes, then the segmenter's masks."""

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from grounded_seg.detect.prompt_set import PromptSet
from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import is_usable
from grounded_seg.pipeline.class_rules import Parted, check_thresholds, needs_rules, parted, settled
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.pipeline.tile_merging import merged
from grounded_seg.pipeline.tiling import crops_of, tell_if_tiles_would_help
from grounded_seg.records import Detection, Image, ImageResult, Instance
from grounded_seg.scoring.score_maps import ScoreCalibration
from grounded_seg.settings import DetectSettings, TileSettings


class Detector(Protocol):
    """Stage 1, as the chain needs it."""

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        asked: Sequence[Collection[str]] | None = None,
    ) -> Sequence[tuple[Detection, ...]]:
        """Give each image's boxes, in the order of the prompts, from high to low score within a prompt.

        Args:
            images: One batch.
            prompts: Everything that is asked about.
            class_names: The class of each prompt.
            asked: Which of the prompts each image is asked about; None for all.
        """


@runtime_checkable
class ThresholdDetector(Detector, Protocol):
    """A detector whose score threshold a single call may change."""

    def with_score_threshold(self, score_threshold: float) -> Detector:
        """Give a detector of the same model that drops what scores less, before duplicates are looked for."""


@runtime_checkable
class OverlapDetector(Detector, Protocol):
    """A detector whose threshold for duplicates a single call may change."""

    def with_iou_threshold(self, iou_threshold: float) -> Detector:
        """Give a detector of the same model that drops boxes whose IoU with a better one is above this."""


@runtime_checkable
class ViewingDetector(Detector, Protocol):
    """A detector that sees every image at one size."""

    @property
    def view_px(self) -> int:
        """Give the side of what it sees, in pixels."""


class Segmenter(Protocol):
    """Stage 2, as the chain needs it."""

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> Sequence[ImageResult]:
        """Give each image's instances, in the order of its detections, without those whose mask is empty."""


class Chain:
    """Both stages, one batch at a time."""

    def __init__(
        self,
        detector: Detector,
        segmenter: Segmenter | None = None,
        *,
        tiles: TileSettings | None = None,
        detect: DetectSettings = DetectSettings(),  # noqa: B008
        calibration: ScoreCalibration | None = None,
    ) -> None:
        """Put two models together.

        Args:
            detector: Turns prompts into boxes.
            segmenter: Turns boxes into masks; None to stop at the boxes.
            tiles: Look at images larger than a tile in tiles, too; None to look at whole images only.
            detect: How duplicates are removed where the instances of several tiles are merged; with rules or a
                calibration, the score threshold of prompts that have none of their own.
            calibration: Makes probabilities of scores, which all thresholds then are; None for scores as they are.
        """
        self._detector = detector
        self._segmenter = segmenter
        self._tiles = tiles
        self._detect = detect
        self._calibration = calibration

    def __repr__(self) -> str:
        """Name the kinds of the models."""
        return ", ".join(type(one).__name__ for one in (self._detector, self._segmenter) if one is not None)

    def with_score_threshold(self, score_threshold: float) -> "Chain":
        """Give a chain of the same models with another score threshold; nothing is loaded again.

        Raises:
            UsageError: If it isn't between 0 and 1, or the detector has no threshold to change.
        """
        if not isinstance(self._detector, ThresholdDetector):
            raise UsageError(
                f"the detector, a {type(self._detector).__name__}, has no with_score_threshold() for a threshold of "
                "one call; filter its result: result[result.scores >= 0.5]"
            )
        detect = replace(self._detect, score_threshold=score_threshold)
        return self._with(self._detector.with_score_threshold(detect.score_threshold), detect)

    def with_iou_threshold(self, iou_threshold: float) -> "Chain":
        """Give a chain of the same models with another IoU threshold of duplicate boxes; nothing is loaded again.

        Raises:
            UsageError: If it isn't between 0 and 1, or the detector has no such threshold to change.
        """
        if not isinstance(self._detector, OverlapDetector):
            raise UsageError(f"the detector, a {type(self._detector).__name__}, has no IoU threshold for one call")
        detect = replace(self._detect, iou_threshold=iou_threshold)
        return self._with(self._detector.with_iou_threshold(iou_threshold), detect)

    def _with(self, detector: Detector, detect: DetectSettings) -> "Chain":
        return Chain(detector, self._segmenter, tiles=self._tiles, detect=detect, calibration=self._calibration)

    def results(self, images: Sequence[Image], prompts: Sequence[PromptSet], n_padded: int = 0) -> list[PromptedResult]:
        """Find what is asked for on one batch of images. No images in, no results out.

        Each image is charged an equal share of the batch's seconds.

        Args:
            images: The batch.
            prompts: What each image is asked.
            n_padded: Images that the models are given at least, so that each batch has the same shape: the last bits
                of their numbers depend on that. The first image is repeated as padding, for the segmenter without
                boxes.

        Raises:
            DeviceMemoryError: If that is too much for the device's memory.
            UsageError: If the prompts' thresholds were chosen with another calibration.
        """
        if not images:
            return []
        for asked in prompts:
            check_thresholds(asked, self._calibration)
        padded = max(n_padded, len(images))
        found, boxes, seconds = self._found(images, prompts, padded)
        unwanted = [list(one.unwanted) for one in boxes]
        view_px = self._view_px()
        if self._tiles is None:
            for image in images:
                tell_if_tiles_would_help(image, view_px)
        else:
            tiled = [crops_of(image, self._tiles, view_px) for image in images]
            crops = [(crop, asked) for one, asked in zip(tiled, prompts, strict=True) for _, crop in one]
            parts: list[ImageResult] = []
            of_parts: list[Parted] = []
            for start in range(0, len(crops), len(images)):
                some = crops[start : start + len(images)]
                of_some, boxes, more = self._found([crop for crop, _ in some], [asked for _, asked in some], padded)
                parts += of_some
                of_parts += boxes
                seconds = {stage: one + more[stage] for stage, one in seconds.items()}
            on_tiles = iter(parts)
            found = [
                merged(one, [(tile, next(on_tiles)) for tile, _ in plan], asked, self._detect)
                for one, plan, asked in zip(found, tiled, prompts, strict=True)
            ]
            boxes_on_tiles = iter(of_parts)
            for its, plan in zip(unwanted, tiled, strict=True):
                for tile, _ in plan:
                    its += next(boxes_on_tiles).moved(tile.left, tile.top)
        share = {stage: one / len(images) for stage, one in seconds.items()}
        found = [
            settled(one, its, asked, self._calibration) if needs_rules(asked, self._calibration) else one
            for one, its, asked in zip(found, unwanted, prompts, strict=True)
        ]
        return [PromptedResult.of(one, share, asked) for one, asked in zip(found, prompts, strict=True)]

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> Sequence[ImageResult]:
        """Turn given boxes into masks, without the detector; without a segmenter, give the boxes alone.

        Args:
            images: One batch.
            detections: For each image its boxes, in pixels of that image.
        """
        if self._segmenter is not None:
            return self._segmenter.segment(images, detections)
        return [
            ImageResult(image.path, image.size, tuple(Instance(one, mask=None, mask_score=None) for one in found))
            for image, found in zip(images, detections, strict=True)
        ]

    def _view_px(self) -> int | None:
        """Give the detector's view; None where it isn't known, which only tiles of side "auto" need."""
        if isinstance(self._detector, ViewingDetector):
            return self._detector.view_px
        if self._tiles is not None and self._tiles.side == "auto":
            raise UsageError(
                f"the detector, a {type(self._detector).__name__}, has no view_px that tiles could fit; "
                "give the side of a tile in pixels"
            )
        return None

    def _found(
        self, images: Sequence[Image], prompts: Sequence[PromptSet], n_padded: int
    ) -> tuple[list[ImageResult], list[Parted], dict[str, float]]:
        """Send whole images or crops through both stages; gives their boxes and the seconds of each stage too."""
        started = time.perf_counter()
        n_missing = n_padded - len(images)
        padded, asked = [*images, *[images[0]] * n_missing], [*prompts, *[prompts[0]] * n_missing]
        boxes = self._detected(padded, asked)
        detected = time.perf_counter()
        usable = [
            [one for one in found.wanted if is_usable(one.box_xyxy, image.size)] if index < len(images) else []
            for index, (image, found) in enumerate(zip(padded, boxes, strict=True))
        ]
        segmented = [
            replace(one, n_unusable_boxes=len(found.wanted) - len(kept))
            for one, found, kept in zip(self.segment(padded, usable), boxes, usable, strict=True)
        ]
        seconds = {"detect": detected - started, "segment": time.perf_counter() - detected}
        return segmented[: len(images)], boxes[: len(images)], seconds

    def _detected(self, images: Sequence[Image], prompts: Sequence[PromptSet]) -> list[Parted]:
        """Ask, and apply the rules of each image's prompts, if any image has some."""
        if not any(needs_rules(asked, self._calibration) for asked in prompts):
            return [Parted(tuple(found)) for found in self._asked(self._detector, images, prompts)]
        # Every box, as a threshold of its own comes before duplicates of the others.
        detector = self._detector
        if isinstance(detector, OverlapDetector):
            detector = detector.with_iou_threshold(1.0)
        if isinstance(detector, ThresholdDetector):
            detector = detector.with_score_threshold(0.0)
        detections = self._asked(detector, images, prompts)
        return [
            parted(found, asked, self._calibration, self._detect)
            for found, asked in zip(detections, prompts, strict=True)
        ]

    def _asked(
        self, detector: Detector, images: Sequence[Image], prompts: Sequence[PromptSet]
    ) -> Sequence[tuple[Detection, ...]]:
        first = prompts[0]
        if all(asked is first or asked == first for asked in prompts):
            questions = first.questions
            return detector.detect(images, tuple(questions), tuple(questions.values()))
        # A prompt may be wanted on one image and unwanted on another: where it has a class, that counts.
        classes = {prompt: name for asked in prompts for prompt, name in asked.class_by_prompt.items()}
        classes = {prompt: name for asked in prompts for prompt, name in asked.questions.items()} | classes
        each = [frozenset(asked.questions) for asked in prompts]
        return detector.detect(images, tuple(classes), tuple(classes.values()), asked=each)
