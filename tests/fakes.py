"""A detector and a segmenter that need no weights: they find painted rectangles by the name of their colour."""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.schema import JournalLine
from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.pipeline.load import FoundModels, RunsOn
from grounded_seg.records import Detection, Image, ImageResult, Instance
from grounded_seg.runs.manifest import Counts
from grounded_seg.scoring.score_maps import check_calibration, read_calibration
from grounded_seg.settings import ModelSettings

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
    """Stands for `device.choose.Versions`, which imports torch."""

    torch: str = "2"


@dataclass(frozen=True)
class FakeKernels:
    """Stands for `device.kernels.Kernels`, which imports torch."""

    attention: str = "fused"


@dataclass(frozen=True)
class FakeWeights:
    """Stands for `weights.locate.LocatedWeights`, which imports the hub's library."""

    path: Path
    name: str
    revision: str | None
    sha256: str

    @classmethod
    def named(cls, name: str) -> "FakeWeights":
        return cls(Path(name), name, None, hashlib.sha256(name.encode()).hexdigest())


def found_models(
    models: ModelSettings,
    *,
    boxes_only: bool = False,
    progress: object = None,
    runs_on: RunsOn | None = None,
    compiled: bool = False,
) -> FoundModels:
    """Stand for `pipeline.load.find_models`: every name has weights of its own, and only a calibration is on disk."""
    detector = FakeWeights.named(models.detector or models.preset)
    adapter = FakeWeights.named(models.adapter) if models.adapter else None
    calibration = None if models.calibration is None else read_calibration(models.calibration)
    if calibration is not None:
        check_calibration(calibration, detector, adapter, allow_mismatch=models.allow_base_mismatch)
    return FoundModels(
        detector=detector,  # type: ignore[arg-type]
        adapter=adapter,  # type: ignore[arg-type]
        calibration=calibration,
        segmenter=None if boxes_only else FakeWeights.named(models.segmenter or models.preset),  # type: ignore[arg-type]
        device="cpu" if models.device == "auto" else models.device,
        dtype="float32" if models.dtype == "auto" else str(models.dtype),
        threads=1,
        versions=FakeVersions(),  # type: ignore[arg-type]
        workers=() if runs_on is None else runs_on.workers,
        kernels=FakeKernels(),  # type: ignore[arg-type]
    )


class ColourDetector:
    """Finds the rectangle of the colour that a prompt begins with; remembers the sizes of its batches."""

    def __init__(self) -> None:
        self.batch_sizes: list[int] = []
        self.first_images: list[str] = []
        """Name of each batch's first image."""

    def detect(
        self,
        images: Sequence[Image],
        prompts: Sequence[str],
        class_names: Sequence[str] | None = None,
        *,
        asked: Sequence[Collection[str]] | None = None,
    ) -> list[tuple[Detection, ...]]:
        self.batch_sizes.append(len(images))
        self.first_images.append(images[0].path.name)
        each = [prompts if asked is None else [one for one in prompts if one in some] for some in asked or images]
        return [
            tuple(found for prompt in some for found in self._find(image, prompt))
            for image, some in zip(images, each, strict=True)
        ]

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

    def segment(self, images: Sequence[Image], detections: Sequence[Sequence[Detection]]) -> list[ImageResult]:
        return [self._segment(image, found) for image, found in zip(images, detections, strict=True)]

    @staticmethod
    def _segment(image: Image, detections: Sequence[Detection]) -> ImageResult:
        instances = []
        for detection in detections:
            x0, y0, x1, y1 = (round(edge) for edge in detection.box_xyxy)
            mask = np.zeros((image.height, image.width), dtype=np.bool_)
            mask[y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = True
            if mask.any():
                instances.append(Instance(detection, run_length_from_mask(mask), mask_score=0.75))
        n_empty_masks = len(detections) - len(instances)
        return ImageResult(image.path, image.size, tuple(instances), n_empty_masks=n_empty_masks)


class Silent:
    """Watches without a word."""

    def started(self, n_images: int, counts: Counts) -> None:
        self.n_done, self.n_found, self.n_skipped = counts.n_images, counts.n_instances, counts.n_skipped

    def finished_image(self, line: JournalLine) -> None:
        pass
