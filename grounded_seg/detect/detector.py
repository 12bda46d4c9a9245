"""Stage 1 as a whole: images and prompts in, scored boxes out."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace

import numpy as np
import torch

from grounded_seg.detect.answer.box_scores import shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.decoding.weight_order import put_in_order
from grounded_seg.detect.model.adapters import NamedAdapters, attach_adapters, merge_adapter
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.record import check_adapter_base, trained_image_size
from grounded_seg.detect.model.tower import use_kernels
from grounded_seg.detect.tasks import MAX_NEW_TOKENS, TASKS
from grounded_seg.device.choose import compile_encoder, compile_failure_as_device_error, use_exact_float32
from grounded_seg.device.kernels import Kernels, kernels_of
from grounded_seg.device.memory import out_of_memory_as_device_error
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.settings import DetectSettings, GroundingTask, SuppressionScope
from grounded_seg.weights.locate import LocatedWeights

_TASKS = {
    GroundingTask.GROUNDING: TASKS["CAPTION_TO_PHRASE_GROUNDING"],
    GroundingTask.OPEN_VOCABULARY: TASKS["OPEN_VOCABULARY_DETECTION"],
    GroundingTask.REFERRING: TASKS["REFERRING_EXPRESSION_SEGMENTATION"],
}


class FlorenceDetector:
    """Florence-2 asked for one thing at a time; its boxes are scored, and duplicates dropped."""

    def __init__(self, model: FlorenceModel, settings: DetectSettings) -> None:
        self.model = model
        self.settings = settings
        self._task = _TASKS[settings.task]

    @property
    def view_px(self) -> int:
        """Side of what is seen of an image, in pixels: it is resized to that, and what gets too small is lost."""
        return self.model.pixels.view_px

    def with_score_threshold(self, score_threshold: float) -> "FlorenceDetector":
        """A detector of the same model, all settings but one alike; nothing is loaded again."""
        return FlorenceDetector(self.model, replace(self.settings, score_threshold=score_threshold))

    def with_iou_threshold(self, iou_threshold: float) -> "FlorenceDetector":
        """Likewise, with another IoU above which a box is a duplicate."""
        return FlorenceDetector(self.model, replace(self.settings, iou_threshold=iou_threshold))

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        asked: Sequence[Collection[str]] | None = None,
        adapter: str | None = None,
    ) -> list[tuple[Detection, ...]]:
        """The detections of each image, in the order of the prompts and from high to low score within a prompt.

        Each prompt is a question of its own, so classes don't blend; all questions about an image share one run of the
        vision tower.

        Args:
            images: Any sizes. None in, none out.
            prompts: Distinct, each the words for one thing, none empty or too long for the model.
            class_names: The class of each prompt, for duplicate removal within a class; by default the prompt itself.
            asked: Which of the prompts each image is asked; None for all of them.
            adapter: Which of the adapters that are loaded beside the weights to use; None for none of them.
        """
        if not images or not prompts:
            return [() for _ in images]
        with (
            out_of_memory_as_device_error(f"looking at {len(images)} images", "Lower --batch-size."),
            self.model.using(adapter),
        ):
            with compile_failure_as_device_error() if self.settings.compile else nullcontext():
                features = self.model.encode_images(images)
            each = [[one for one in prompts if asked is None or one in asked[row]] for row in range(len(images))]
            answers = self._answers(features, each)
            found = [
                self._detections(image.size, some, [next(answers) for _ in some])
                for image, some in zip(images, each, strict=True)
            ]
        classes = dict(zip(prompts, class_names or prompts, strict=True))
        return [self._kept(detections, classes) for detections in found]

    def _answers(self, features: torch.Tensor, prompts: Sequence[Sequence[str]]) -> Iterator[GeneratedAnswer]:
        """The answers of every image to its prompts, image by image."""
        pairs = [(row, self._task.question(prompt)) for row, some in enumerate(prompts) for prompt in some]
        if not pairs:
            return iter(())
        rows, texts = zip(*pairs, strict=True)
        return iter(
            self.model.answer(
                features,
                texts,
                about=rows,
                beams=self.settings.beams,
                max_new_tokens=MAX_NEW_TOKENS,
                tasks=[self._task] * len(texts),
            )
        )

    def _detections(
        self, size: ImageSize, prompts: Sequence[str], answers: Sequence[GeneratedAnswer]
    ) -> list[Detection]:
        """The boxes of one image's answers; those without area are dropped."""
        return [
            # Only outlines come without words: they are of what was asked for.
            Detection(shape.label or prompt, prompt, box, shape_score(shape, answer.evidence))
            for prompt, answer in zip(prompts, answers, strict=True)
            for shape in parse_tokens(self._task, answer.token_ids, self.model.vocabulary, prompt)
            if (box := box_from_shape(shape, size)) is not None
        ]

    def _kept(self, detections: Sequence[Detection], classes: dict[str, str]) -> tuple[Detection, ...]:
        """The detections without low scores, then without duplicates, then up to the limit for each prompt."""
        settings = self.settings
        found = [one for one in detections if one.score >= settings.score_threshold]
        if settings.nms is not SuppressionScope.NONE:
            by_class = settings.nms is SuppressionScope.CLASS
            kept = kept_by_group(
                array_from_boxes([one.box_xyxy for one in found]),
                np.array([one.score for one in found]),
                [classes[one.prompt] if by_class else "" for one in found],
                settings.iou_threshold,
                settings.box_containment_threshold,
            )
            found = [found[index] for index in kept]
        found.sort(key=lambda one: -one.score)
        by_prompt = ([one for one in found if one.prompt == prompt] for prompt in classes)
        return tuple(one for some in by_prompt for one in some[: settings.max_detections])


