"""Stage 1 as a whole: images and prompts in, scored boxes out."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
import torch

from grounded_seg.detect.answer.box_scores import ScoreRule, shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.model.adapters import merge_adapter
from grounded_seg.detect.model.florence import MAX_NEW_TOKENS, FlorenceModel, GeneratedAnswer
from grounded_seg.detect.model.load import load_florence
from grounded_seg.detect.model.named_adapters import named_adapters
from grounded_seg.detect.model.record import check_adapter_base, trained_image_size
from grounded_seg.detect.tasks import TASKS, Task
from grounded_seg.device.choose import out_of_memory_as_device_error
from grounded_seg.device.compile import compile_encoder, compile_failure_as_device_error
from grounded_seg.geometry.boxes import array_from_boxes, kept_by_group
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.settings import DetectSettings, GroundingTask, SuppressionScope
from grounded_seg.weights.locate import LocatedWeights

_TASKS = {
    GroundingTask.GROUNDING: TASKS["CAPTION_TO_PHRASE_GROUNDING"],
    GroundingTask.OPEN_VOCABULARY: TASKS["OPEN_VOCABULARY_DETECTION"],
    GroundingTask.REFERRING: TASKS["REFERRING_EXPRESSION_SEGMENTATION"],
}
_QUESTIONS_AT_ONCE = 16
"""Questions that go through encoder and decoder together: bounds the memory for many prompts on many images."""


class FlorenceDetector:
    """Florence-2 asked for one thing at a time, its answers scored and thinned out."""

    def __init__(
        self,
        model: FlorenceModel,
        settings: DetectSettings,
        rule: ScoreRule = ScoreRule.PRODUCT,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: The model.
            settings: How it is asked, and which boxes are kept.
            rule: What makes a score.
        """
        self.model = model
        self.settings = settings
        self.rule = rule

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        adapter: str | None = None,
    ) -> list[tuple[Detection, ...]]:
        """Find what each prompt asks for in each image.

        Each prompt is a question of its own, so classes don't blend; all questions about an image share one run of the
        vision tower. What isn't there gives no box.

        Args:
            images: Any sizes. None in, none out.
            prompts: Distinct, each the words for one thing.
            class_names: The class of each prompt, between whose boxes duplicates are looked for with `class`; each
                prompt is its own class where this isn't given.
            adapter: Which of the adapters that are loaded beside the weights to use; None for none of them.

        Returns:
            Per image its detections, in the order of the prompts and from high to low score within a prompt.

        Raises:
            UsageError: If a prompt is empty, or too long for the model, or no adapter has this name.
            DeviceError: If the device runs out of memory.
        """
        if not images or not prompts:
            return [() for _ in images]
        with (
            out_of_memory_as_device_error(f"looking at {len(images)} images", "Lower --batch-size."),
            self.model.using(adapter),
        ):
            with compile_failure_as_device_error() if self.settings.compile else nullcontext():
                features = self.model.encode_images(images)
            answers = self._answers(features, prompts)
            found = [self._detections(image.size, prompts, [next(answers) for _ in prompts]) for image in images]
        classes = dict(zip(prompts, class_names or prompts, strict=True))
        return [self._kept(detections, classes) for detections in found]

    def _answers(self, features: torch.Tensor, prompts: Sequence[str]) -> Iterator[GeneratedAnswer]:
        """Ask every prompt of every image, image by image."""
        questions = [self._task.question(prompt) for prompt in prompts]
        pairs = list(product(range(len(features)), questions))
        for start in range(0, len(pairs), _QUESTIONS_AT_ONCE):
            rows, texts = zip(*pairs[start : start + _QUESTIONS_AT_ONCE], strict=True)
            yield from self.model.answer(
                features[list(rows)], texts, beams=self.settings.beams, max_new_tokens=MAX_NEW_TOKENS
            )

    def _detections(
        self, size: ImageSize, prompts: Sequence[str], answers: Sequence[GeneratedAnswer]
    ) -> list[Detection]:
        """Read one image's answers; boxes without area are dropped."""
        detections = []
        for prompt, answer in zip(prompts, answers, strict=True):
            for shape in parse_tokens(self._task, answer.token_ids, self.model.vocabulary, prompt):
                box = box_from_shape(shape, size)
                if box is not None:
                    score = shape_score(shape, answer.evidence, self.rule)
                    # Only outlines come without words: they are of what was asked for.
                    detections.append(Detection(shape.label or prompt, prompt, box, score))
        return detections

    def _kept(self, detections: Sequence[Detection], classes: dict[str, str]) -> tuple[Detection, ...]:
        """Drop what scores too low, then duplicates, then what is over the limit; order the rest."""
        likely = [one for one in detections if one.score >= self.settings.score_threshold]
        distinct = self._without_duplicates(likely, classes)
        by_prompt = [[one for one in distinct if one.prompt == prompt] for prompt in classes]
        return tuple(
            one
            for found in by_prompt
            for one in sorted(found, key=lambda one: -one.score)[: self.settings.max_detections]
        )

    def _without_duplicates(self, detections: list[Detection], classes: dict[str, str]) -> list[Detection]:
        settings = self.settings
        if settings.nms is SuppressionScope.NONE:
            return detections
        by_class = settings.nms is SuppressionScope.CLASS
        kept = kept_by_group(
            array_from_boxes([one.box_xyxy for one in detections]),
            np.array([one.score for one in detections]),
            [classes[one.prompt] if by_class else "" for one in detections],
            settings.iou_threshold,
            settings.box_containment_threshold,
        )
        return [detections[index] for index in kept]

    @property
    def _task(self) -> Task:
        return _TASKS[self.settings.task]


