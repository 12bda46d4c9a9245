"""Stage 2 as a whole: images and boxes in, run-length encoded masks out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grounded_seg.device.memory import in_chunks, out_of_memory_as_device_error
from grounded_seg.geometry.masks import run_length_from_region
from grounded_seg.records import Detection, Image, ImageResult, ImageSize, Instance
from grounded_seg.segment.load import BoxNetwork, load_network
from grounded_seg.segment.quality import cleaned, share_outside, without_duplicates
from grounded_seg.segment.resize import resized_boxes
from grounded_seg.segment.upsampling import Axis, Region, regions_from_logits
from grounded_seg.settings import SegmentSettings

DECODER_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31, "mps": 1 << 30}
"""Memory of a chunk of boxes, by type of device; on a CPU, what caches and allocator handle well."""
ENCODER_IMAGES = {"cpu": 1, "cuda": 4, "mps": 4}
"""Images in a call of the encoder, at most, by type of device: a CPU gains nothing by more than one."""


@dataclass(frozen=True, eq=False)
class _PromptedImage:
    """One encoded image, and the way of its masks back to its pixels."""

    image: Image
    embedding: Any
    axes: tuple[Axis, Axis]


class SamSegmenter:
    """A model of the Segment Anything family, prompted with boxes. Upsampling is in float32 whatever it computes in."""

    def __init__(self, network: BoxNetwork, settings: SegmentSettings = SegmentSettings()) -> None:  # noqa: B008
        self._network = network
        self._settings = settings
        per_chunk = DECODER_BYTES.get(network.device.type, DECODER_BYTES["cpu"])
        self._boxes_per_chunk = max(1, per_chunk // network.bytes_per_box)

    @torch.inference_mode()
    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[ImageResult]:
        """The mask of each detection, at its image's own size.

        Only images with boxes go through the encoder, `ENCODER_IMAGES` at a time; short calls are padded with a
        repeated image, so an image's masks don't depend on which others of its batch have boxes, or could be read. The
        boxes of one image share its embedding and go through the decoder in chunks of bounded memory. No images in, no
        images out.

        Args:
            images: The batch.
            detections: For each image its boxes, in pixels of that image.

        Returns:
            One record per image, instances in the order of the detections; those with an empty mask are dropped and
            counted. `mask_score` is the model's predicted IoU, clamped to [0, 1].

        Raises:
            ValueError: If there aren't as many lists of detections as images, or a box isn't finite, has no area, or
                lies outside its image.
            DeviceMemoryError: If the device has no memory for an image, or for one box at a time.
        """
        if len(images) != len(detections):
            raise ValueError(f"{len(images)} images, but detections for {len(detections)}")
        boxes = [
            resized_boxes([detection.box_xyxy for detection in found], image.size, self._network.frame(image.size))
            for image, found in zip(images, detections, strict=True)
        ]
        segmented = [ImageResult(image.path, image.size) for image in images]
        asked = [index for index, found in enumerate(detections) if found]
        remedy = "Lower --batch-size, or use --device cpu."
        with out_of_memory_as_device_error(f"segmenting {len(asked)} images", remedy):
            embeddings = self._embeddings([images[index] for index in asked], len(images))
            for index, embedding in zip(asked, embeddings, strict=True):
                prompted = _PromptedImage(images[index], embedding, self._network.axes(images[index].size))
                boxes_xyxy = torch.from_numpy(boxes[index]).to(self._network.device)
                segmented[index] = self._segment_image(prompted, boxes_xyxy, detections[index])
        return segmented

    def _embeddings(self, images: Sequence[Image], n_batch: int) -> Iterator[Any]:
        """Embeddings of some images of a batch of `n_batch`, encoded in calls of one shape as they are asked for."""
        at_once = max(1, min(n_batch, ENCODER_IMAGES.get(self._network.device.type, ENCODER_IMAGES["cuda"])))
        for start in range(0, len(images), at_once):
            some = images[start : start + at_once]
            yield from self._network.encode([*some, *[some[0]] * (at_once - len(some))])[: len(some)]

    def _segment_image(
        self, prompted: _PromptedImage, boxes_xyxy: torch.Tensor, detections: Sequence[Detection]
    ) -> ImageResult:
        """The instances of one image with at least one box; boxes are in pixels of the frame."""
        size = prompted.image.size

        def work(indices: Sequence[int]) -> list[Instance | None]:
            chunk = slice(indices[0], indices[-1] + 1)
            multimask = self._settings.multimask
            logits, ious = self._network.decode(prompted.embedding, boxes_xyxy[chunk], multimask=multimask)
            best = ious.argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            scores = ious[rows, best].clamp(0, 1).tolist()
            regions = regions_from_logits(logits[rows, best], *prompted.axes)
            return [
                self._instance(detection, region, score, size)
                for detection, region, score in zip(detections[chunk], regions, scores, strict=True)
            ]

        made = list(in_chunks(range(len(detections)), self._boxes_per_chunk, work))
        found = tuple(instance for instance in made if instance is not None)
        n_empty_masks = len(made) - len(found)
        limits = self._settings.mask_iou_threshold, self._settings.containment_threshold
        if min(limits) < 1:
            found = without_duplicates(found, *limits)
        return ImageResult(prompted.image.path, size, found, n_empty_masks=n_empty_masks)

    def _instance(self, detection: Detection, region: Region | None, score: float, size: ImageSize) -> Instance | None:
        """A mask as an instance; None if it is too small."""
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


def load_segmenter(
    source: Path,
    device: torch.device,
    dtype: torch.dtype,
    settings: SegmentSettings = SegmentSettings(),  # noqa: B008  (frozen, so one for all calls is safe)
) -> SamSegmenter:
    """A segmenter on its device.

    Args:
        source: An official `.pth`, the same tensors as `.safetensors`, a folder that `sam.build.save_sam` wrote, or a
            folder of SAM, SAM-HQ or SAM 2 in transformers' layout.
        device: See `device.choose.resolve_device`.
        dtype: See `device.choose.resolve_dtype`.
        settings: Which masks are kept, how they are cleaned, and whether the image encoder is compiled.

    Raises:
        WeightsError: If the weights are missing, damaged, or of another model.
        DeviceMemoryError: If the device has no room for them.
    """
    with out_of_memory_as_device_error("loading the segmenter", "Use a smaller one, or --device cpu."):
        network = load_network(source, device, dtype, compiled=settings.compile)
    return SamSegmenter(network, settings)
