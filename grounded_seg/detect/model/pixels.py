"""Pixel values for the vision tower: images resized to the model's own size, colours normalised."""

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import PIL.Image
import torch
from msgspec import Meta
from torch.nn import functional

from grounded_seg.device.ahead import on_same_stream
from grounded_seg.device.resample import TORCH_BICUBIC, resampled, uploaded
from grounded_seg.errors import WeightsError
from grounded_seg.records import Image
from grounded_seg.weights.config_records import Side, config_in, record_of

_LOG = logging.getLogger(__name__)
_Mean: TypeAlias = Annotated[float, Meta(ge=-10, le=10)]
_Deviation: TypeAlias = Annotated[float, Meta(gt=0, le=10)]


@dataclass(frozen=True)
class PixelSettings:
    """How a model's images are prepared; the defaults are those of every published Florence-2."""

    height: int = 768
    width: int = 768
    """Pixels that every image is resized to, whatever its aspect."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    deviation: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Of red, green and blue in [0, 1], over ImageNet."""
    square_side: int | None = None
    """Side of the square, in pixels, that images are resized to before all that; for weights that were trained so."""

    @property
    def view_px(self) -> int:
        """Side of what is left of an image, in pixels."""
        return min(self.width, self.height, self.square_side or self.width)


@dataclass(frozen=True, kw_only=True)
class _SizeFields:
    height: Side
    width: Side


@dataclass(frozen=True, kw_only=True)
class _PixelFields:
    """The fields of an image configuration, by transformers' names."""

    size: _SizeFields
    image_mean: tuple[_Mean, _Mean, _Mean] = PixelSettings.mean
    image_std: tuple[_Deviation, _Deviation, _Deviation] = PixelSettings.deviation
    resample: int = 3
    """Pillow's number for bicubic, which Florence-2 was trained with."""


def load_pixel_settings(folder: Path) -> PixelSettings:
    """The settings of `preprocessor_config.json`, or of `processor_config.json`, where newer tools put them.

    A folder with neither gets Florence-2's defaults, and a warning in the log. A file that asks for what Florence-2
    doesn't do is a `WeightsError`.
    """
    own, shared = folder / "preprocessor_config.json", folder / "processor_config.json"
    path = own if own.is_file() else shared
    if not path.is_file():
        _LOG.warning("%s has no preprocessor_config.json: using Florence-2's 768 x 768 pixels.", folder)
        return PixelSettings()
    try:
        content = config_in(path)
        found = record_of(_PixelFields, content if path == own else content.get("image_processor"))
        if found.resample != _PixelFields.resample:
            raise ValueError(f"resample is {found.resample}, and it takes {_PixelFields.resample}, bicubic")
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} isn't Florence-2's image configuration ({error}); copy the base model's") from error
    return PixelSettings(found.size.height, found.size.width, found.image_mean, found.image_std)


def image_grid(network: Any, settings: PixelSettings) -> tuple[int, int]:
    """Rows and columns of the patches that an image has in the last stage of a network's vision tower."""
    vision = network.config.vision_config
    height, width = settings.height, settings.width
    for kernel, stride, padding in zip(vision.patch_size, vision.patch_stride, vision.patch_padding, strict=True):
        height, width = ((side + 2 * padding - kernel) // stride + 1 for side in (height, width))
    return height, width


def pixel_values(
    images: Sequence[Image],
    settings: PixelSettings,
    device: torch.device = torch.device("cpu"),  # noqa: B008
) -> torch.Tensor:
    """Images resized and normalised exactly as transformers' processor does.

    The resampling is torch's bicubic on bytes, with antialiasing; Pillow's differs by one or two grey levels in about
    one pixel of a hundred. On an NVIDIA GPU images are resized to the same bytes there (`device/resample.py`).

    At least one image, of any size, gives (n, 3, height, width) float32; they are copied to the device as bytes and
    normalised there.
    """
    resized = (resized_there if device.type == "cuda" else _resized_here)(images, settings, device).to(device)
    mean, deviation = (
        torch.tensor(values, device=device)[:, None, None] * 255 for values in (settings.mean, settings.deviation)
    )
    return resized.float().sub_(mean).div_(deviation)


def resized_to_square(image: Image, side: int | None) -> Image:
    """An image resized to a square of this side in pixels, whatever its aspect; None leaves it as it is."""
    if side is None:
        return image
    small = PIL.Image.fromarray(image.pixels).resize((side, side), PIL.Image.Resampling.BICUBIC)
    return replace(image, pixels=np.asarray(small))


def _resized_here(images: Sequence[Image], settings: PixelSettings, _: torch.device) -> torch.Tensor:
    """Bytes (n, 3, height, width), resized side by side on threads of the CPU."""
    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as threads:
        return torch.cat(list(threads.map(partial(_resized, settings=settings), images)))


def resized_there(images: Sequence[Image], settings: PixelSettings, device: torch.device) -> torch.Tensor:
    """The same bytes, resized where the model runs; threads prepare and copy, as a large photograph takes a while."""

    def on_device(image: Image) -> torch.Tensor:
        return uploaded(resized_to_square(image, settings.square_side).pixels, device)

    with ThreadPoolExecutor(min(len(images), os.cpu_count() or 1)) as threads:
        copied = list(threads.map(on_same_stream(on_device, device), images))
    resized = [resampled(one, settings.width, settings.height, TORCH_BICUBIC) for one in copied]
    return torch.stack(resized).permute(0, 3, 1, 2)


def _resized(image: Image, settings: PixelSettings) -> torch.Tensor:
    # A copy, as torch can't wrap an array that is read-only.
    channels_first = torch.tensor(resized_to_square(image, settings.square_side).pixels).permute(2, 0, 1)[None]
    size = (settings.height, settings.width)
    return functional.interpolate(channels_first, size=size, mode="bicubic", antialias=True)
