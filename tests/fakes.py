"""A detector and a segmenter that need no weights: they find painted rectangles by the name of their colour."""

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.schema import JournalLine
from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.records import Detection, Image, Instance, SegmentedImage
from grounded_seg.runs.run import Outcome

COLOURS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}
BACKGROUND = (90, 90, 90)


def painted(width: int, height: int, **boxes_xyxy: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """A grey picture, (height, width, 3), with one rectangle per colour."""
    pixels = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    for colour, (x0, y0, x1, y1) in boxes_xyxy.items():
        pixels[y0:y1, x0:x1] = COLOURS[colour]
    return pixels


@dataclass(frozen=True)
class FakeVersions:
    """What stands for `runtime.Versions`, which imports torch."""

    torch: str = "2"


def found_models(detector_sha256: str = "0" * 64) -> Any:
    """Stand for `loading.FoundModels` of two models without an adapter."""
    detector = SimpleNamespace(name="fake detector", sha256=detector_sha256)
    segmenter = SimpleNamespace(name="fake segmenter", sha256="1" * 64)
    return SimpleNamespace(
        detector=detector,
        adapter=None,
        segmenter=segmenter,
        device="cpu",
        dtype="float32",
        threads=1,
        versions=FakeVersions(),
    )


class ColourDetector:
    """Finds the rectangle of the colour that a prompt begins with; remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None
    ) -> list[tuple[Detection, ...]]:
        self.batch_sizes.append(len(images))
        return [tuple(found for prompt in prompts for found in self._find(image, prompt)) for image in images]

    @staticmethod
    def _find(image: Image, prompt: str) -> list[Detection]:
        colour = prompt.split()[0]
        if colour not in COLOURS:
            return []
        rows, columns = np.nonzero((image.pixels == COLOURS[colour]).all(axis=2))
        if not len(rows):
            return []
        box = (float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1))
        # A third, so that rounding shows; the label is the model's own word, not the prompt.
        return [Detection(label=f"{colour} thing", prompt=prompt, box_xyxy=box, score=2 / 3)]


class InnerSegmenter:
    """Gives as mask the box without its outermost pixels, so that mask and box differ; empty for the smallest boxes."""

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[SegmentedImage]:
        return [self._segment(image, found) for image, found in zip(images, detections, strict=True)]

    @staticmethod
    def _segment(image: Image, detections: Sequence[Detection]) -> SegmentedImage:
        instances = []
        for detection in detections:
            x0, y0, x1, y1 = (round(edge) for edge in detection.box_xyxy)
            mask = np.zeros((image.height, image.width), dtype=np.bool_)
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
            if mask.any():
                instances.append(Instance(detection, run_length_from_mask(mask), mask_score=0.75))
        return SegmentedImage(tuple(instances), n_empty_masks=len(detections) - len(instances))


class Silent:
    """Watches without a word."""

    def started(self, n_images: int, n_done: int, n_found: int, n_skipped: int) -> None:
        self.n_done, self.n_found, self.n_skipped = n_done, n_found, n_skipped

    def finished_image(self, file_name: str, outcome: Outcome, line: JournalLine) -> None:
        pass
