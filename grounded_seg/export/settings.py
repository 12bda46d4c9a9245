"""Options of an export as frozen records: what is taken from which file, and in which form it is written."""

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from grounded_seg.errors import UsageError


class LabelFormat(StrEnum):
    """What `export` writes."""

    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    LABELME = "labelme"
    LABELSTUDIO = "labelstudio"
    CVAT = "cvat"
    FIFTYONE = "fiftyone"
    MASKS = "masks"


class MaskForm(StrEnum):
    """How masks are written."""

    RLE = "rle"
    """Run lengths, or what the format has that is as exact."""
    POLYGON = "polygon"
    """Outlines: one for each part, holes joined by cuts."""
    BOTH = "both"
    """Two files, one of each."""
    NONE = "none"
    """Boxes only."""


class Pictures(StrEnum):
    """What becomes of the images in an export."""

    NONE = "none"
    COPY = "copy"
    LINK = "link"


MASK_FORMS = {
    LabelFormat.COCO: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.BOTH, MaskForm.NONE),
    LabelFormat.YOLO: (MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.VOC: (MaskForm.NONE,),
    LabelFormat.LABELME: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.LABELSTUDIO: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.CVAT: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.FIFTYONE: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.MASKS: (MaskForm.RLE,),
}
"""The forms that each format has room for, its default first."""


@dataclass(frozen=True)
class ExportSettings:
    """One `export`: what is taken from which file, and what is written."""

    source: Path
    """A run's folder, or a COCO file."""
    output: Path
    """A folder that is empty or not there yet."""
    format: LabelFormat
    form: MaskForm | None = None
    """None for the format's default."""
    min_score: float = 0.0
    """Labels with a lower score are left out; those without a score are kept."""
    classes: tuple[str, ...] = ()
    """Only these; none for all."""
    split: tuple[int, ...] = ()
    """Shares of train, valid and test, or of train and valid; none for one whole."""
    seed: int = 0
    """Of the split."""
    tolerance_px: float = 0.0
    """How far a simplified polygon may stray; 0 keeps every corner."""
    images: Path | None = None
    """The folder that the file names are relative to; None to take it from the run."""
    pictures: Pictures = Pictures.NONE

    def __post_init__(self) -> None:
        """Refuse values out of range, and forms that the format has no room for."""
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min-score is {self.min_score}, it has to be from 0 to 1")
        if not 0 <= self.tolerance_px < math.inf:
            raise UsageError(f"tolerance is {self.tolerance_px}, it has to be 0 or more pixels")
        if self.split and (len(self.split) not in (2, 3) or min(self.split) < 0 or sum(self.split) <= 0):
            raise UsageError(
                "split has to be shares of train and valid, or of train, valid and test, as 80/20 or 80/10/10"
            )
        if self.mask_form not in MASK_FORMS[self.format]:
            room = ", ".join(MASK_FORMS[self.format])
            raise UsageError(f"seg {self.mask_form} is not for {self.format}; it takes {room}")

    @property
    def mask_form(self) -> MaskForm:
        """The form asked for, or the format's default."""
        return self.form or MASK_FORMS[self.format][0]
