"""Masks encoded where the logits are: thresholded and turned into run lengths on a GPU, so that no mask leaves it.

What comes back is where the runs begin and end, a few thousand whole numbers a mask, and how many pixels lie within the
box. The pixels are those of `resize.regions_from_logits`, all of an image's masks at once.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from grounded_seg.geometry.masks import run_length_from_edges
from grounded_seg.records import BoxXyxy, ImageSize, RunLength
from grounded_seg.segment.resize import Axis

VALUES_AT_A_TIME = 1 << 26
"""Upsampled logits of all masks that are on the device at the same time: 256 MB, and again as much to make them."""


@dataclass(frozen=True)
class EncodedMask:
    """A mask that isn't empty, with what is asked about its pixels."""

    mask: RunLength
    n_pixels: int
    n_inside: int
    """Pixels within the box; those that it cuts are inside."""

    @property
    def share_outside(self) -> float:
        """The share of the pixels outside the box, in [0, 1]."""
        return 1 - self.n_inside / self.n_pixels


def encoded_masks(
    logits: torch.Tensor, axes: tuple[Axis, Axis], boxes_xyxy: Sequence[BoxXyxy], size: ImageSize
) -> list[EncodedMask | None]:
    """The masks of logits (n, rows, columns) float32 at an image's size, each with its box; None where one is empty."""
    n_masks = len(logits)
    inside = torch.zeros(n_masks, dtype=torch.int64, device=logits.device)
    x_inside, y_inside = _within(boxes_xyxy, size, logits.device)
    last = torch.zeros(n_masks, 1, dtype=torch.bool, device=logits.device)
    edges = []
    for start, masks in _strips(logits, axes, size):
        stop = start + masks.shape[1]
        inside += (masks & x_inside[:, start:stop, None] & y_inside[:, None, :]).sum(dim=(1, 2))
        down = masks.flatten(1)
        changes = down ^ torch.cat([last, down[:, :-1]], dim=1)
        last = down[:, -1:]
        edges.append(changes.nonzero() + torch.tensor([0, start * size.height], device=logits.device))
    rows, positions = torch.cat(edges).cpu().numpy().T
    # A mask's edges of one strip come before those of the next, but between them are other masks'.
    order = np.argsort(rows, kind="stable")
    by_mask = np.split(positions[order], np.searchsorted(rows[order], np.arange(1, n_masks)))
    return [_encoded(of_mask, n_inside, size) for of_mask, n_inside in zip(by_mask, inside.tolist(), strict=True)]


def _strips(logits: torch.Tensor, axes: tuple[Axis, Axis], size: ImageSize) -> Iterator[tuple[int, torch.Tensor]]:
    """All masks, some columns at a time: the first column, and (n, columns, height) booleans."""
    x_logits, x_steps = axes[0].plan(range(size.width), logits.device)
    y_logits, y_steps = axes[1].plan(range(size.height), logits.device)
    # Columns come first from here on: run lengths go down the columns.
    values = logits.transpose(1, 2)[:, x_logits.start : x_logits.stop, y_logits.start : y_logits.stop]
    for x_step, y_step in zip(x_steps[:-1], y_steps[:-1], strict=True):
        values = y_step.mix(x_step.mix(values, axis=0), axis=1)
    n_columns = max(1, VALUES_AT_A_TIME // (len(logits) * size.height))
    for start in range(0, size.width, n_columns):
        strip = x_steps[-1].strip(start, start + n_columns).mix(values, axis=0)
        yield start, y_steps[-1].mix(strip, axis=1) > 0


def _within(boxes_xyxy: Sequence[BoxXyxy], size: ImageSize, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Which columns (n, width) and rows (n, height) lie in each box."""
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    sides = []
    for axis, length in ((0, size.width), (1, size.height)):
        indices = np.arange(length)
        first, stop = np.floor(boxes[:, axis, None]), np.ceil(boxes[:, axis + 2, None])
        sides.append(torch.from_numpy((indices >= first) & (indices < stop)).to(device))
    return sides[0], sides[1]


def _encoded(edges: "np.ndarray[tuple[int], np.dtype[np.int64]]", n_inside: int, size: ImageSize) -> EncodedMask | None:
    if not edges.size:
        return None
    # A mask that reaches the last pixel ends there.
    bounds = edges if edges.size % 2 == 0 else np.append(edges, size.width * size.height)
    n_pixels = int((bounds[1::2] - bounds[::2]).sum())
    return EncodedMask(run_length_from_edges(edges, size), n_pixels, n_inside)