@dataclass(frozen=True, eq=False)
class AdaptedDetector:
    """A detector with one of its named adapters, for `GroundedSegmenter`."""

    detector: FlorenceDetector
    adapter: str
    """A name that was given to `load_detector(adapters=...)`."""

    @property
    def view_px(self) -> int:
        """Side of what is seen of an image, as of `FlorenceDetector.view_px`."""
        adapters = self.detector.model.adapters
        sides = {} if adapters is None else adapters.image_sides
        return replace(self.detector.model.pixels, square_side=sides.get(self.adapter)).view_px

    def with_score_threshold(self, score_threshold: float) -> "AdaptedDetector":
        """A detector of the same model and adapter, as of `FlorenceDetector.with_score_threshold`."""
        return AdaptedDetector(self.detector.with_score_threshold(score_threshold), self.adapter)

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        asked: Sequence[Collection[str]] | None = None,
    ) -> list[tuple[Detection, ...]]:
        """The detections of each image, as of `FlorenceDetector.detect`."""
        return self.detector.detect(images, prompts, class_names, asked=asked, adapter=self.adapter)


def load_detector(
    weights: LocatedWeights,
    adapter: LocatedWeights | None,
    settings: DetectSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    kernels: Kernels | None = None,
    allow_base_mismatch: bool = False,
    adapters: Mapping[str, LocatedWeights] | None = None,
) -> FlorenceDetector:
    """A Florence-2 on its device, with an adapter where there is one.

    `adapter` is merged in float32 before the weights take their dtype. `adapters`, by names without a dot, are kept
    beside the weights, and each call of `detect` chooses one: slower than a merged one. With `allow_base_mismatch`
    their records may name another base. Without `kernels` they are chosen here.

    Raises:
        WeightsError: If a folder is missing, damaged or incomplete, or they don't belong together.
        DeviceMemoryError: If the device runs out of memory.
    """
    use_exact_float32(device)
    model = load_florence(weights.path)
    for one in (*([adapter] if adapter else []), *(adapters or {}).values()):
        check_adapter_base(one.path, weights, allow_mismatch=allow_base_mismatch)
    if adapter is not None:
        model.network = merge_adapter(model.network, adapter.path)
    # Weights that were tuned on images resized to a square need such images.
    side = trained_image_size(weights.path if adapter is None else adapter.path)
    model.pixels = replace(model.pixels, square_side=side)
    if adapters:
        sides = {name: trained_image_size(one.path) for name, one in adapters.items()}
        folders = {name: one.path for name, one in adapters.items()}
        model.adapters = NamedAdapters(attach_adapters(model.network, folders), sides)
    with out_of_memory_as_device_error("loading the detector", "Use a smaller preset or --device cpu."):
        model.to(device, dtype)
        put_in_order(model.network)
    use_kernels(model.network.model.vision_tower, kernels_of(kernels, device, dtype, compiled=settings.compile))
    if settings.compile:
        compile_encoder(model.network.model.vision_tower)
    return FlorenceDetector(model, settings)
