"""A batch of images through both stages: the detector's boxes, then the segmenter's masks."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from grounded_seg.detect.model.record import check_questions
from grounded_seg.detect.prompts import Prompts, PromptSet, prompt_set_from
from grounded_seg.engine.read_ahead import batches
from grounded_seg.geometry.boxes import is_usable
from grounded_seg.images.read import read_image, read_or_skip
from grounded_seg.pipeline.load import FoundModels, find_models, load_models
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.pipeline.tiling import find_on_tiles
from grounded_seg.records import Detection, Image, ImageSkipped, Instance, SegmentedImage
from grounded_seg.settings import (
    DetectSettings,
    ModelSettings,
    Precision,
    SegmentSettings,
    TileSettings,
)

if TYPE_CHECKING:
    from grounded_seg.weights.fetch import Progress


class Detector(Protocol):
    """Stage 1, as `GroundedSegmenter` needs it."""

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
    ) -> Sequence[tuple[Detection, ...]]:
        """Give each image's boxes, in the order of the prompts, from high to low score within a prompt."""


class Segmenter(Protocol):
    """Stage 2, as `GroundedSegmenter` needs it."""

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> Sequence[SegmentedImage]:
        """Give each image's instances, in the order of its detections, without those whose mask is empty."""


class GroundedSegmenter:
    """Finds what a prompt names: boxes by the detector, a mask in each box by the segmenter."""

    def __init__(
        self,
        detector: Detector,
        segmenter: Segmenter | None = None,
        *,
        tiles: TileSettings | None = None,
        detect: DetectSettings = DetectSettings(),  # noqa: B008
        loaded: FoundModels | None = None,
    ) -> None:
        """Put two models together.

        Args:
            detector: Turns prompts into boxes.
            segmenter: Turns boxes into masks; None to stop at the boxes.
            tiles: Look at images larger than a tile in tiles, too; None to look at whole images only.
            detect: Which finds are kept where those of several tiles come together.
            loaded: Where the two came from, if that is known.
        """
        self._detector = detector
        self._segmenter = segmenter
        self._tiles = tiles
        self._detect = detect
        self.loaded = loaded

    @classmethod
    def from_preset(
        cls,
        name: str,
        *,
        detector: str | None = None,
        adapter: str | None = None,
        segmenter: str | None = None,
        device: str = "auto",
        dtype: Precision | str = Precision.AUTO,
        offline: bool = False,
        detect: DetectSettings = DetectSettings(),  # noqa: B008  (frozen, so one for all calls is safe)
        segment: SegmentSettings = SegmentSettings(),  # noqa: B008
        tiles: TileSettings | None = None,
        boxes_only: bool = False,
    ) -> "GroundedSegmenter":
        """Load a preset: "demo" comes with the project, "base", "base-ft", "large" and "large-ft" are fetched once.

        Args:
            name: The preset.
            detector: Folder or hub id of a Florence-2 instead of the preset's, native or in the older layout. A hub id
                is owner/name, or owner/name@COMMIT.
            adapter: Folder or hub id of a peft adapter instead of the preset's; "none" for none.
            segmenter: A segmenter instead of the preset's: vit_b, vit_l or vit_h for a published Segment Anything, a
                file or folder of one, or folder or hub id of a SAM, SAM-HQ or SAM 2.
            device: auto, cpu, cuda, cuda:N or mps.
            dtype: auto, float32, bfloat16 or float16.
            offline: Use only what is on disk already.
            detect: How the detector is asked, and which of its boxes are kept.
            segment: Which masks are taken, and what is done to them.
            tiles: Look at images larger than a tile in tiles, too.
            boxes_only: Load no segmenter and give no masks.

        Raises:
            UsageError: If there is no such preset, device or number format.
            WeightsError: If weights are missing or wrong.
            DeviceError: If the device isn't there or can't run this.
        """
        # The settings convert a text themselves.
        models = ModelSettings(name, detector, adapter, segmenter, device, cast(Precision, dtype), offline)
        return cls.from_settings(models, detect, segment=segment, tiles=tiles, boxes_only=boxes_only)

    @classmethod
    def from_settings(
        cls,
        models: ModelSettings,
        detect: DetectSettings,
        *,
        segment: SegmentSettings = SegmentSettings(),  # noqa: B008
        tiles: TileSettings | None = None,
        boxes_only: bool = False,
        found: FoundModels | None = None,
        progress: "Progress | None" = None,
    ) -> "GroundedSegmenter":
        """Find, fetch, check and load the weights that `models` names.

        Args:
            models: Which weights, and where they run.
            detect: How the detector is asked.
            segment: Which masks are taken, and what is done to them.
            tiles: Look at images larger than a tile in tiles, too.
            boxes_only: Load no segmenter.
            found: What `find_models` gave for the same settings, where that is known already.
            progress: Called while a weight file arrives, with the bytes so far and in all.

        Raises:
            UsageError, WeightsError, DeviceError: As for `from_preset`.
        """
        found = found or find_models(models, boxes_only=boxes_only, progress=progress)
        check_questions((found.adapter or found.detector).path)
        detector, segmenter = load_models(found, detect, segment, allow_base_mismatch=models.allow_base_mismatch)
        return cls(detector, segmenter, tiles=tiles, detect=detect, loaded=found)

    def __call__(self, image: Image | Path | str, prompts: Prompts) -> PromptedResult:
        """Ask about one image, decoded or on disk.

        Raises:
            UsageError: If nothing is asked for.
            ImageError: If the image can't be read.
        """
        decoded = image if isinstance(image, Image) else read_image(Path(image))
        [result] = self.segment_images([decoded], prompt_set_from(prompts))
        return result

    def stream(
        self, paths: Iterable[Path | str], prompts: Prompts, batch_size: int = 1
    ) -> Iterator[PromptedResult | ImageSkipped]:
        """Ask about many images, one outcome for each in their order; one that can't be read is skipped.

        Args:
            paths: Image files; as many as you like, they are taken as they are needed.
            prompts: What is asked about each.
            batch_size: Images that go through the models together. Where fewer are left, or some can't be read, the
                detector gets one of them again in their place, so that its numbers don't depend on that.

        Raises:
            UsageError: If nothing is asked for.
        """
        prompt_set = prompt_set_from(prompts)
        for batch in batches(map(Path, paths), batch_size):
            yield from self.segment_readable([read_or_skip(path) for path in batch], prompt_set, batch_size)

    def segment_readable(
        self, batch: Sequence[Image | ImageSkipped], prompts: PromptSet, batch_size: int = 0
    ) -> list[PromptedResult | ImageSkipped]:
        """Ask about those of a batch that could be read; the skipped ones keep their places."""
        readable = [image for image in batch if isinstance(image, Image)]
        results = iter(self.segment_images(readable, prompts, batch_size))
        return [item if isinstance(item, ImageSkipped) else next(results) for item in batch]

    def segment_images(self, images: Sequence[Image], prompts: PromptSet, batch_size: int = 0) -> list[PromptedResult]:
        """Ask about one batch. No images in, no results out.

        Each image is charged an equal share of the batch's seconds.

        Args:
            images: The batch.
            prompts: What is asked about each.
            batch_size: Images that the models are given at least, so that each batch has the same shape: the last bits
                of their numbers depend on that. The first image is repeated in place of those that are missing, for
                the segmenter without boxes.

        Raises:
            DeviceMemoryError: If that is too much for the device's memory.
        """
        if not images:
            return []
        seconds = {"detect": 0.0, "segment": 0.0}

        def find(some: Sequence[Image]) -> Sequence[SegmentedImage]:
            started = time.perf_counter()
            padded = [*some, *[some[0]] * (batch_size - len(some))]
            detections = self._detector.detect(padded, prompts.prompts, prompts.class_names)
            detected = time.perf_counter()
            wanted = [one if index < len(some) else () for index, one in enumerate(detections)]
            found = self._segment_usable(padded, wanted)[: len(some)]
            seconds["detect"] += (detected - started) / len(images)
            seconds["segment"] += (time.perf_counter() - detected) / len(images)
            return found

        segmented = (
            find(images)
            if self._tiles is None
            else find_on_tiles(find, images, self._tiles, prompts.class_by_prompt, self._detect)
        )
        return [
            PromptedResult.of(image, found, seconds, prompts) for image, found in zip(images, segmented, strict=True)
        ]

    def _segment_usable(
        self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> list[SegmentedImage]:
        """Segment the detector's boxes, without those that no mask can come of; they are counted."""
        usable = [
            [detection for detection in found if is_usable(detection.box_xyxy, image.size)]
            for image, found in zip(images, detections, strict=True)
        ]
        return [
            replace(one, n_unusable_boxes=len(found) - len(kept))
            for one, found, kept in zip(self.segment_boxes(images, usable), detections, usable, strict=True)
        ]

    def segment_boxes(
        self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]
    ) -> Sequence[SegmentedImage]:
        """Turn given boxes into masks, without the detector; without a segmenter, give the boxes alone.

        Args:
            images: One batch.
            detections: For each image its boxes, in pixels of that image.
        """
        return self._segmenter.segment(images, detections) if self._segmenter else _without_masks(detections)


def _without_masks(detections: Sequence[Sequence[Detection]]) -> list[SegmentedImage]:
    return [
        SegmentedImage(tuple(Instance(detection, mask=None, mask_score=None) for detection in found))
        for found in detections
    ]
