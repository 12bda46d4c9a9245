"""Mask logits upsampled to the image: bilinear as in Segment Anything, but only where a mask can be.

The logits are upsampled to the model's square, cropped to the part that isn't padding, and resized to the image. An
upsampled value is a mean of neighbours with weights that are never negative, so it is positive only next to a positive
logit: nothing else is computed, and no array has the image's size unless the mask has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

STRIP_PIXELS = 1 << 20
"""Pixels of the image that are computed at a time."""


@dataclass(frozen=True, eq=False)
class Region:
    """A mask, cropped to a part of the image that holds all of its pixels."""

    left: int
    """In pixels of the image."""
    top: int
    mask: npt.NDArray[np.bool_]
    """(height, width), column-major in memory."""


@dataclass(frozen=True, eq=False)
class Taps:
    """One axis of a bilinear resize: the two inputs of each output, and their weights."""

    first: npt.NDArray[np.int64]
    """(outputs,), never falling."""
    second: npt.NDArray[np.int64]
    """The next input, or the same one at the end."""
    weight: npt.NDArray[np.float32]
    """The second's share, in [0, 1]."""

    def reached_from(self, inputs: range) -> range:
        """The outputs that any of these inputs goes into."""
        return range(int(np.searchsorted(self.second, inputs.start)), int(np.searchsorted(self.first, inputs.stop)))

    def needed_for(self, outputs: range) -> range:
        """The inputs that go into any of these outputs, of which there is at least one."""
        return range(int(self.first[outputs.start]), int(self.second[outputs.stop - 1]) + 1)


