"""Images as Python callers have them (paths, bytes, Pillow images, arrays, tensors), each as an upright RGB array."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeGuard

import numpy as np
import numpy.typing as npt
import PIL.Image

from grounded_seg.errors import ImageError, UsageError
from grounded_seg.images.colours import composed_on_white
from grounded_seg.images.read import image_from_bytes, image_from_pillow, read_image
from grounded_seg.images.remote.addresses import address_from
from grounded_seg.records import Address, DamagedTar, Image, ImageSkipped, Location, TarMember

_CHANNELS = (1, 3, 4)
"""Grey, RGB, RGBA."""
_REMEDIES = {
    "float": "if its values are from 0 to 1, give (255 * image).round() as uint8, else scale them yourself",
    "uint16": "if its values are from 0 to 65535, give image // 257 as uint8, else scale them yourself",
    "bool": "a mask is no image; give 255 * image as uint8 if you mean it",
}
"""What to do about an array of another dtype, by the beginning of its name."""


class TensorLike(Protocol):
    """What is needed of a torch tensor; its library isn't imported for that."""

    @property
    def dtype(self) -> Any:
        """Such as torch.uint8."""

    @property
    def shape(self) -> Sequence[int]:
        """The length of each axis."""

    def detach(self) -> Any:
        """Give the tensor without its gradient."""


ImageLike: TypeAlias = Image | str | Location | bytes | PIL.Image.Image | npt.NDArray[Any] | TensorLike
"""An image as a caller may have it:

- a path, as text or `Path`, or an address, as text; text is always one of these
- the bytes of an image file
- a Pillow image, whose EXIF rotation is applied
- an array of uint8: (height, width, 3) RGB, (height, width) grey, or (height, width, 4) RGBA
- a torch tensor of uint8: the same, or with the channels first, as torchvision has it
- an `Image` of this package
"""


def is_path(given: object) -> TypeGuard[str | Path]:
    """Whether something names an image on disk or elsewhere as text or `Path`; text always does."""
    return isinstance(given, str | os.PathLike)


def location_of(given: object) -> Location | None:
    """Where an image is that is named; None for one in memory.

    Raises:
        InputError: If it is an address of a kind that isn't read.
    """
    if isinstance(given, Address | TarMember | DamagedTar):
        return given
    if isinstance(given, str):
        return address_from(given) or Path(given)
    return Path(given) if isinstance(given, os.PathLike) else None


def is_one_image(given: object) -> TypeGuard[ImageLike]:
    """Whether something is a single image rather than a list of some."""
    kinds = Image | Address | TarMember | DamagedTar | bytes | bytearray | memoryview | PIL.Image.Image | np.ndarray
    return is_path(given) or isinstance(given, kinds) or _is_tensor(given)


def image_from(given: ImageLike, name: str = "image") -> Image:
    """Decode an image of any form.

    Args:
        given: Any form of image.
        name: What an image without a file is called, in results and messages.

    Raises:
        UsageError: If it is none of the forms, or an array of another dtype or shape.
        InputError: If it is an address of a kind that isn't read, or of a bucket that can't be.
        ImageError: If it can't be decoded.
    """
    if isinstance(given, Image):
        return given
    if (location := location_of(given)) is not None:
        return read_image(location)
    if isinstance(given, bytes | bytearray | memoryview):
        return image_from_bytes(bytes(given), Path(name))
    if isinstance(given, PIL.Image.Image):
        return image_from_pillow(given, Path(getattr(given, "filename", "") or name))
    if isinstance(given, np.ndarray):
        return Image(Path(name), _rgb(given, name))
    if _is_tensor(given):
        return Image(Path(name), _rgb(_array_from_tensor(given, name), name))
    raise UsageError(
        f"{name} is of type {type(given).__name__}; give a path, bytes, a Pillow image, or an array or tensor of uint8"
        + ("; several images go to batch() or stream()" if isinstance(given, list | tuple) else "")
    )


def image_or_skip(given: ImageLike, name: str) -> Image | ImageSkipped:
    """Decode an image as `image_from` does, or say why that can't be."""
    try:
        return image_from(given, name)
    except ImageError as error:
        return ImageSkipped(path=Path(name), reason=str(error), error=type(error).__name__)


def _is_tensor(given: object) -> bool:
    return all(hasattr(given, name) for name in ("detach", "cpu", "numpy", "dtype", "shape"))


def _array_from_tensor(tensor: Any, name: str) -> npt.NDArray[Any]:
    """Take a tensor's values, with the channels last."""
    # Before the conversion: numpy hasn't all dtypes of torch.
    _check_dtype(str(tensor.dtype).removeprefix("torch."), name)
    shape = tuple(tensor.shape)
    values: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    if len(shape) != 3:
        return values
    is_first, is_last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
    if is_first and is_last:
        raise UsageError(
            f"{name} is a tensor of {_shown(shape)}, whose channels may be the first or the last axis; give an array "
            "of height, width, channels: tensor.permute(1, 2, 0).numpy() if they are the first"
        )
    return values.transpose(1, 2, 0) if is_first else values


def _rgb(values: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    """Give an array of any allowed form as (height, width, 3)."""
    _check_dtype(values.dtype.name, name)
    shape = values.shape
    if 0 in shape:
        raise ImageError(f"{name} is an array of {_shown(shape)} without a pixel; check where it comes from")
    if values.ndim == 2:
        values = values[:, :, None]
    if values.ndim != 3 or values.shape[2] not in _CHANNELS:
        advice = "(height, width, 3) for RGB, (height, width) for grey, or (height, width, 4) for RGBA"
        if values.ndim == 3 and shape[0] in _CHANNELS and shape[0] < min(shape[1:]):
            advice += "; here the channels are the first axis: image.transpose(1, 2, 0)"
        elif values.ndim == 4:
            advice += "; several images go to batch() as a list: list(images)"
        raise UsageError(f"{name} is an array of {_shown(shape)}; give {advice}")
    if values.shape[2] == 4:
        return composed_on_white(PIL.Image.fromarray(np.ascontiguousarray(values)))
    return np.ascontiguousarray(np.broadcast_to(values, (*values.shape[:2], 3)))


def _check_dtype(dtype: str, name: str) -> None:
    if dtype == "uint8":
        return
    kind = "float" if "float" in dtype else dtype
    remedy = _REMEDIES.get(kind, "if its values are from 0 to 255, give it as uint8, else scale them yourself")
    raise UsageError(f"{name} is of dtype {dtype}, and images are of uint8, from 0 to 255; {remedy}")


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))
