"""Read an image from disk as one upright RGB array. The home of Pillow's decoding."""

import errno
import io
import os
import stat
import struct
import sys
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ExifTags

from grounded_seg.errors import ImageAccessError, ImageError
from grounded_seg.records import Image, ImageSize, ImageSkipped
from grounded_seg.settings import MAX_PIXELS

IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif")
"""A file in a folder is an image if its name ends so, in any case."""
# Pillow reads many more, among them EPS, which it hands to Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

# What Pillow's decoders raise on damaged bytes: there is no common base class.
_VALUE_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, SyntaxError)
_DAMAGE = (OSError, EOFError, struct.error, zlib.error, *_VALUE_ERRORS)

_LASTING = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
"""Why a file can't be reached today nor tomorrow, unless someone changes it."""

_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
"""What undoes each EXIF orientation; 1 is upright already."""


def read_image(path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image to upright 8-bit RGB.

    - The EXIF orientation is applied: people label what they see.
    - GIF and TIFF give their first frame.
    - Transparent parts become white: the colours stored under them would show objects that nobody sees.
    - 16-bit grey is divided by 257, so that 65535 is 255, and float grey in [0, 1] multiplied by 255. Levels beyond
      these carry no white of their own: the smallest becomes black and the largest white.

    An image of more than `max_pixels` is refused before its pixels are decoded. Pillow's own limit, twice
    `PIL.Image.MAX_IMAGE_PIXELS`, holds too, outside of `only_own_limit`.

    Raises:
        ImageError: If it is no image, damaged, too large, or there is no memory for it.
        ImageAccessError: If the system can't read the file at present.
    """
    _check_readable(path)
    return _decoded(path, lambda: PIL.Image.open(path, formats=_FORMATS), max_pixels)


def image_from_bytes(content: bytes, path: Path, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode the bytes of an image file as `read_image` does; `path` is what it is called."""
    if not content:
        raise ImageError(f"{_shown(path)} is empty (0 bytes); give the content of an image file")
    return _decoded(path, lambda: PIL.Image.open(io.BytesIO(content), formats=_FORMATS), max_pixels)


def image_from_pillow(opened: PIL.Image.Image, path: Path) -> Image:
    """Take the current frame of a Pillow image as `read_image` would; it stays open. `path` is what it is called."""
    # It has passed Pillow's own limit.
    return _decoded(path, lambda: nullcontext(opened), sys.maxsize)


def _decoded(path: Path, open_image: Callable[[], AbstractContextManager[PIL.Image.Image]], max_pixels: int) -> Image:
    """Decode what Pillow opens, with its errors as ours."""
    kind = "content"
    with _PILLOW_HUSHED:
        try:
            with open_image() as opened:
                kind = opened.format or kind
                width, height = opened.size
                if width * height > max_pixels:
                    raise _too_large(path, f"{width} x {height} px", max_pixels)
                return Image(path=path, pixels=_upright_rgb(opened))
        except PIL.Image.DecompressionBombError as error:
            raise _too_large(path, "too many pixels", 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)) from error
        except PIL.UnidentifiedImageError as error:
            advice = f"convert it to one of {' '.join(IMAGE_ENDINGS)}"
            raise ImageError(f"{_shown(path)} holds no image in a known format; {advice}") from error
        except PermissionError as error:
            raise ImageError(f"{_shown(path)} may not be read; check the file's permissions") from error
        except MemoryError as error:
            raise ImageError(f"{_shown(path)} is too large for the memory that is left; scale it down") from error
        except _DAMAGE as error:
            # Pillow's own errors, as that of a truncated file, have no number; the system's have.
            if isinstance(error, OSError) and error.errno is not None:
                raise _out_of_reach(path, error) from error
            fault = f"its {kind} is damaged ({' '.join(str(error).split())})"
            raise ImageError(f"{_shown(path)} can't be decoded, {fault}; copy it again") from error


def read_sized(path: Path, max_pixels: int = MAX_PIXELS, size: ImageSize | None = None) -> Image:
    """Decode an image as `read_image` does; one of another upright size than a given one is an `ImageError`."""
    image = read_image(path, max_pixels)
    if size is None or image.size == size:
        return image
    raise ImageError(
        f"{_shown(path)} is {image.width} x {image.height} px upright, but its data set says {size.width} x "
        f"{size.height} px; name the data set's own images with --images"
    )


def read_or_skip(path: Path, max_pixels: int = MAX_PIXELS, size: ImageSize | None = None) -> Image | ImageSkipped:
    """Decode an image as `read_sized` does, or say why that can't be."""
    try:
        return read_sized(path, max_pixels, size)
    except ImageError as error:
        return ImageSkipped(path=path, reason=str(error), error=type(error).__name__)


