"""The rules of a COCO file: how bad it is where one is broken, and which reader says so.

Each reader was given a file with that fault by `tests/interop/try_quirks.py`, in the version that is named here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PYCOCOTOOLS = "pycocotools 2.0.11"
TORCHVISION = "torchvision 0.29.1's CocoDetection"
ULTRALYTICS = "Ultralytics 8.4.190's convert_coco"
YOLO_TRAINER = "Ultralytics 8.4.190's trainer"
SUPERVISION = "supervision 0.31.2"
DATUMARO = "CVAT's Datumaro 1.13.12"
LABEL_STUDIO = "Label Studio's converter 2.1.2"
X_ANYLABELING = "X-AnyLabeling 4.2.1"
FIFTYONE = "FiftyOne 1.22.1"


class Severity(StrEnum):
    """How bad a fault is: a reader stops at it or reads something else; or something gets lost or is odd."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True)
class Rule:
    """One rule, by the worst that comes of breaking it."""

    severity: Severity
    reader: str = ""
    """Who says so, with the version that was tried; empty where no reader is to blame."""
    effect: str = ""
    """What this reader does, as it follows on its name."""

    @property
    def because(self) -> str:
        """Reader and effect in one text; empty where there is none."""
        return f"{self.reader} {self.effect}".strip()


def _error(reader: str, effect: str = "stops") -> Rule:
    return Rule(Severity.ERROR, reader, effect)


def _warning(reader: str = "", effect: str = "") -> Rule:
    return Rule(Severity.WARNING, reader, effect)


RULES: Mapping[str, Rule] = {
    # The text.
    "not-json": _error(PYCOCOTOOLS),
    "trailing-data": _error(PYCOCOTOOLS),
    "byte-order-mark": _error(PYCOCOTOOLS),
    "not-utf8": _error(PYCOCOTOOLS),
    "half-surrogate": _error(DATUMARO),
    "not-a-number": _error(DATUMARO),
    "duplicate-key": _warning("", "every reader takes the last one"),
    # The sections.
    "wrong-top-level": _error(PYCOCOTOOLS),
    "missing-section": _error(DATUMARO),
    "section-not-a-list": _error(PYCOCOTOOLS),
    "record-not-an-object": _error(PYCOCOTOOLS),
    "captions": _error(ULTRALYTICS),
    # Ids and references.
    "id-missing": _error(PYCOCOTOOLS),
    "id-not-an-integer": _error(DATUMARO),
    "id-below-one": _warning("", "some programs keep 0 for the background"),
    "annotation-zero": _warning(PYCOCOTOOLS, "counts it as not found, whatever matches it"),
    "category-zero": _error(YOLO_TRAINER, "leaves the images out, as their class becomes -1"),
    "id-too-large": _warning("", "some programs hold ids in 64 bits"),
    "duplicate-id": _error(TORCHVISION, "gives the last one of that id for all"),
    "key-missing": _error(PYCOCOTOOLS),
    "unknown-image": _error(ULTRALYTICS),
    "unknown-category": _error(SUPERVISION),
    # Images and classes.
    "file-name-missing": _error(DATUMARO),
    "file-name-not-relative": _error(DATUMARO),
    "duplicate-file-name": _error(SUPERVISION),
    "same-base-name": _warning(X_ANYLABELING, "drops folders, and the labels of one image"),
    "size-missing": _error(ULTRALYTICS),
    "image-file-missing": _error(TORCHVISION),
    "image-file-unreadable": _error(TORCHVISION),
    "image-name-form": _warning("", "readers that compare letter by letter don't find it"),
    "image-size-wrong": _error(ULTRALYTICS, "places the boxes elsewhere"),
    "image-size-swapped": _error(ULTRALYTICS, "places the boxes elsewhere"),
    "size-looks-swapped": _warning(),
    "category-name-missing": _error(DATUMARO),
    "duplicate-category-name": _error(SUPERVISION),
    # Boxes and masks.
    "bbox-as-text": _error(PYCOCOTOOLS),
    "bbox-malformed": _error(PYCOCOTOOLS),
    "bbox-negative": _error(SUPERVISION),
    "bbox-empty": _warning(ULTRALYTICS, "leaves it out"),
    "bbox-outside": _warning("", "training pipelines cut it or drop it"),
    "bbox-beyond-image": _error(YOLO_TRAINER, "leaves the image out"),
    "bbox-normalized": _warning("", "readers take them for boxes within a pixel"),
    "bbox-off": _warning(),
    "segmentation-as-text": _error(PYCOCOTOOLS),
    "segmentation-malformed": _error(DATUMARO),
    "segmentation-missing": _warning(X_ANYLABELING, "stops where it reads outlines"),
    "polygon-malformed": _error(PYCOCOTOOLS),
    "polygon-outside": _warning("", "readers cut it at the border"),
    "rle-size-wrong": _error(SUPERVISION),
    "rle-damaged": _error(SUPERVISION),
    "mask-empty": _warning(PYCOCOTOOLS, "never finds it"),
    "area-malformed": _error(PYCOCOTOOLS, "stops in COCOeval"),
    "area-odd": _warning(PYCOCOTOOLS, "puts the object among the small or the large ones by it"),
    "area-off": _warning(PYCOCOTOOLS, "puts the object among the small or the large ones by it"),
    "iscrowd-wrong": _error(DATUMARO),
    "iscrowd-missing": _error(PYCOCOTOOLS, "stops in COCOeval"),
    "iscrowd-odd": _warning(),
    "crowd-with-polygons": _warning("", "readers leave crowds out when they measure or train"),
    "score-wrong": _error(DATUMARO),
    "score-odd": _warning(),
    "duplicate-annotation": _warning(ULTRALYTICS, "writes it once"),
    "reader": _warning(),
}
"""Every rule by name."""


@dataclass(frozen=True)
class Fault:
    """One place of a COCO file where a rule is broken."""

    rule: str
    """As `rle-size-wrong`."""
    place: str
    """A JSON path as `annotations[3].bbox`, or a line and column where there is no JSON."""
    message: str

    @property
    def severity(self) -> Severity:
        """The rule's."""
        return RULES[self.rule].severity

    def __str__(self) -> str:
        """The fault in one line, with the reader that makes it one."""
        because = RULES[self.rule].because
        return f"{self.severity} {self.rule}: {self.place}: {self.message}" + (f"; {because}" if because else "")
