"""What goes into the engine and what comes out of it: a request for each image, an outcome for each request."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeAlias, TypeVar

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageSize, ImageSkipped, Instance, Location
from grounded_seg.settings import MAX_PIXELS

Made = TypeVar("Made")
"""What the per-image function makes of an image."""


@dataclass(frozen=True, eq=False)
class Request:
    """One image to look at."""

    index: int
    """Its position in the list of images, from 0."""
    name: str
    """Its name in the results: relative to the root of the images, POSIX."""
    path: Location
    prompts: PromptSet
    size: ImageSize | None = None
    """The upright size that it has to have; None for any."""
    boxes: tuple[Detection, ...] | None = None
    """Boxes to segment beside the detector's, in pixels of the image, cut to it; None for none."""
    group: int = 0
    """Index of the first image of its group, such as the images of one tar. A batch never has images of two groups."""
    is_known: bool = False
    """Its outcome is known from an earlier run: it only completes its batch, and no outcome comes of it."""


@dataclass(frozen=True, eq=False)
class Processed:
    """An image and what the models made of it, while its pixels are at hand."""

    request: Request
    image: Image | None
    """None where it was skipped."""
    result: PromptedResult | ImageSkipped
    given: tuple[Instance, ...] | None
    """The instances of `Request.boxes`; None where there are no such boxes."""
    seconds: Mapping[str, float]
    """Of each stage: `read`, `detect`, `segment`, and `true_boxes` for given boxes."""


PerImage: TypeAlias = Callable[..., Made]
"""What is done with each image, a `Processed`, where its pixels are: module-level or a `partial` of it, so that it can
be pickled. One that writes files takes the folder for them as `output`."""


@dataclass(frozen=True, eq=False)
class Outcome(Generic[Made]):
    """What came of one request."""

    request: Request
    made: Made
    """By the per-image function."""
    n_empty_masks: int
    n_unusable_boxes: int
    seconds: Mapping[str, float]
    """Those of `Processed`, and `write` for the per-image function."""
    n_at_once: int
    """Images that went through the models together: the batch size, or less where memory was too small."""
    files: tuple[tuple[str, bytes], ...] = ()
    """What the per-image function wrote where `Work.output` is out of reach: paths in that folder, POSIX; contents."""


@dataclass(frozen=True)
class Work(Generic[Made]):
    """How the images of many requests are worked through."""

    per_image: PerImage[Made]
    batch_size: int = 1
    n_at_once: int | None = None
    """Images that go through the models together at first; None for the batch size."""
    max_pixels: int = MAX_PIXELS
    """Width x height above which an image isn't read."""
    skips: bool = True
    """An image that can't be read is skipped; otherwise it ends the work."""
    output: Path | None = None
    """Folder that the per-image function writes into; None if it writes no files."""
