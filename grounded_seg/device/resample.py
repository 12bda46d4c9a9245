"""Images on a device: bytes copied to it, and resized there to exactly the bytes that Pillow or torch make on a CPU.

Both libraries resize bytes in whole numbers: a filter's weights are rounded to so many bits, an output is the sum of
inputs times weights, rounded, first along the rows, then along the columns. Whole numbers come out the same anywhere.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch

_SIZES_KEPT = 128
"""Weights of so many resizes stay on the device: a folder's images have few sizes."""


@dataclass(frozen=True)
class Resampling:
    """A filter, made wider where an image is made smaller (antialiasing), and how its weights are rounded."""

    support: float
    """Reach on either side of an output's centre, in inputs."""
    weight_at: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
    """The filter's value at distances from the centre."""
    bits: int | None
    """Bits after the point; None for as many as leave the largest weight below 2^15."""

    def bits_for(self, largest: float) -> int:
        """Bits after the point where the largest weight is this."""
        if self.bits is not None:
            return self.bits
        fits = (bits for bits in range(_PILLOW_BITS) if int(0.5 + largest * 2 ** (bits + 1)) >= 1 << 15)
        return next(fits, _PILLOW_BITS)


def _triangle(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.maximum(0.0, 1.0 - np.abs(distance))


def _cubic(distance: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution with a = -1/2, which both libraries use for antialiasing."""
    x, a = np.abs(distance), -0.5
    inner = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    outer = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, inner, np.where(x < 2, outer, 0.0))


_PILLOW_BITS = 22
PILLOW_BILINEAR = Resampling(1.0, _triangle, _PILLOW_BITS)
"""`PIL.Image.Image.resize` with BILINEAR, where that goes along the rows first. Pillow 13 does not where an image that
is made smaller is more than twice as tall as wide: then up to a quarter of the values are off by one."""
TORCH_BILINEAR, TORCH_BICUBIC = Resampling(1.0, _triangle, None), Resampling(2.0, _cubic, None)
"""`torch.nn.functional.interpolate` of bytes with mode bilinear or bicubic, and antialias."""


def uploaded(pixels: npt.NDArray[np.uint8], device: torch.device) -> torch.Tensor:
    """Pixels copied to a device; on a GPU through pinned memory, so that the caller doesn't wait for the copy."""
    staged = torch.empty(pixels.shape, dtype=torch.uint8, pin_memory=device.type == "cuda")
    # Not `from_numpy`: an image's pixels may be read-only.
    staged.numpy()[...] = pixels
    return staged.to(device, non_blocking=True)


def resampled(pixels: torch.Tensor, width: int, height: int, resampling: Resampling) -> torch.Tensor:
    """Bytes (rows, columns, channels) resized to (height, width, channels), where they are."""
    for axis, n_out in ((1, width), (0, height)):
        if pixels.shape[axis] != n_out:
            pixels = _along(pixels, axis, *_weights(pixels.shape[axis], n_out, resampling, pixels.device))
    return pixels


def _along(pixels: torch.Tensor, axis: int, indices: torch.Tensor, weights: torch.Tensor, bits: int) -> torch.Tensor:
    """One axis resized by the weights (taps, outputs) of the inputs (taps, outputs)."""
    shape = (-1, 1, 1) if axis == 0 else (1, -1, 1)
    total = torch.full((), 1 << (bits - 1), dtype=torch.int32, device=pixels.device)
    for index, weight in zip(indices, weights, strict=True):
        total = total + pixels.index_select(axis, index) * weight.view(shape)
    return (total >> bits).clamp_(0, 255).to(torch.uint8)


@lru_cache(maxsize=_SIZES_KEPT)
def _weights(
    n_in: int, n_out: int, resampling: Resampling, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Inputs and int32 weights, (taps, outputs) each, and the weights' bits after the point."""
    scale = n_in / n_out
    stretch = max(1.0, scale)
    reach = resampling.support * stretch
    centres = (np.arange(n_out) + 0.5) * scale
    starts = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    stops = np.minimum((centres + reach + 0.5).astype(np.int64), n_in)
    indices = starts + np.arange(int((stops - starts).max()))[:, None]
    shares = resampling.weight_at((indices - centres + 0.5) * (1.0 / stretch))
    shares = np.where(indices < stops, shares, 0.0)
    shares /= shares.sum(axis=0)
    bits = resampling.bits_for(float(shares.max()))
    # Halves away from zero.
    whole = np.trunc(shares * 2.0**bits + np.copysign(0.5, shares)).astype(np.int32)
    kept = np.minimum(indices, n_in - 1)
    return torch.from_numpy(kept).to(device), torch.from_numpy(whole).to(device), bits
