"""What a training is measured on: the loss of fixed questions, and the answers to questions about every class."""

from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.train.data.records import Question
from grounded_seg.train.data.samples import ImageStore, QuestionDataset
from grounded_seg.train.measure.answers import answered
from grounded_seg.train.measure.metrics import Metric, figures_of


class Validation:
    """The questions that a training is measured on, always the same ones."""

    def __init__(
        self, dataset: QuestionDataset, asked: Sequence[Question], images: ImageStore, metrics: Sequence[Metric]
    ) -> None:
        """Choose what is measured.

        Args:
            dataset: Of the loss.
            asked: Questions whose answers are generated at the end of each epoch.
            images: Where their images come from.
            metrics: Figures beyond the built-in ones.
        """
        self._dataset = dataset
        self._asked = asked
        self._images = images
        self._metrics = metrics
        self.generates = False
        """Whether answers are due as well; `callbacks.Rhythm` sets it."""

    def batches(self, collator: Any, size: int) -> DataLoader[Any]:
        """Give the batches for the loss."""
        return DataLoader(self._dataset, batch_size=size, collate_fn=collator)

    def figures(self, florence: FlorenceModel) -> dict[str, float]:
        """Generate the answers and measure them; nothing where that isn't due."""
        if not self.generates:
            return {}
        return figures_of(list(answered(florence, self._asked, self._images)), self._metrics)