def bilinear_taps(n_in: int, n_out: int) -> Taps:
    """The taps of resizing `n_in` pixels to `n_out`, as torch's `interpolate` does without `align_corners`.

    >>> taps = bilinear_taps(2, 4)
    >>> taps.first.tolist(), taps.second.tolist(), taps.weight.tolist()
    ([0, 0, 0, 1], [1, 1, 1, 1], [0.0, 0.25, 0.75, 0.25])
    """
    # In float32, as torch does: in float64 a pixel in many thousand would come out on the other side of 0.
    scale = np.float32(n_in) / np.float32(n_out)
    centres = (np.arange(n_out, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5)
    centres = np.maximum(centres, np.float32(0))
    first = np.minimum(centres.astype(np.int64), n_in - 1)
    weight = np.clip(centres - first.astype(np.float32), np.float32(0), np.float32(1))
    return Taps(first=first, second=np.minimum(first + 1, n_in - 1), weight=weight)


@dataclass(frozen=True, eq=False)
class Step:
    """One resize of one axis for some outputs only; inputs are counted from the first needed one."""

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor

    def mix(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Values (x, y), resized along axis 0 or 1."""
        weight = self.weight if axis else self.weight[:, None]
        mixed = values.index_select(axis, self.first).mul_(1 - weight)
        return mixed.addcmul_(values.index_select(axis, self.second), weight)

    def strip(self, start: int, stop: int) -> "Step":
        """The outputs from `start` to `stop` (exclusive)."""
        return Step(self.first[start:stop], self.second[start:stop], self.weight[start:stop])


class Axis:
    """All resizes of one axis, from the logits to the image."""

    def __init__(self, stages: tuple[Taps, ...]) -> None:
        self._stages = stages

    @property
    def n_seen(self) -> int:
        """Logits of the image; those beyond belong to padding."""
        outputs = range(len(self._stages[-1].first))
        for taps in reversed(self._stages):
            outputs = taps.needed_for(outputs)
        return outputs.stop

    def reached_from(self, logits: range) -> range:
        """The image's pixels that any of these logits goes into; it may be none."""
        reached = logits
        for taps in self._stages:
            reached = taps.reached_from(reached)
        return reached

    def plan(self, pixels: range, device: torch.device) -> tuple[range, list[Step]]:
        """The logits that these pixels of the image need, and the steps from them to the pixels."""
        steps = []
        outputs = pixels
        for taps in reversed(self._stages):
            inputs = taps.needed_for(outputs)
            kept = slice(outputs.start, outputs.stop)
            first, second = (torch.from_numpy(index[kept] - inputs.start) for index in (taps.first, taps.second))
            weight = torch.from_numpy(taps.weight[kept])
            steps.append(Step(first.to(device), second.to(device), weight.to(device)))
            outputs = inputs
        return outputs, steps[::-1]


def axis_through_square(n_logits: int, n_square: int, n_frame: int, n_pixels: int) -> Axis:
    """Segment Anything's upsampling: to a padded square, of which the image fills `n_frame`, then to the image."""
    to_square, to_image = bilinear_taps(n_logits, n_square), bilinear_taps(n_frame, n_pixels)
    kept = slice(n_frame)
    return Axis((Taps(to_square.first[kept], to_square.second[kept], to_square.weight[kept]), to_image))


def axis_straight(n_logits: int, n_pixels: int) -> Axis:
    """Segment Anything 2's upsampling: straight to the image, which fills the whole square."""
    return Axis((bilinear_taps(n_logits, n_pixels),))


def regions_from_logits(logits: torch.Tensor, x_axis: Axis, y_axis: Axis) -> Iterator[Region | None]:
    """The region of each mask, upsampled and thresholded at 0; None for a mask without a pixel.

    Args:
        logits: (n, rows, columns), float32.
        x_axis: From columns to the image's width.
        y_axis: From rows to its height.
    """
    # Columns come first from here on: run lengths go down the columns.
    by_column = logits.transpose(1, 2)
    is_positive = by_column[:, : x_axis.n_seen, : y_axis.n_seen] > 0
    x_spans, y_spans = (_spans(is_positive.any(dim=dim)) for dim in (2, 1))
    for values, x_span, y_span in zip(by_column, x_spans, y_spans, strict=True):
        x_pixels, y_pixels = x_axis.reached_from(x_span), y_axis.reached_from(y_span)
        if not (x_pixels and y_pixels):
            yield None
            continue
        mask = _threshold(values, x_axis, y_axis, x_pixels, y_pixels)
        yield Region(left=x_pixels.start, top=y_pixels.start, mask=mask.T) if mask.any() else None


def _spans(is_positive: torch.Tensor) -> list[range]:
    """From the first to the last True of each row of (n, length); an empty range where there is none."""
    length = is_positive.shape[1]
    indices = torch.arange(length, device=is_positive.device)
    starts = torch.where(is_positive, indices, length).amin(dim=1).tolist()
    ends = torch.where(is_positive, indices, -1).amax(dim=1).tolist()
    return [range(start, end + 1) if start <= end else range(0) for start, end in zip(starts, ends, strict=True)]


def _threshold(
    values: torch.Tensor, x_axis: Axis, y_axis: Axis, x_pixels: range, y_pixels: range
) -> npt.NDArray[np.bool_]:
    """A part of the image (x, y), upsampled and thresholded; a few columns at a time at the image's size."""
    x_logits, x_steps = x_axis.plan(x_pixels, values.device)
    y_logits, y_steps = y_axis.plan(y_pixels, values.device)
    values = values[x_logits.start : x_logits.stop, y_logits.start : y_logits.stop]
    for x_step, y_step in zip(x_steps[:-1], y_steps[:-1], strict=True):
        # Along the rows first, as torch does, for the same rounding.
        values = y_step.mix(x_step.mix(values, axis=0), axis=1)
    mask = np.empty((len(x_pixels), len(y_pixels)), dtype=np.bool_)
    n_columns = max(1, STRIP_PIXELS // len(y_pixels))
    for start in range(0, len(x_pixels), n_columns):
        strip = x_steps[-1].strip(start, start + n_columns).mix(values, axis=0)
        mask[start : start + n_columns] = (y_steps[-1].mix(strip, axis=1) > 0).cpu().numpy()
    return mask
