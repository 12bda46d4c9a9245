"""Resizing in both directions: images and boxes to the network's input, its mask logits back to the image.

The way in is segment-anything's `ResizeLongestSide`, except that a side is at least a pixel: 5000 x 1 becomes 1024 x 1,
where the original fails on 1024 x 0.

The way back is bilinear: logits are upsampled to the model's square, cropped to the part that isn't padding, and
resized to the image. An upsampled value is a mean of neighbours with weights that are never negative, so it is positive
only next to a positive logit: nothing else is computed, and no array has the image's size unless the mask has.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL.Image
import torch

from grounded_seg.device.resample import PILLOW_BILINEAR, resampled, uploaded
from grounded_seg.records import BoxXyxy, ImageSize

STRIP_PIXELS = 1 << 20
"""Pixels of the image that are computed at a time."""


def resized_size(size: ImageSize, longest_side: int) -> ImageSize:
    """The size whose longer side has `longest_side` pixels, the shorter one in proportion, rounded half up.

    >>> resized_size(ImageSize(1280, 720), 1024)
    ImageSize(width=1024, height=576)
    """
    scale = longest_side * 1.0 / max(size.width, size.height)
    return ImageSize(width=max(1, int(size.width * scale + 0.5)), height=max(1, int(size.height * scale + 0.5)))


def resized_pixels(pixels: npt.NDArray[np.uint8], size: ImageSize) -> npt.NDArray[np.uint8]:
    """RGB pixels (height, width, 3) resized by Pillow's antialiased bilinear filter."""
    resized = PIL.Image.fromarray(pixels).resize((size.width, size.height), PIL.Image.Resampling.BILINEAR)
    return np.array(resized)


def resized_on(device: torch.device, pixels: npt.NDArray[np.uint8], size: ImageSize) -> torch.Tensor:
    """RGB pixels (height, width, 3) resized likewise, on a device; a GPU of NVIDIA resizes them itself."""
    if device.type == "cuda":
        return resampled(uploaded(pixels, device), size.width, size.height, PILLOW_BILINEAR)
    return torch.from_numpy(resized_pixels(pixels, size)).to(device)


def resized_boxes(boxes_xyxy: Sequence[BoxXyxy], size: ImageSize, resized: ImageSize) -> npt.NDArray[np.float32]:
    """Boxes in pixels of the resized image, (n, 4); (0, 4) for no boxes.

    Raises:
        ValueError: If a box isn't finite, has no area, or lies outside the image altogether.
    """
    for index, (x0, y0, x1, y1) in enumerate(boxes_xyxy):
        if not np.isfinite((x0, y0, x1, y1)).all():
            fault = "isn't finite"
        elif x0 >= x1 or y0 >= y1:
            fault = "has no area: x0 < x1 and y0 < y1 are required"
        elif x1 <= 0 or y1 <= 0 or x0 >= size.width or y0 >= size.height:
            fault = f"lies outside the image of {size.width} x {size.height} pixels"
        else:
            continue
        raise ValueError(f"box {index} ({x0:g}, {y0:g}, {x1:g}, {y1:g}) {fault}")
    scale_xy = (resized.width / size.width, resized.height / size.height)
    boxes = np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4)
    scaled: npt.NDArray[np.float32] = (boxes * np.tile(scale_xy, 2)).astype(np.float32)
    return scaled


@dataclass(frozen=True, eq=False)
class Region:
    """A mask, cropped to a part of the image that holds all of its pixels; left and top in pixels of the image."""

    left: int
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


class Step(NamedTuple):
    """One resize of one axis for some outputs only; inputs are counted from the first needed one."""

    first: torch.Tensor
    second: torch.Tensor
    weight: torch.Tensor

    def mix(self, values: torch.Tensor, axis: int) -> torch.Tensor:
        """Values (x, y), or (n, x, y), resized along axis 0 (x) or 1 (y)."""
        weight = self.weight if axis else self.weight[:, None]
        mixed = values.index_select(axis - 2, self.first).mul_(1 - weight)
        return mixed.addcmul_(values.index_select(axis - 2, self.second), weight)

    def strip(self, start: int, stop: int) -> "Step":
        """The outputs from `start` to `stop` (exclusive)."""
        return Step(*(values[start:stop] for values in self))


@dataclass(frozen=True, eq=False)
class Axis:
    """All resizes of one axis, from the logits to the image."""

    stages: tuple[Taps, ...]

    @property
    def n_seen(self) -> int:
        """Logits of the image; those beyond belong to padding."""
        outputs = range(len(self.stages[-1].first))
        for taps in reversed(self.stages):
            outputs = taps.needed_for(outputs)
        return outputs.stop

    def reached_from(self, logits: range) -> range:
        """The image's pixels that any of these logits goes into; it may be none."""
        for taps in self.stages:
            logits = taps.reached_from(logits)
        return logits

    def plan(self, pixels: range, device: torch.device) -> tuple[range, list[Step]]:
        """The logits that these pixels of the image need, and the steps from them to the pixels."""
        steps = []
        outputs = pixels
        for taps in reversed(self.stages):
            inputs = taps.needed_for(outputs)
            kept = slice(outputs.start, outputs.stop)
            parts = taps.first[kept] - inputs.start, taps.second[kept] - inputs.start, taps.weight[kept]
            steps.append(Step(*(torch.from_numpy(part).to(device) for part in parts)))
            outputs = inputs
        return outputs, steps[::-1]


def axes_through_square(n_logits: int, n_square: int, size: ImageSize) -> tuple[Axis, Axis]:
    """Segment Anything's upsampling of x and y: to a square that is padded beyond the image, then to the image."""
    to_square, frame = bilinear_taps(n_logits, n_square), resized_size(size, n_square)

    def axis(n_frame: int, n_pixels: int) -> Axis:
        kept = Taps(to_square.first[:n_frame], to_square.second[:n_frame], to_square.weight[:n_frame])
        return Axis((kept, bilinear_taps(n_frame, n_pixels)))

    return axis(frame.width, size.width), axis(frame.height, size.height)


def axes_straight(n_logits: int, size: ImageSize) -> tuple[Axis, Axis]:
    """Segment Anything 2's upsampling of x and y: straight to the image, which fills the whole square."""
    return Axis((bilinear_taps(n_logits, size.width),)), Axis((bilinear_taps(n_logits, size.height),))


def regions_from_logits(logits: torch.Tensor, x_axis: Axis, y_axis: Axis) -> Iterator[Region | None]:
    """The region of each mask, upsampled from (n, rows, columns) float32 and thresholded at 0; None without a pixel."""
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
