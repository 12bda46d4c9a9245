"""Ask the models about one batch after the other, with fewer images at once where the memory is too small."""

import logging
from collections.abc import Callable, Sequence

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.errors import DeviceMemoryError
from grounded_seg.pipeline import GroundedSegmenter
from grounded_seg.reading import batches
from grounded_seg.records import Image, ImageSkipped
from grounded_seg.results import PromptedResult

_LOG = logging.getLogger(__name__)


class BatchAsker:
    """Asks about batches; one that is too much for the device's memory goes through in halves, as do those after it."""

    def __init__(self, segmenter: GroundedSegmenter, prompts: PromptSet, n_at_once: int) -> None:
        """Put models and questions together.

        Args:
            segmenter: The models.
            prompts: What is asked about each image.
            n_at_once: Images that go through the models together, at first.
        """
        self.n_at_once = n_at_once
        self._segmenter = segmenter
        self._prompts = prompts

    def ask(
        self, batch: Sequence[Image | ImageSkipped], halved: Callable[[], None]
    ) -> list[PromptedResult | ImageSkipped]:
        """Ask about the readable images of a batch; the skipped ones keep their places.

        Args:
            batch: As many images as `n_at_once` was at first, or fewer.
            halved: Called after `n_at_once` was lowered, before the batch is tried again.

        Raises:
            DeviceMemoryError: If there is no memory even for one image.
        """
        while (outcomes := self._outcomes(batch)) is None:
            _LOG.warning("out of memory; going on with %d at a time", self.n_at_once)
            halved()
        return outcomes

    def _outcomes(self, batch: Sequence[Image | ImageSkipped]) -> list[PromptedResult | ImageSkipped] | None:
        """Ask about a batch; None if the memory was too small, and is tried again with less."""
        try:
            return [
                outcome
                for part in batches(batch, self.n_at_once)
                for outcome in self._segmenter.segment_readable(part, self._prompts, self.n_at_once)
            ]
        except DeviceMemoryError:
            if self.n_at_once == 1:
                raise
            self.n_at_once //= 2
        # This imports torch, which takes seconds; models that run out of memory have done so already.
        from grounded_seg.runtime import free_memory

        # Only here, outside of the handler, are the failed attempt's tensors gone.
        free_memory()
        return None
