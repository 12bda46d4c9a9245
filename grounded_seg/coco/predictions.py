"""What was predicted about a data set, clean, whatever the file was like."""

from dataclasses import dataclass
from typing import Any

from grounded_seg.records import RunLength


@dataclass(frozen=True)
class Prediction:
    """One predicted object."""

    image_id: int
    """Of the data set."""
    category_id: int
    """Of the data set."""
    score: float
    box_xywh: tuple[float, float, float, float]
    """The detector's own box where it is known; x, y, width, height in pixels."""
    mask: RunLength | None
    prompt: str | None = None
    """The question that it answers, where that is known."""

    def as_result(self) -> dict[str, Any]:
        """Give it in COCO's result form, the mask as a record."""
        return {
            "image_id": self.image_id,
            "category_id": self.category_id,
            "score": self.score,
            "bbox": list(self.box_xywh),
            "segmentation": self.mask,
        }


@dataclass(frozen=True)
class PredictionFile:
    """What a file predicts about a data set."""

    predictions: tuple[Prediction, ...]
    asked: frozenset[str] | None
    """Names of the classes that were asked about; None where the file doesn't say."""
    notes: tuple[str, ...]

    @property
    def has_masks(self) -> bool:
        """Whether any has a mask."""
        return any(one.mask is not None for one in self.predictions)
