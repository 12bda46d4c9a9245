"""Stage 2 as a whole: images and boxes in, run-length encoded masks out, cleaned and without duplicates."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from grounded_seg.device.ahead import one_ahead
from grounded_seg.device.choose import use_exact_float32
from grounded_seg.device.kernels import Kernels
from grounded_seg.device.memory import in_chunks, out_of_memory_as_device_error
from grounded_seg.geometry.masks import masks_kept_by_group, opencv, run_length_from_region
from grounded_seg.records import BoxXyxy, Detection, Image, ImageResult, ImageSize, Instance
from grounded_seg.segment.encode_there import EncodedMask, encoded_masks
from grounded_seg.segment.load import BoxNetwork, load_network
from grounded_seg.segment.resize import Region, regions_from_logits, resized_boxes
from grounded_seg.settings import SegmentSettings

DECODER_BYTES = {"cpu": 1 << 27, "cuda": 1 << 31, "mps": 1 << 30}
"""Memory of a chunk of boxes, by type of device; on a CPU, what caches and allocator handle well."""
ENCODER_IMAGES = {"cpu": 1, "cuda": 4, "mps": 4}
"""Images in a call of the encoder, at most, by type of device: a CPU gains nothing by more than one."""
ENCODES_MASKS = {"cuda"}
"""Types of device that turn logits into run lengths themselves; a CPU computes only where a mask can be."""


class SamSegmenter:
    """A model of the Segment Anything family, prompted with boxes. Upsampling is in float32 whatever it computes in."""

    def __init__(self, network: BoxNetwork, settings: SegmentSettings = SegmentSettings()) -> None:  # noqa: B008
        self._network = network
        self._settings = settings
        per_chunk = DECODER_BYTES.get(network.device.type, DECODER_BYTES["cpu"])
        self._boxes_per_chunk = max(1, per_chunk // network.bytes_per_box)

    @torch.inference_mode()
    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[ImageResult]:
        """The mask of each detection, at its image's own size: one result per image, instances in the given order.

        Only images with boxes go through the encoder, `ENCODER_IMAGES` at a time; short calls are padded with a
        repeated image, so an image's masks don't depend on which others of its batch have boxes, or could be read. The
        boxes of one image share its embedding and go through the decoder in chunks of bounded memory. Instances with
        an empty mask are dropped and counted; `mask_score` is the model's predicted IoU, clamped to [0, 1].

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
                segmented[index] = self._segment_image(images[index], embedding, boxes[index], detections[index])
        return segmented

    def _embeddings(self, images: Sequence[Image], n_batch: int) -> Iterator[Any]:
        """Embeddings of some images of a batch of `n_batch`, encoded in calls of one shape as they are asked for."""
        at_once = max(1, min(n_batch, ENCODER_IMAGES.get(self._network.device.type, ENCODER_IMAGES["cuda"])))
        parts = [images[start : start + at_once] for start in range(0, len(images), at_once)]
        padded = ([*some, *[some[0]] * (at_once - len(some))] for some in parts)
        calls = (partial(self._network.encode, some) for some in padded)
        for some, embeddings in zip(parts, one_ahead(calls, self._network.device), strict=True):
            yield from embeddings[: len(some)]

    def _segment_image(
        self, image: Image, embedding: Any, boxes: npt.NDArray[np.float32], detections: Sequence[Detection]
    ) -> ImageResult:
        """The instances of one image with at least one box; boxes (n, 4) are in pixels of the frame."""
        axes = self._network.axes(image.size)
        boxes_xyxy = torch.from_numpy(boxes).to(self._network.device)

        def work(indices: Sequence[int]) -> list[Instance | None]:
            chunk = slice(indices[0], indices[-1] + 1)
            multimask = self._settings.multimask
            logits, ious = self._network.decode(embedding, boxes_xyxy[chunk], multimask=multimask)
            best = ious.argmax(dim=1)
            rows = torch.arange(len(best), device=best.device)
            found, predicted = detections[chunk], ious[rows, best].clamp(0, 1)
            if self._network.device.type in ENCODES_MASKS:
                masks = encoded_masks(logits[rows, best], axes, [one.box_xyxy for one in found], image.size)
                each = zip(found, masks, predicted.tolist(), strict=True)
                return [self._encoded_instance(detection, mask, score) for detection, mask, score in each]
            regions = regions_from_logits(logits[rows, best], *axes)
            return [
                self._instance(detection, region, score, image.size)
                for detection, region, score in zip(found, regions, predicted.tolist(), strict=True)
            ]

        made = list(in_chunks(range(len(detections)), self._boxes_per_chunk, work))
        found = tuple(instance for instance in made if instance is not None)
        n_empty_masks = len(made) - len(found)
        limits = self._settings.mask_iou_threshold, self._settings.containment_threshold
        if min(limits) < 1:
            found = without_duplicates(found, *limits)
        return ImageResult(image.path, image.size, found, n_empty_masks=n_empty_masks)

    def _encoded_instance(self, detection: Detection, mask: EncodedMask | None, score: float) -> Instance | None:
        """A mask that was encoded on the device as an instance; it is decoded here only to be cleaned."""
        if mask is not None and self._settings.clean:
            pixels, left, top = mask.mask.tight_region()
            return self._instance(detection, Region(left, top, pixels), score, mask.mask.size)
        if mask is None or mask.n_pixels < self._settings.min_area:
            return None
        leaves_box = mask.share_outside > self._settings.outside_share
        return Instance(detection=detection, mask=mask.mask, mask_score=score, leaves_box=leaves_box)

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


