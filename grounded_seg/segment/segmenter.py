"""`SamSegmenter`: boxes of a batch of images in, run-length encoded masks out."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch
from segment_anything.modeling import Sam

from grounded_seg.masks import run_length_from_mask
from grounded_seg.records import Detection, Image, ImageSize, Instance, SegmentedImage
from grounded_seg.runtime import out_of_memory_as_device_error
from grounded_seg.segment.frame import resized_boxes, resized_pixels, resized_size

BOXES_PER_CHUNK = 32
"""Boxes that go through the decoder together; at full size each takes some 30 MB of activations (float32)."""
MASK_PIXELS_PER_CHUNK = 16_000_000
"""Pixels of masks that exist as floats at the same time, at the image's size."""


class SamSegmenter:
    """Segment Anything, prompted with boxes.

    Encoder and decoder compute in `dtype`. The prompts' positions and the masks' upsampling stay in float32: both cost
    little, and a coordinate near 1000 is off by up to 2 pixels in bfloat16.
    """

    def __init__(self, sam: Sam, device: torch.device, dtype: torch.dtype) -> None:
        """Move `sam` to where it runs.

        Args:
            sam: The model; it is changed in place.
            device: Where it runs.
            dtype: Number format of encoder and decoder.
        """
        with out_of_memory_as_device_error("loading the segmenter", "Use a smaller one, or --device cpu."):
            sam.to(device=device, dtype=torch.float32)
            sam.image_encoder.to(dtype=dtype)
            sam.mask_decoder.to(dtype=dtype)
        self._sam = sam.eval()
        self._device = device
        self._dtype = dtype

    @torch.inference_mode()
    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[SegmentedImage]:
        """Turn each detection's box into a mask at its image's own size.

        The images with boxes go through the encoder together, those without cost nothing. The boxes of one image go
        through the decoder together. No images in, no images out.

        Args:
            images: The batch.
            detections: For each image its boxes, in pixels of that image.

        Returns:
            One record per image, instances in the order of the detections; a detection whose mask comes out empty is
            left out and counted. `mask_score` is the model's predicted IoU, clamped to [0, 1].

        Raises:
            ValueError: If there are more or fewer lists of detections than images, or a box isn't finite, has no area,
                or lies outside its image.
            DeviceError: If the device runs out of memory.
        """
        if len(images) != len(detections):
            raise ValueError(f"{len(images)} images, but detections for {len(detections)}")
        frames = [resized_size(image.size, self._sam.image_encoder.img_size) for image in images]
        boxes = [
            resized_boxes([detection.box_xyxy for detection in found], image.size, frame)
            for image, found, frame in zip(images, detections, frames, strict=True)
        ]
        segmented = [SegmentedImage() for _ in images]
        asked = [index for index, found in enumerate(detections) if found]
        if not asked:
            return segmented
        remedy = "Lower --batch-size, or use --device cpu."
        with out_of_memory_as_device_error(f"segmenting {len(asked)} images", remedy):
            embeddings = self._encode([images[index] for index in asked], [frames[index] for index in asked])
            for index, embedding in zip(asked, embeddings, strict=True):
                masks_and_scores = self._decode(embedding, boxes[index], frames[index], images[index].size)
                segmented[index] = _collect(detections[index], masks_and_scores)
        return segmented

    def _encode(self, images: Sequence[Image], frames: Sequence[ImageSize]) -> torch.Tensor:
        """Embed the images, (n, channels, grid, grid), in the encoder's number format."""
        # Sam.preprocess pads to the square, so images of any shape stack.
        squares = [
            self._sam.preprocess(
                torch.from_numpy(resized_pixels(image.pixels, frame)).to(self._device).permute(2, 0, 1)
            )
            for image, frame in zip(images, frames, strict=True)
        ]
        embeddings: torch.Tensor = self._sam.image_encoder(torch.stack(squares).to(self._dtype))
        return embeddings

    def _decode(
        self, embedding: torch.Tensor, boxes_xyxy: npt.NDArray[np.float32], frame: ImageSize, size: ImageSize
    ) -> Iterator[tuple[npt.NDArray[np.bool_], float]]:
        """Yield a mask (height, width) and a score for each box, holding a bounded number of them at a time.

        Args:
            embedding: One image's, (channels, grid, grid).
            boxes_xyxy: (n, 4) in pixels of the resized image.
            frame: Size of the resized image, without padding.
            size: Size of the image itself.
        """
        image_pe = self._sam.prompt_encoder.get_dense_pe().to(self._dtype)
        for chunk in torch.split(torch.from_numpy(boxes_xyxy).to(self._device), BOXES_PER_CHUNK):
            sparse, dense = self._sam.prompt_encoder(points=None, boxes=chunk, masks=None)
            logits, predicted_ious = self._sam.mask_decoder(
                image_embeddings=embedding.unsqueeze(0),
                image_pe=image_pe,
                sparse_prompt_embeddings=sparse.to(self._dtype),
                dense_prompt_embeddings=dense.to(self._dtype),
                multimask_output=False,
            )
            scores = predicted_ious[:, 0].float().clamp(0, 1).tolist()
            yield from zip(self._masks_from_logits(logits.float(), frame, size), scores, strict=True)

    def _masks_from_logits(
        self, logits: torch.Tensor, frame: ImageSize, size: ImageSize
    ) -> Iterator[npt.NDArray[np.bool_]]:
        """Upsample logits (n, 1, h, w) to the image's size and threshold them, few at a time."""
        # The original goes by way of the whole padded square, which is the larger one for a small image.
        largest = max(size.width * size.height, self._sam.image_encoder.img_size**2)
        for few in torch.split(logits, max(1, MASK_PIXELS_PER_CHUNK // largest)):
            upsampled = self._sam.postprocess_masks(
                few, input_size=(frame.height, frame.width), original_size=(size.height, size.width)
            )
            yield from (upsampled[:, 0] > self._sam.mask_threshold).cpu().numpy()


def _collect(
    detections: Sequence[Detection], masks_and_scores: Iterator[tuple[npt.NDArray[np.bool_], float]]
) -> SegmentedImage:
    """Encode the masks that hold anything, and count those that don't."""
    instances = [
        Instance(detection=detection, mask=run_length_from_mask(mask), mask_score=score)
        for detection, (mask, score) in zip(detections, masks_and_scores, strict=True)
        if mask.any()
    ]
    return SegmentedImage(instances=tuple(instances), n_empty_masks=len(detections) - len(instances))
