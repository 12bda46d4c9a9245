"""The keys of a COCO file and of a journal line, and COCO's box format.

Section "Data format" of https://cocodataset.org is the source of the common keys. `score` is that of COCO's result
format; `detector_bbox` and `attributes` are ours, and other readers pass over them. Boxes are x, y, width, height in
pixels, scores in [0, 1], ids count from 1.
"""

from typing import Any, Literal, NotRequired, TypeAlias, TypedDict

from grounded_seg.geometry.masks import CompressedMask
from grounded_seg.records import BoxXyxy

Kind: TypeAlias = Literal["bbox", "segm"]
"""Boxes or masks, in COCO's words."""
SECTIONS = ("images", "categories", "annotations")
"""The lists that a data set can't do without."""


class Attributes(TypedDict):
    """The models' own words and scores for an instance."""

    label: str
    """The detector's words for the object."""
    prompt: str
    detector_score: float
    """The detector's own, also where `score` is a probability."""
    mask_score: float | None
    """The segmenter's estimate of its mask's IoU; None where only boxes were asked for."""
    leaves_box: NotRequired[Literal[True]]
    """Set where much of the mask lies outside the detector's box: worth a look."""


class JournalInstance(TypedDict):
    """One instance as the journal holds it: an annotation without ids."""

    bbox: list[float]
    """The tight box of the mask, or the detector's where there is no mask."""
    area: float
    """The mask's number of pixels, or the box's area where there is no mask."""
    segmentation: CompressedMask | list[list[float]]
    """The mask; an empty list where there is none."""
    iscrowd: Literal[0]
    score: float
    detector_bbox: list[float]
    attributes: Attributes


class CocoAnnotation(JournalInstance):
    """One instance of a COCO file."""

    id: int
    image_id: int
    category_id: int


class CocoImage(TypedDict):
    """One image of a COCO file, upright."""

    id: int
    file_name: str
    """Relative to the images' folder, POSIX."""
    width: int
    height: int


class CocoCategory(TypedDict):
    """One class of a COCO file."""

    id: int
    name: str


class CocoDocument(TypedDict):
    """A whole COCO file."""

    info: dict[str, str]
    """The tool and its version; no date, so that the same run gives the same bytes."""
    licenses: list[dict[str, Any]]
    """Empty: we don't know the images' licences."""
    categories: list[CocoCategory]
    images: list[CocoImage]
    annotations: list[CocoAnnotation]


class JournalLine(TypedDict):
    """One line of `results.jsonl`: the outcome of one input."""

    file_name: str
    status: Literal["done", "skipped"]
    width: int | None
    """Of the upright image, in pixels; None for a skipped one."""
    height: int | None
    instances: list[JournalInstance]
    reason: str | None
    """Why it was skipped, one line; None for a done one, as is `error`."""
    error: str | None
    """The error's class name."""


def xywh_from_xyxy(box_xyxy: BoxXyxy) -> tuple[float, float, float, float]:
    """COCO's box of the package's: left, top, width, height in pixels.

    >>> xywh_from_xyxy((10.0, 20.0, 15.0, 40.0))
    (10.0, 20.0, 5.0, 20.0)
    """
    x0, y0, x1, y1 = box_xyxy
    return (x0, y0, x1 - x0, y1 - y0)


def xyxy_from_xywh(box_xywh: tuple[float, float, float, float]) -> BoxXyxy:
    """The package's box of COCO's: left, top, right, bottom in pixels, half-open.

    >>> xyxy_from_xywh((10.0, 20.0, 5.0, 20.0))
    (10.0, 20.0, 15.0, 40.0)
    """
    x, y, width, height = box_xywh
    return (x, y, x + width, y + height)