def upright_size(path: Path) -> ImageSize:
    """An image's size as `read_image` would give it, without decoding its pixels."""
    _check_readable(path)
    with _PILLOW_HUSHED:
        try:
            with PIL.Image.open(path, formats=_FORMATS) as opened:
                width, height = opened.size
                # Orientations from 5 on lie on their side; Pillow gives a TIFF's size as it is when turned, at once.
                lies = opened.format != "TIFF" and 5 <= _orientation(opened) <= 8
                return ImageSize(height, width) if lies else ImageSize(width, height)
        except (PIL.Image.DecompressionBombError, *_DAMAGE) as error:
            raise ImageError(f"{_shown(path)} holds no image that can be read ({error}); copy it again") from error


@contextmanager
def only_own_limit() -> Iterator[None]:
    """Leave it to `read_image` alone how large an image may be, and hush Pillow, in all threads until the block ends.

    Pillow's limit is the process's, so this is for a program around all that it reads.
    """
    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = None
    try:
        with _PILLOW_HUSHED:
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


def _check_readable(path: Path) -> None:
    """Refuse what isn't a file with bytes in it, each with its own reason."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageError(f"{_shown(path)} is a link to a file that isn't there; remove the link") from error
        raise ImageError(f"no file is at {_shown(path)}; check the path") from error
    except OSError as error:
        if error.errno not in _LASTING:
            raise _out_of_reach(path, error) from error
        raise ImageError(f"{_shown(path)} can't be reached ({error.strerror}); check its permissions") from error
    if stat.S_ISDIR(status.st_mode):
        why = ", not an image"
        try:
            os.scandir(path).close()
        except OSError as error:
            why = f" that can't be listed ({error.strerror})"
        raise ImageError(f"{_shown(path)} is a folder{why}; name the images in it")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait forever.
        raise ImageError(f"{_shown(path)} is a pipe or a device, not a file; save the image to a file first")
    if status.st_size == 0:
        raise ImageError(f"{_shown(path)} is empty (0 bytes); copy it again")


def _out_of_reach(path: Path, error: OSError) -> ImageAccessError:
    advice = "see to the disk or the share, and try again"
    return ImageAccessError(f"{_shown(path)} can't be read now ({error.strerror}); {advice}")


def _too_large(path: Path, what: str, max_pixels: int) -> ImageError:
    limit = f"the limit is {max_pixels} pixels; scale it down, or raise --max-pixels"
    return ImageError(f"{_shown(path)} is too large: {what}, {limit}")


def _shown(path: Path) -> str:
    """Quote a path, so that spaces are seen and a line break in a name doesn't break the message's one line."""
    return repr(os.fspath(path))


def _upright_rgb(opened: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Decode the current frame and turn it, (height, width, 3)."""
    opened.load()
    transpose = _UPRIGHT.get(_orientation(opened))
    upright = opened if transpose is None else opened.transpose(transpose)
    if upright.mode == "F" or upright.mode.startswith("I"):
        grey = _grey_from_levels(np.asarray(upright))
        return np.repeat(grey[:, :, None], 3, axis=2)
    if upright.has_transparency_data:
        return composed_on_white(upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))


def composed_on_white(coloured: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Put an RGBA image onto a white page, (height, width, 3)."""
    page = PIL.Image.new("RGBA", coloured.size, "white")
    return np.array(PIL.Image.alpha_composite(page, coloured).convert("RGB"))


def _orientation(opened: PIL.Image.Image) -> int:
    """Read the EXIF orientation; a damaged EXIF block costs the rotation, not the image."""
    try:
        value = opened.getexif().get(ExifTags.Base.Orientation, 1)
    except _DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _grey_from_levels(levels: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """Scale grey levels of more than 8 bits to 0 to 255, (height, width); what isn't a number becomes black.

    >>> _grey_from_levels(np.array([[0, 257, 65535]], dtype=np.uint16)).tolist()
    [[0, 1, 255]]
    """
    values = levels.astype(np.float64)
    numbers = np.isfinite(values)
    low, high = np.min(values, initial=np.inf, where=numbers), np.max(values, initial=-np.inf, where=numbers)
    black, white = 0.0, 1.0 if levels.dtype.kind == "f" else 65535.0
    if low < black or high > white:
        black, white = low, high
    scale = 255.0 / (white - black) if white > black else 0.0
    return np.rint(np.where(numbers, values - black, 0.0) * scale).astype(np.uint8)


class _Hush:
    """Ignores Pillow's warnings while any thread is inside.

    What Pillow warns of is readable all the same or one of our errors. `warnings.catch_warnings` alone isn't safe here:
    threads that leave in another order than they came restore each other's filters. So the first one in changes the
    filters, the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                self._filters.__exit__(None, None, None)


_PILLOW_HUSHED = _Hush()