@dataclass(frozen=True, eq=False)
class AdaptedDetector:
    """A detector that always uses the same one of its named adapters, for `GroundedSegmenter`."""

    detector: FlorenceDetector
    adapter: str
    """One of those that were given to `load_detector(adapters=...)`."""

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
    ) -> list[tuple[Detection, ...]]:
        """Find what each prompt asks for in each image, as `FlorenceDetector.detect` does."""
        return self.detector.detect(images, prompts, class_names, adapter=self.adapter)


def load_detector(
    weights: LocatedWeights,
    adapter: LocatedWeights | None,
    settings: DetectSettings,
    *,
    device: torch.device,
    dtype: torch.dtype,
    allow_base_mismatch: bool = False,
    adapters: Mapping[str, LocatedWeights] | None = None,
) -> FlorenceDetector:
    """Load a Florence-2, and on it an adapter where there is one.

    Args:
        weights: A Florence-2 folder.
        adapter: A LoRA adapter's folder. It is merged in float32 before the weights take their final format.
        settings: How the model is asked.
        device: Where it runs.
        dtype: Number format of weights and activations.
        allow_base_mismatch: Load an adapter although it says that it was trained on another base.
        adapters: More adapters by name, kept beside the weights: each call of `detect` chooses one. Slower than a
            merged one.

    Raises:
        UsageError: If the name of an adapter has a dot.
        WeightsError: If either is missing, damaged, incomplete, or they don't belong together.
        DeviceError: If the device runs out of memory.
    """
    model = load_florence(weights.path)
    for one in (*([adapter] if adapter else []), *(adapters or {}).values()):
        check_adapter_base(one.path, weights, allow_mismatch=allow_base_mismatch)
    if adapter is not None:
        model.network = merge_adapter(model.network, adapter.path)
    # What was tuned on squeezed images has to see such images.
    side = trained_image_size(weights.path if adapter is None else adapter.path)
    model.pixels = replace(model.pixels, squeezed_to=side)
    if adapters:
        model.adapters = named_adapters(model.network, {name: one.path for name, one in adapters.items()})
    with out_of_memory_as_device_error("loading the detector", "Use a smaller preset or --device cpu."):
        model.network.to(device=device, dtype=dtype)
    if settings.compile:
        compile_encoder(model.network.model.vision_tower)
    return FlorenceDetector(model, settings)
