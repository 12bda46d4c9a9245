"""Settings of an export as one frozen record: what is taken from which file, and in which form it is written."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from grounded_seg.setting_types import NonNegativeFloat, Share, convert_fields, refuse
from grounded_seg.settings import Reviewed


class LabelFormat(StrEnum):
    """A label format that `export` writes."""

    COCO = "coco"
    YOLO = "yolo"
    VOC = "voc"
    LABELME = "labelme"
    LABELSTUDIO = "labelstudio"
    CVAT = "cvat"
    FIFTYONE = "fiftyone"
    MASKS = "masks"


class MaskForm(StrEnum):
    """The form in which masks are written."""

    RLE = "rle"
    """Run lengths, or what the format has that is as exact."""
    POLYGON = "polygon"
    """Outlines: one for each part, holes joined by cuts."""
    BOTH = "both"
    """Two files, one of each."""
    NONE = "none"
    """Boxes only."""


class Pictures(StrEnum):
    """What an export does with the images."""

    NONE = "none"
    COPY = "copy"
    LINK = "link"


MASK_FORMS = dict.fromkeys(LabelFormat, (MaskForm.RLE, MaskForm.POLYGON, MaskForm.NONE)) | {
    LabelFormat.COCO: (MaskForm.RLE, MaskForm.POLYGON, MaskForm.BOTH, MaskForm.NONE),
    LabelFormat.YOLO: (MaskForm.POLYGON, MaskForm.NONE),
    LabelFormat.VOC: (MaskForm.NONE,),
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
    min_score: Share = 0.0
    """Labels with a lower score are left out; those without a score are kept."""
    classes: tuple[str, ...] = ()
    """The only classes exported; none for all."""
    split: tuple[int, ...] = ()
    """Shares of train, valid and test, or of train and valid; none for no split."""
    seed: int = 0
    tolerance_px: NonNegativeFloat = 0.0
    """Largest distance between a simplified polygon and the exact one; 0 keeps every corner."""
    images: Path | None = None
    """The folder that the file names are relative to; None to take it from the run."""
    pictures: Pictures = Pictures.NONE
    reviewed: Reviewed | None = None
    """Which instances of a reviewed run are exported; None for all, whatever was decided."""

    def __post_init__(self) -> None:
        problems = convert_fields(self, {"format": "to", "form": "seg", "tolerance_px": "tolerance"})
        if self.split and (len(self.split) not in (2, 3) or min(self.split) < 0 or sum(self.split) <= 0):
            shown = "/".join(map(str, self.split))
            problems.append(f"split is {shown}, it must be two or three shares, as in 80/20 or 80/10/10")
        if isinstance(self.format, LabelFormat) and self.mask_form not in MASK_FORMS[self.format]:
            room = ", ".join(MASK_FORMS[self.format])
            problems.append(f"seg is {self.mask_form}, for {self.format} it must be one of {room}")
        refuse(problems)

    @property
    def mask_form(self) -> MaskForm:
        """The form asked for, or the format's default."""
        return self.form or MASK_FORMS[self.format][0]
