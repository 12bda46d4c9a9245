"""Read an image from disk, storage elsewhere or a tar as one upright RGB array, or say why that can't be."""

import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import PIL.Image

from grounded_seg.errors import ImageError
from grounded_seg.images.colours import DAMAGE, orientation, upright_rgb
from grounded_seg.images.contents import check_readable, image_bytes, out_of_reach, too_large
from grounded_seg.images.formats import IMAGE_ENDINGS, PILLOW_ADAPTED, open_image
from grounded_seg.images.given import shown
from grounded_seg.records import Image, ImageSize, ImageSkipped, Location
from grounded_seg.settings import MAX_PIXELS


def read_image(path: Location, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode an image to upright 8-bit RGB, wherever it is.

    - The orientation is applied, once: people label what they see. HEIC and AVIF files have their own beside EXIF's.
    - GIF and TIFF give their first frame, HEIC its main picture.
    - Colours are brought from the embedded ICC profile to sRGB. One that can't be used is ignored, with a note.
    - Transparent parts become white: the colours stored under them would show objects that nobody sees.
    - 16-bit grey is divided by 257, so that 65535 is 255, and float grey in [0, 1] multiplied by 255. Levels beyond
      these carry no white of their own: the smallest becomes black and the largest white.
      10 or 12 bits in 16 stay as dark as they are, with a note.

    An image of more than `max_pixels` is refused before its pixels are decoded. Pillow's own limit, twice
    `PIL.Image.MAX_IMAGE_PIXELS`, holds too, outside of `only_own_limit`.

    Raises:
        ImageError: If it is no image, damaged, too large, or there is no memory for it.
        ImageAccessError: If the system can't read the file at present, or storage gives no answer.
        InputError: If storage refuses the credentials, or has no such bucket: that is so for all images there.
    """
    if not isinstance(path, Path):
        content = image_bytes(path, max_pixels)
        return _decoded(path, lambda: open_image(io.BytesIO(content)), max_pixels)
    check_readable(path)
    return _decoded(path, lambda: open_image(path), max_pixels)


def image_from_bytes(content: bytes, path: Location, max_pixels: int = MAX_PIXELS) -> Image:
    """Decode the bytes of an image file as `read_image` does; `path` is what it is called."""
    if not content:
        raise ImageError(f"{shown(path)} is empty (0 bytes); give the content of an image file")
    return _decoded(path, lambda: open_image(io.BytesIO(content)), max_pixels)


def image_from_pillow(opened: PIL.Image.Image, path: Path) -> Image:
    """Take the current frame of a Pillow image as `read_image` would; it stays open. `path` is what it is called.

    Raises:
        ImageError: If it has no pixel, is damaged, or was closed before it was decoded.
    """
    if 0 in opened.size:
        width, height = opened.size
        raise ImageError(f"{shown(path)} is {width} x {height} px, without a pixel; check where it comes from")
    try:
        # It has passed Pillow's own limit.
        return _decoded(path, lambda: nullcontext(opened), sys.maxsize)
    except (ImageError, AttributeError) as error:
        # An image that left its `with` block too early has no file: Pillow asserts that it has, or up to 11 reads None.
        cause = error.__cause__ or error
        if isinstance(cause, AssertionError) or any(text in str(cause) for text in (" closed ", "'NoneType' object")):
            advice = "give it inside its `with` block, or call its load() there"
            raise ImageError(f"{shown(path)} is a Pillow image that was closed; {advice}") from error
        raise


def _decoded(path: Location, opener: Callable[[], AbstractContextManager[PIL.Image.Image]], max_pixels: int) -> Image:
    """Decode what Pillow opens, with its errors as ours."""
    kind = "content"
    with PILLOW_ADAPTED:
        try:
            with opener() as opened:
                kind = opened.format or kind
                width, height = opened.size
                if width * height > max_pixels:
                    raise too_large(path, f"{width} x {height} px", max_pixels)
                return Image(path=path, pixels=upright_rgb(opened, path))
        except PIL.Image.DecompressionBombError as error:
            raise too_large(path, "too many pixels", 2 * (PIL.Image.MAX_IMAGE_PIXELS or 0)) from error
        except PIL.UnidentifiedImageError as error:
            advice = f"convert it to one of {' '.join(IMAGE_ENDINGS)}"
            raise ImageError(f"{shown(path)} holds no image in a known format; {advice}") from error
        except PermissionError as error:
            raise ImageError(f"{shown(path)} may not be read; check the file's permissions") from error
        except MemoryError as error:
            raise ImageError(f"{shown(path)} is too large for the memory that is left; scale it down") from error
        except DAMAGE as error:
            # Pillow's own errors, as that of a truncated file, have no number; the system's have.
            if isinstance(error, OSError) and error.errno is not None:
                raise out_of_reach(path, error) from error
            if "MAX_TEXT_" in str(error):
                raise ImageError(f"{shown(path)} holds too much metadata; save it again without comments") from error
            fault = f"its {kind} is damaged ({' '.join(str(error).split())})"
            raise ImageError(f"{shown(path)} can't be decoded, {fault}; copy it again") from error


def read_sized(path: Location, max_pixels: int = MAX_PIXELS, size: ImageSize | None = None) -> Image:
    """Decode an image as `read_image` does; one of another upright size than a given one is an `ImageError`."""
    image = read_image(path, max_pixels)
    if size is None or image.size == size:
        return image
    raise ImageError(
        f"{shown(path)} is {image.width} x {image.height} px upright, but its data set says {size.width} x "
        f"{size.height} px; name the data set's own images with --images"
    )


def read_or_skip(path: Location, max_pixels: int = MAX_PIXELS, size: ImageSize | None = None) -> Image | ImageSkipped:
    """Decode an image as `read_sized` does, or say why that can't be."""
    try:
        return read_sized(path, max_pixels, size)
    except ImageError as error:
        return ImageSkipped(path=path, reason=str(error), error=type(error).__name__)


def upright_size(path: Path) -> ImageSize:
    """An image's size as `read_image` would give it, without decoding its pixels."""
    check_readable(path)
    with PILLOW_ADAPTED:
        try:
            with open_image(path) as opened:
                width, height = opened.size
                # Orientations from 5 on lie on their side; Pillow gives a TIFF's size as it is when turned, at once.
                lies = opened.format != "TIFF" and 5 <= orientation(opened) <= 8
                return ImageSize(height, width) if lies else ImageSize(width, height)
        except (PIL.Image.DecompressionBombError, *DAMAGE) as error:
            raise ImageError(f"{shown(path)} holds no image that can be read ({error}); copy it again") from error
