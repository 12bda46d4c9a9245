"""The records that flow through the pipeline: `Image` -> `Detection` -> `Instance` -> `ImageResult`.

They are frozen and know nothing of models or files. Records that hold an array compare by identity.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit, urlunsplit

import numpy as np
import numpy.typing as npt

from grounded_seg.geometry.run_length import BoxXyxy as BoxXyxy
from grounded_seg.geometry.run_length import ImageSize as ImageSize
from grounded_seg.geometry.run_length import RunLength as RunLength


@dataclass(frozen=True, repr=False)
class Address:
    """A place in storage elsewhere, such as s3://BUCKET/KEY or https://HOST/NAME.

    It is no path, and nothing takes it for one: a library that is given `s3:/BUCKET/KEY` looks on this disk.
    """

    url: str
    """The whole address, which may hold a signature."""

    @property
    def scheme(self) -> str:
        """Such as s3."""
        return self.url.partition("://")[0]

    @property
    def name(self) -> str:
        """The last part."""
        return str(self).rstrip("/").rpartition("/")[2]

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __str__(self) -> str:
        """The address as it may be shown and stored: without what a web address carries of signatures and passwords."""
        if self.scheme not in ("http", "https"):
            return self.url
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@dataclass(frozen=True)
class TarMember:
    """An image within a tar."""

    tar: "Path | Address"
    member: str
    """Its name in the results, within the tar."""
    offset: int
    """Position of its first byte in the tar."""
    n_bytes: int

    @property
    def name(self) -> str:
        """The last part."""
        return self.member.rpartition("/")[2]

    def __str__(self) -> str:
        return f"{self.tar}/{self.member}"


@dataclass(frozen=True)
class DamagedTar:
    """A tar that can't be read to its end: it stands for the images that would follow, and is skipped."""

    tar: "Path | Address"
    reason: str

    @property
    def name(self) -> str:
        """The last part."""
        return self.tar.name

    def __str__(self) -> str:
        return str(self.tar)


Location: TypeAlias = Path | Address | TarMember | DamagedTar
"""Where an image is. All have a `name`, are shown by `str`, and can be pickled."""


@dataclass(frozen=True, eq=False)
class Image:
    """One decoded image, upright; its pixels are RGB, (height, width, 3)."""

    path: Location
    pixels: npt.NDArray[np.uint8]

    @property
    def size(self) -> ImageSize:
        """Width and height in pixels."""
        return ImageSize(width=self.width, height=self.height)

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.pixels.shape[1])

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.pixels.shape[0])


@dataclass(frozen=True)
class Detection:
    """One box that the detector found."""

    label: str
    """The model's own words for the object."""
    prompt: str
    box_xyxy: BoxXyxy
    score: float
    """In [0, 1]; with a calibration, the probability that the box is right."""
    detector_score: float | None = None
    """The detector's own score where `score` is a probability; None where they are one."""


@dataclass(frozen=True)
class Instance:
    """A detection with its mask."""

    detection: Detection
    mask: RunLength | None
    """The mask at the image's own size, never empty; None where only boxes were asked for."""
    mask_score: float | None
    """The segmenter's own estimate of the mask's IoU with the truth, in [0, 1]."""
    leaves_box: bool = False
    """More of the mask than `SegmentSettings.outside_share` lies outside the detector's box."""

    @property
    def box_xyxy(self) -> BoxXyxy:
        """The detector's box."""
        return self.detection.box_xyxy

    @property
    def score(self) -> float:
        """The detector's score, in [0, 1]; with a calibration, the probability that the box is right."""
        return self.detection.score

    @property
    def label(self) -> str:
        """The detector's own words for the object."""
        return self.detection.label

    @property
    def prompt(self) -> str:
        """What was asked for."""
        return self.detection.prompt


@dataclass(frozen=True)
class ImageResult:
    """What was found on one image."""

    path: Location
    size: ImageSize
    instances: tuple[Instance, ...] = ()
    """In the order of the prompts, and from high to low score within a prompt."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Share of each stage in the run's time, in seconds; empty where it wasn't measured."""
    n_empty_masks: int = 0
    """Detections dropped because their mask came out empty, or smaller than `SegmentSettings.min_area`."""
    n_unusable_boxes: int = 0
    """Boxes dropped before they were segmented: not finite, without area, or outside the image."""


@dataclass(frozen=True)
class ImageSkipped:
    """An image that could not be processed."""

    path: Location
    reason: str
    error: str
    """The error's class name."""


@dataclass(frozen=True)
class Answer:
    """What one generated text of Florence-2 says, in pixels of the upright image."""

    boxes: tuple[Detection, ...] = ()
    polygons: tuple["LabelledPolygons", ...] = ()
    quads: tuple["LabelledQuad", ...] = ()
    text: str = ""
    """The whole text without special tokens, for tasks that answer with text."""


@dataclass(frozen=True)
class LabelledPolygons:
    """One object's outline, in one or more parts."""

    label: str
    polygons: tuple[tuple[tuple[float, float], ...], ...]
    """Each part is a ring of (x, y) pixels, not closed."""
    score: float = 1.0
    """In [0, 1]; 1 where the answer came without probabilities, here and in `LabelledQuad`."""


@dataclass(frozen=True)
class LabelledQuad:
    """A four-cornered region with its text, as OCR gives it."""

    label: str
    quad: tuple[tuple[float, float], tuple[float, float], tuple[float, float], tuple[float, float]]
    """(x, y) pixels in reading order from the top left."""
    score: float = 1.0