def cleaned(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The largest connected part of a mask (height, width), the first of equals, with its holes filled.

    Pixels are connected by edges and corners, so that a thin slanted object stays one; a hole is background that edges
    alone don't connect with the outside. An empty mask stays empty.
    """
    cv2 = opencv()
    n_parts, parts, measures, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    if n_parts == 1:
        return mask
    largest = 1 + int(measures[1:, cv2.CC_STAT_AREA].argmax())
    # A frame of background connects all that isn't a hole; its corner is part of it.
    background = np.pad(parts != largest, 1, constant_values=True)
    _, gaps = cv2.connectedComponents(background.astype(np.uint8), connectivity=4)
    filled: npt.NDArray[np.bool_] = gaps[1:-1, 1:-1] != gaps[0, 0]
    return filled


def share_outside(region: Region, box_xyxy: BoxXyxy) -> float:
    """The share of a non-empty mask's pixels outside a box, in [0, 1]; a pixel that the box cuts is inside."""
    x0, y0, x1, y1 = box_xyxy
    left, top = max(0, int(np.floor(x0)) - region.left), max(0, int(np.floor(y0)) - region.top)
    right, bottom = max(0, int(np.ceil(x1)) - region.left), max(0, int(np.ceil(y1)) - region.top)
    return 1 - np.count_nonzero(region.mask[top:bottom, left:right]) / np.count_nonzero(region.mask)


def without_duplicates(
    instances: Sequence[Instance], iou_threshold: float, containment_threshold: float
) -> tuple[Instance, ...]:
    """The instances of an image whose mask doesn't repeat a higher-scored one of the same prompt, in their order.

    Instances without a mask are dropped. For the thresholds see `masks_kept_by_group`.
    """
    masked = [(one, one.mask) for one in instances if one.mask is not None]
    kept = masks_kept_by_group(
        [mask for _, mask in masked],
        [one.detection.score for one, _ in masked],
        [one.detection.prompt for one, _ in masked],
        iou_threshold,
        containment_threshold,
    )
    return tuple(masked[index][0] for index in sorted(kept))


def load_segmenter(
    source: Path,
    device: torch.device,
    dtype: torch.dtype,
    settings: SegmentSettings = SegmentSettings(),  # noqa: B008  (frozen, so one for all calls is safe)
    kernels: Kernels | None = None,
) -> SamSegmenter:
    """A segmenter on its device; `dtype` is that of its image encoder, `kernels` None for the fastest there.

    `source` is an official `.pth`, the same tensors as `.safetensors`, a folder that `sam.build.save_sam` wrote, or one
    of SAM, SAM-HQ or SAM 2 in transformers' layout.
    """
    use_exact_float32(device)
    with out_of_memory_as_device_error("loading the segmenter", "Use a smaller one, or --device cpu."):
        network = load_network(source, device, dtype, kernels=kernels, compiled=settings.compile)
    return SamSegmenter(network, settings)
