"""`SamSegmenter`: boxes of a batch of images in, run-length encoded masks out."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from grounded_seg.device.memory import in_chunks, out_of_memory_as_device_error
from grounded_seg.geometry.masks import run_length_from_region
from grounded_seg.records import Detection, Image, ImageSize, Instance, SegmentedImage
from grounded_seg.segment.duplicates import without_duplicates
from grounded_seg.segment.network import BoxNetwork
from grounded_seg.segment.quality import cleaned, share_outside
from grounded_seg.segment.resize import resized_boxes
from grounded_seg.segment.upsampling import Axis, Region, regions_from_logits
from grounded_seg.settings import SegmentSettings

DECODER_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31, "mps": 1 << 30}
"""Memory of a chunk of boxes, by type of device: on a CPU what its caches and its allocator handle well."""
ENCODER_IMAGES = {"cpu": 1, "cuda": 4, "mps": 4}
"""Images in a call of the encoder, at most, by type of device: a CPU gains nothing by more than one."""


@dataclass(frozen=True, eq=False)
class _PromptedImage:
    """One image's way through the decoder."""

    embedding: Any
    size: ImageSize
    axes: tuple[Axis, Axis]


class SamSegmenter:
    """A model of the Segment Anything family, prompted with boxes. Upsampling is in float32 whatever it computes in."""

    def __init__(self, network: BoxNetwork, settings: SegmentSettings = SegmentSettings()) -> None:  # noqa: B008
        """Put a model and the options for its masks together."""
        self._network = network
        self._settings = settings
        per_chunk = DECODER_BYTES.get(network.device.type, DECODER_BYTES["cpu"])
        self._boxes_per_chunk = max(1, per_chunk // network.bytes_per_box)

    @torch.inference_mode()
    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[SegmentedImage]:
        """Turn each detection's box into a mask at its image's own size.

        Images with boxes go through the encoder `ENCODER_IMAGES` at a time, those without cost nothing. Every call has
        one shape, with an image repeated where one is missing, so an image's masks don't depend on which others of its
        batch have boxes, or could be read. The boxes of one image share its embedding and go through the decoder in
        chunks of bounded memory. No images in, no images out.

        Args:
            images: The batch.
            detections: For each image its boxes, in pixels of that image.

        Returns:
            One record per image, instances in the order of the detections; a detection whose mask comes out empty is
            left out and counted. `mask_score` is the model's predicted IoU, clamped to [0, 1].

        Raises:
            ValueError: If there are more or fewer lists of detections than images, or a box isn't finite, has no area,
                or lies outside its image.
            DeviceMemoryError: If the device has no memory for an image, or for one box at a time.
        """
        if len(images) != len(detections):
            raise ValueError(f"{len(images)} images, but detections for {len(detections)}")
        boxes = [
            resized_boxes([detection.box_xyxy for detection in found], image.size, self._network.frame(image.size))
            for image, found in zip(images, detections, strict=True)
        ]
        segmented = [SegmentedImage() for _ in images]
        asked = [index for index, found in enumerate(detections) if found]
        remedy = "Lower --batch-size, or use --device cpu."
        with out_of_memory_as_device_error(f"segmenting {len(asked)} images", remedy):
            embeddings = self._embeddings([images[index] for index in asked], len(images))
            for index, embedding in zip(asked, embeddings, strict=True):
                image = _PromptedImage(embedding, images[index].size, self._network.axes(images[index].size))
                boxes_xyxy = torch.from_numpy(boxes[index]).to(self._network.device)
                segmented[index] = self._segment_image(image, boxes_xyxy, detections[index])
        return segmented

    def _embeddings(self, images: Sequence[Image], n_batch: int) -> Iterator[Any]:
        """Encode some images of a batch of so many, in calls of one shape; more of them only as they are asked for."""
        at_once = max(1, min(n_batch, ENCODER_IMAGES.get(self._network.device.type, ENCODER_IMAGES["cuda"])))
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once]
            yield from self._network.encode([*some, *[some[0]] * (at_once - len(some))])[: len(some)]

    def _segment_image(
        self, image: _PromptedImage, boxes_xyxy: torch.Tensor, detections: Sequence[Detection]
    ) -> SegmentedImage:
        """Make the instances of one image with at least one box, given in pixels of the frame."""

        def work(places: Sequence[int]) -> list[Instance | None]:
            chunk = slice(places[0], places[-1] + 1)
            logits, ious = self._network.decode(image.embedding, boxes_xyxy[chunk], multimask=self._settings.multimask)
            best = ious.argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            scores = ious[rows, best].clamp(0, 1).tolist()
            regions = regions_from_logits(logits[rows, best], *image.axes)
            return [
                self._instance(detection, region, score, image.size)
                for detection, region, score in zip(detections[chunk], regions, scores, strict=True)
            ]

        instances = in_chunks(range(len(detections)), self._boxes_per_chunk, work)
        return self._collected(instances)

    def _instance(self, detection: Detection, region: Region | None, score: float, size: ImageSize) -> Instance | None:
        """Make an instance of a mask; None if it is too small."""
        if region is not None and self._settings.clean:
            region = replace(region, mask=cleaned(region.mask))
        if region is None or np.count_nonzero(region.mask) < self._settings.min_area:
            return None
        return Instance(
            detection=detection,
            mask=run_length_from_region(region.mask, region.left, region.top, size),
            mask_score=score,
            leaves_box=share_outside(region, detection.box_xyxy) > self._settings.outside_share,
        )

    def _collected(self, instances: Iterable[Instance | None]) -> SegmentedImage:
        """Count the masks that came out empty, and drop the repeated ones."""
        made = list(instances)
        found = tuple(instance for instance in made if instance is not None)
        n_empty_masks = len(made) - len(found)
        limits = self._settings.mask_iou_threshold, self._settings.containment_threshold
        if min(limits) < 1:
            found = without_duplicates(found, *limits)
        return SegmentedImage(instances=found, n_empty_masks=n_empty_masks)
