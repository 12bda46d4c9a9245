"""The result of one image that a caller gets, and the forms that it can be had in."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import OutputError, UsageError
from grounded_seg.pipeline.arrays import ArrayResult
from grounded_seg.records import Image, ImageResult

if TYPE_CHECKING:
    import pandas
    import supervision

    from grounded_seg.coco.schema import CocoDocument

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp")
"""What `save` writes the overlay as."""
_LONGEST_SIDES_PX = {".jpg": 65_500, ".jpeg": 65_500, ".webp": 16_383}
"""The most that the formats take; the others take any image."""


@dataclass(frozen=True, kw_only=True, repr=False)
class PromptedResult(ArrayResult):
    """What was found on one image, and what had been asked.

    `ArrayResult` has its length, choices and arrays.

    The modules of the forms are imported as they are asked for: a record needs neither Pillow nor OpenCV.
    """

    @classmethod
    def of(cls, found: ImageResult, seconds: Mapping[str, float], asked: PromptSet) -> "PromptedResult":
        """Add to what was found on an image the seconds of each stage, and what had been asked."""
        return cls(**vars(replace(found, seconds=seconds)), asked=asked)

    def to_coco(self) -> "CocoDocument":
        """Give the image's COCO data set, as in `annotations.json`; its `file_name` is the path's last part."""
        from grounded_seg.coco.write import document_from_lines, journal_line

        line = journal_line(self.path.name, self)
        return document_from_lines([line], self.asked.classes, self.asked.class_by_prompt)

    def to_supervision(self) -> "supervision.Detections":
        """Give the instances as supervision's `Detections`; classes count from 0 in the order asked.

        Raises:
            UsageError: If the package supervision isn't installed; it isn't among what this one installs.
        """
        from grounded_seg.pipeline.forms import detections_from_result

        return detections_from_result(self)

    def to_pandas(self) -> "pandas.DataFrame":
        """Give a table with a row for each instance: path, prompt, class, label, scores, box, and area of the mask.

        Raises:
            UsageError: If the package pandas isn't installed; it isn't among what this one installs.
        """
        from grounded_seg.pipeline.forms import frame_from_result

        return frame_from_result(self)

    def draw(self, image: Image | None = None) -> npt.NDArray[np.uint8]:
        """Draw boxes and masks on a copy of the image, (height, width, 3) RGB.

        Args:
            image: The image asked about; if it isn't given, that in memory, or else it is read again from `path`.

        Raises:
            ImageError: If the file can't be read again.
        """
        from grounded_seg.images.draw import draw
        from grounded_seg.images.read import read_image

        return draw(image or self.image or read_image(self.path), self, self.asked.prompts)

    def save(self, path: Path | str) -> Path:
        """Write the result to a file, by its ending: .json as COCO, .jpg, .png and other picture endings as overlay.

        Folders that are missing are made, an older file is replaced. The JSON is that of `to_coco`, with the bytes that
        `run` writes for this image alone.

        Returns:
            The path.

        Raises:
            UsageError: If the ending is of neither kind.
            ImageError: If the image can't be read again for the overlay.
            OutputError: If the file can't be written.
        """
        from grounded_seg.coco.write import journal_line, write_annotations
        from grounded_seg.files import as_output_error, whole_file
        from grounded_seg.images.draw import encoded_picture

        path = Path(path)
        ending = path.suffix.lower()
        if ending != ".json" and ending not in PICTURE_ENDINGS:
            raise UsageError(
                f"{path} ends neither in .json for COCO nor in {' '.join(PICTURE_ENDINGS)} for the overlay"
            )
        content = None
        if ending != ".json":
            if max(self.size.width, self.size.height) > _LONGEST_SIDES_PX.get(ending, sys.maxsize):
                raise UsageError(f"{ending} takes no picture of {self.size.width} x {self.size.height} px; name a .png")
            content = encoded_picture(self.draw(), ending)
        with as_output_error(path, "another file"):
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                line = journal_line(self.path.name, self)
                write_annotations([line], self.asked.classes, path, self.asked.class_by_prompt)
            else:
                with whole_file(path) as file:
                    file.write(content)
        return path

    def show(self) -> None:
        """Open the overlay in the system's viewer of pictures; a notebook shows a result without that.

        Raises:
            OutputError: If the system has no viewer.
        """
        from grounded_seg.images.draw import show_picture

        if not show_picture(self.draw(), self.path.name):
            raise OutputError('this system has no viewer of pictures; write one with result.save("overlay.jpg")')

    def __repr__(self) -> str:
        """Say on the first line what was asked about, on the second what was found."""
        from grounded_seg.pipeline.forms import summary_of

        return summary_of(self)

    def _repr_html_(self) -> str:
        """Show picture and table in a notebook."""
        from grounded_seg.pipeline.forms import html_from_result

        return html_from_result(self)
