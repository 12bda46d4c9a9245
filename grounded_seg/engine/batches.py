"""Ask the models about one batch after the other, with fewer images at once where the memory is too small."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.read_ahead import batches
from grounded_seg.errors import DeviceMemoryError
from grounded_seg.pipeline.chain import GroundedSegmenter
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image, ImageSkipped

_LOG = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Outcome = TypeVar("_Outcome")


def _ignore() -> None:
    """Nobody asked to be told."""


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
        self, batch: Sequence[Image | ImageSkipped], halved: Callable[[], None] = _ignore
    ) -> list[PromptedResult | ImageSkipped]:
        """Ask about the readable images of a batch; the skipped ones keep their places.

        Args:
            batch: As many images as `n_at_once` was at first, or fewer.
            halved: Called after `n_at_once` was lowered, before the batch is tried again.

        Raises:
            DeviceMemoryError: If there is no memory even for one image.
        """
        return self.in_parts(
            batch, lambda part: self._segmenter.segment_readable(part, self._prompts, self.n_at_once), halved
        )

    def in_parts(
        self,
        items: Sequence[_Item],
        ask: Callable[[Sequence[_Item]], Sequence[_Outcome]],
        halved: Callable[[], None] = _ignore,
    ) -> list[_Outcome]:
        """Ask the models about anything else in the same way, as many at once as there is memory for.

        Args:
            items: What is asked about.
            ask: Gives the outcome of each item of a part.
            halved: As for `ask`.

        Raises:
            DeviceMemoryError: If there is no memory even for one.
        """
        while (outcomes := self._outcomes(items, ask)) is None:
            _LOG.warning("out of memory; going on with %d at a time", self.n_at_once)
            halved()
        return outcomes

    def _outcomes(
        self, items: Sequence[_Item], ask: Callable[[Sequence[_Item]], Sequence[_Outcome]]
    ) -> list[_Outcome] | None:
        """Ask about a batch; None if the memory was too small, and is tried again with less."""
        try:
            return [outcome for part in batches(items, self.n_at_once) for outcome in ask(part)]
        except DeviceMemoryError:
            if self.n_at_once == 1:
                raise
            self.n_at_once //= 2
        # This imports torch, which takes seconds; models that run out of memory have done so already.
        from grounded_seg.device.memory import free_memory

        # Only here, outside of the handler, are the failed attempt's tensors gone.
        free_memory()
        return None
