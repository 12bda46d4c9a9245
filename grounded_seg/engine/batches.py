"""Fixed batches: cut by position, and halved where the device's memory is too small.

`batch_ranges` is the one function that maps a list of images to batches: runs, resumed runs and shards all use it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice, pairwise
from typing import TypeVar

from grounded_seg.device.memory import halving
from grounded_seg.engine.request import Processed, Request
from grounded_seg.errors import UsageError
from grounded_seg.geometry.boxes import areas_px, array_from_boxes, clip
from grounded_seg.images.read import read_or_skip, read_sized
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, ImageSkipped, Instance
from grounded_seg.settings import MAX_PIXELS

_LOG = logging.getLogger(__name__)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, eq=False)
class ReadImage:
    """A request with its image, as far as that could be read."""

    request: Request
    image: Image | ImageSkipped
    seconds: float


def batch_ranges(n_images: int, size: int, group_starts: Sequence[int] = (0,)) -> Iterator[range]:
    """Give the indices of each batch of a list of images, in order; the last batch of each group may be short.

    Args:
        n_images: Length of the list.
        size: Images in a full batch.
        group_starts: Index of the first image of each group, such as the images of one tar: 0 first, rising. A batch
            never has images of two groups.

    Raises:
        UsageError: If the size is below 1.

    >>> list(batch_ranges(5, 2, (0, 3)))
    [range(0, 2), range(2, 3), range(3, 5)]
    """
    _check_size(size)
    for first, end in pairwise((*group_starts, n_images)):
        for start in range(first, end, size):
            yield range(start, min(start + size, end))


def batches(
    items: Iterable[_Item], size: int, group: Callable[[_Item], object] = lambda _: 0
) -> Iterator[tuple[_Item, ...]]:
    """Cut items into batches by position, the last one of each group may be short: what `batch_ranges` gives, as items.

    Args:
        items: Taken as they are needed.
        size: Items in a full batch.
        group: Tells an item's group. Items of one group stand together.

    Raises:
        UsageError: If the size is below 1.

    >>> list(batches("abcde", 2))
    [('a', 'b'), ('c', 'd'), ('e',)]
    >>> list(batches((1, 2, 3, 14, 15), 2, lambda item: item // 10))
    [(1, 2), (3,), (14, 15)]
    """
    _check_size(size)
    for _, together in groupby(items, group):
        while batch := tuple(islice(together, size)):
            yield batch


def _check_size(size: int) -> None:
    if size < 1:
        raise UsageError(f"batch-size is {size}, it must be at least 1")


def read_request(request: Request, *, max_pixels: int = MAX_PIXELS, skips: bool = True) -> ReadImage:
    """Read a request's image; where it can't be read, give the reason if it `skips`, else raise it."""
    started = time.perf_counter()
    read = read_or_skip if skips else read_sized
    image = read(request.path, max_pixels, request.size)
    return ReadImage(request, image, time.perf_counter() - started)


class BatchProcessor:
    """Sends batches through a chain, in halves from the first one on that is too much for the device's memory."""

    def __init__(self, chain: Chain, n_at_once: int, *, pads: bool = True) -> None:
        """Begin with so many images at once; a shorter batch is filled up to as many, unless it `pads` none."""
        self.n_at_once = n_at_once
        self._chain = chain
        self._pads = pads

    def process(self, batch: Sequence[ReadImage]) -> list[Processed]:
        """Process a batch, one record for each of its images in their order; what is skipped keeps its index.

        Raises:
            DeviceMemoryError: If there is no memory even for one image.
        """
        readable = [(one.request, one.image) for one in batch if isinstance(one.image, Image)]
        results = iter(self._in_parts(readable, self._results))
        boxed = [one for one in readable if one[0].boxes is not None]
        started = time.perf_counter()
        given = dict(zip((id(request) for request, _ in boxed), self._in_parts(boxed, self._given), strict=True))
        true_boxes = {"true_boxes": (time.perf_counter() - started) / len(boxed)} if boxed else {}
        processed = []
        for one in batch:
            seconds = {"read": one.seconds}
            if isinstance(one.image, Image):
                result = next(results)
                seconds |= result.seconds
                if id(one.request) in given:
                    seconds |= true_boxes
                instances = given.get(id(one.request))
                processed.append(Processed(one.request, one.image, result, instances, seconds))
            else:
                processed.append(Processed(one.request, None, one.image, None, seconds))
        return processed

    def _results(self, part: Sequence[tuple[Request, Image]]) -> list[PromptedResult]:
        images, prompts = [image for _, image in part], [request.prompts for request, _ in part]
        return self._chain.results(images, prompts, self.n_at_once if self._pads else 0)

    def _given(self, part: Sequence[tuple[Request, Image]]) -> list[tuple[Instance, ...]]:
        boxes = [_within(request.boxes or (), image) for request, image in part]
        return [one.instances for one in self._chain.segment([image for _, image in part], boxes)]

    def _in_parts(self, items: Sequence[_Item], work: Callable[[Sequence[_Item]], Sequence[_Result]]) -> list[_Result]:
        """Work on all items, so many at once as there is memory for."""

        def attempt(n_at_once: int) -> list[_Result]:
            if n_at_once < self.n_at_once:
                _LOG.warning("out of memory; continuing with %d images at a time", n_at_once)
                self.n_at_once = n_at_once
            return [result for part in batches(items, n_at_once) for result in work(part)]

        results, _ = halving(self.n_at_once, attempt)
        return results


def _within(boxes: Sequence[Detection], image: Image) -> list[Detection]:
    """Cut given boxes to the image; those without area are left out."""
    clipped = clip(array_from_boxes([one.box_xyxy for one in boxes]), image.size)
    return [
        Detection(one.label, one.prompt, (box[0], box[1], box[2], box[3]), one.score)
        for one, box, area in zip(boxes, clipped.tolist(), areas_px(clipped).tolist(), strict=True)
        if area > 0
    ]
