"""The result of one image that a caller gets, and the forms that it can be had in."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.records import Image, ImageResult

if TYPE_CHECKING:
    import supervision

    from grounded_seg.coco.schema import CocoDocument


@dataclass(frozen=True, kw_only=True)
class PromptedResult(ImageResult):
    """What was found on one image, and what had been asked.

    The modules of the forms are imported as they are asked for: a record needs neither Pillow nor OpenCV.
    """

    prompts: PromptSet

    @classmethod
    def of(cls, found: ImageResult, seconds: Mapping[str, float], prompts: PromptSet) -> "PromptedResult":
        """Add to what was found on an image the seconds of each stage, and what had been asked."""
        return cls(**vars(replace(found, seconds=seconds)), prompts=prompts)

    def to_coco(self) -> "CocoDocument":
        """Give the image's COCO data set, as in `annotations.json`; its `file_name` is the path's last part."""
        from grounded_seg.coco.write import document_from_lines, journal_line

        line = journal_line(self.path.name, self)
        return document_from_lines([line], self.prompts.classes, self.prompts.class_by_prompt)

    def to_supervision(self) -> "supervision.Detections":
        """Give the instances as supervision's `Detections`; classes count from 0 in the order asked.

        Raises:
            UsageError: If the package supervision isn't installed; it isn't among what this one installs.
        """
        from grounded_seg.pipeline.supervision import detections_from_result

        return detections_from_result(self, self.prompts.classes, self.prompts.class_by_prompt)

    def draw(self, image: Image | None = None) -> npt.NDArray[np.uint8]:
        """Draw boxes and masks on a copy of the image, (height, width, 3) RGB.

        Args:
            image: The image asked about; read again from `path` if it isn't given.

        Raises:
            ImageError: If the file can't be read again.
        """
        from grounded_seg.images.draw import draw
        from grounded_seg.images.read import read_image

        return draw(read_image(self.path) if image is None else image, self, self.prompts.prompts)
