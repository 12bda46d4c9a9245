"""Steps of the decoder recorded on a GPU and replayed: a small network's step is nearly all launches."""

import logging
from collections.abc import Callable
from functools import partial

import torch

from grounded_seg.detect.decoding.decoder_step import DecoderRows

_LOG = logging.getLogger(__name__)
_KEYS = 64
"""The number of keys is rounded up to a multiple of it, and that of rows to a power of two: so few shapes occur."""

Work = Callable[[], None]


def record_on_gpu(work: Work) -> Work:
    """Record work as a CUDA graph; it isn't done by that, but each time the result is called."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


class RecordedSteps:
    """Steps of some rows, each shape recorded when it occurs for the second time."""

    def __init__(self, rows: DecoderRows, record: Callable[[Work], Work] = record_on_gpu) -> None:
        self.rows = rows
        self._record: Callable[[Work], Work] | None = record
        self._recorded: dict[tuple[int, int], Work] = {}
        self._capacity = rows.capacity

    def step(self, n_rows: int, n_keys: int) -> None:
        """Do what `DecoderRows.step` does; memory for the tokens is made."""
        n_keys = -(-n_keys // _KEYS) * _KEYS
        shape = min(1 << (n_rows - 1).bit_length(), self.rows.n_rows), n_keys
        self.rows.make_room(n_keys)
        if self.rows.capacity != self._capacity:
            # The memory that was recorded is no longer that of the rows.
            self._recorded, self._capacity = {}, self.rows.capacity
        work = self._recorded.get(shape)
        if work is None:
            # Once without: libraries prepare themselves when they are first called, which can't be recorded.
            work = partial(self.rows.step, *shape)
            work()
            self._recorded[shape] = self._try_to_record(work)
        else:
            work()

    def _try_to_record(self, work: Work) -> Work:
        if self._record is None:
            return work
        try:
            return self._record(work)
        except RuntimeError as error:
            _LOG.warning("The decoder's steps can't be recorded on this GPU, which makes them slower (%s).", error)
            self._record = None
            return work
