"""Bring what a decoder gives to upright 8-bit sRGB: its orientation, levels, colour profile and transparency."""

import io
import logging
import struct
import zlib
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import PIL.Image
from PIL import ExifTags

from grounded_seg.images.given import shown
from grounded_seg.records import Location

if TYPE_CHECKING:
    from PIL.ImageCms import ImageCmsTransform

_LOG = logging.getLogger(__name__)

# What Pillow's decoders raise on damaged bytes: there is no common base class.
_VALUE_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, SyntaxError, RuntimeError, AssertionError)
DAMAGE = (OSError, EOFError, struct.error, zlib.error, *_VALUE_ERRORS)

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

_PROFILE_KINDS = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
"""The kind of pixels that a colour profile is for, from its header."""
_SAME_LEVELS = 2
"""A profile that moves no colour by more is sRGB: profiles of sRGB differ in their last digits."""
_ONCE = {"once": True}
"""Of a note that a command prints for the first image only."""


def upright_rgb(opened: PIL.Image.Image, path: Location) -> npt.NDArray[np.uint8]:
    """Decode the current frame and turn it, (height, width, 3); `path` is what notes call it."""
    n_bits = _stored_bits(opened)
    opened.load()
    profile = opened.info.get("icc_profile")
    transpose = _UPRIGHT.get(orientation(opened))
    upright = opened if transpose is None else opened.transpose(transpose)
    if upright.mode == "F" or upright.mode.startswith("I"):
        levels = np.asarray(upright)
        if levels.dtype.kind != "f" and n_bits == 16 and levels.min() >= 0:
            _tell_if_dark(int(levels.max()), path)
        grey = _grey_from_levels(levels, white=float(2**n_bits - 1))
        if not (profile and upright.mode.startswith("I;16")):
            return np.repeat(grey[:, :, None], 3, axis=2)
        upright = PIL.Image.fromarray(grey)
    elif n_bits == 16 and upright.mode in ("RGB", "RGBA"):
        # Pillow keeps the high byte of each colour.
        brightest = int(np.asarray(upright)[..., :3].max())
        _tell_if_dark(brightest * 256 + 255 if brightest else 0, path)
    if not upright.has_transparency_data:
        return np.array(_in_srgb(upright, profile, path))
    coloured = upright.convert("RGBA")
    if profile:
        alpha, is_grey = coloured.getchannel("A"), upright.mode in ("1", "L", "LA")
        coloured = _in_srgb(upright.convert("L") if is_grey else coloured, profile, path)
        coloured.putalpha(alpha)
    return composed_on_white(coloured)


def composed_on_white(coloured: PIL.Image.Image) -> npt.NDArray[np.uint8]:
    """Put an RGBA image onto a white page, (height, width, 3)."""
    page = PIL.Image.new("RGBA", coloured.size, "white")
    return np.array(PIL.Image.alpha_composite(page, coloured).convert("RGB"))


def orientation(opened: PIL.Image.Image) -> int:
    """Read the EXIF orientation; a damaged EXIF block costs the rotation, not the image.

    HEIC and AVIF files say themselves how they are turned, and what their EXIF block says counts no more: of HEIC it is
    undone already, of AVIF Pillow gives it as an EXIF orientation.
    """
    try:
        exif = opened.getexif()
        if opened.format == "AVIF":
            # Where nothing is to be turned, Pillow would also look into the XMP block.
            exif = PIL.Image.Exif()
            exif.load(opened.info.get("exif") or b"")
        value = exif.get(ExifTags.Base.Orientation, 1)
    except DAMAGE:
        return 1
    return value if isinstance(value, int) else 1


def _stored_bits(opened: PIL.Image.Image) -> int:
    """How many bits the file says that a level has; Pillow tells by how it unpacks them."""
    for tile in getattr(opened, "tile", ()):
        raw_mode = tile[3] if isinstance(tile[3], str) else next(iter(tile[3] or ("",)), "")
        if raw_mode == "I;12":
            return 12
        if isinstance(raw_mode, str) and ";16" in raw_mode:
            return 16
    return 8 if opened.mode not in ("I", "F") and not opened.mode.startswith("I;16") else 16


def _tell_if_dark(brightest: int, path: Location) -> None:
    """Note that levels of 12 bits or less were taken for 16, and so are nearly black."""
    if 0 < brightest < 4096:
        n_bits = next(bits for bits in (8, 10, 12) if brightest < 2**bits)
        factor = 2 ** (16 - n_bits)
        text = (
            "%s has levels of %d bits in a file of 16, so it is nearly black; multiply them by %d and run again, for "
            "example with `magick IN -evaluate multiply %d OUT`; other images may be like it"
        )
        _LOG.info(text, shown(path), n_bits, factor, factor, extra=_ONCE)


def _grey_from_levels(levels: npt.NDArray[np.generic], white: float = 65535.0) -> npt.NDArray[np.uint8]:
    """Scale grey levels of more than 8 bits to 0 to 255, (height, width); what isn't a number becomes black.

    >>> _grey_from_levels(np.array([[0, 257, 65535]], dtype=np.uint16)).tolist()
    [[0, 1, 255]]
    """
    values = levels.astype(np.float64)
    numbers = np.isfinite(values)
    low, high = np.min(values, initial=np.inf, where=numbers), np.max(values, initial=-np.inf, where=numbers)
    black, white = 0.0, 1.0 if levels.dtype.kind == "f" else white
    if low < black or high > white:
        black, white = low, high
    scale = 255.0 / (white - black) if white > black else 0.0
    return np.rint(np.where(numbers, values - black, 0.0) * scale).astype(np.uint8)


def _in_srgb(image: PIL.Image.Image, profile: bytes | None, path: Location) -> PIL.Image.Image:
    """Convert to RGB, from the colours of the profile to those of sRGB; without one, or with a broken one, as it is."""
    if not profile:
        return image.convert("RGB")
    mode = "L" if image.mode in ("1", "L", "LA") else "CMYK" if image.mode == "CMYK" else "RGB"
    kind = _PROFILE_KINDS.get(profile[16:20])
    transform = _to_srgb(profile, kind) if kind else "it is for no known kind of pixels"
    if transform is None:
        return image.convert("RGB")
    if isinstance(transform, str) or kind != mode:
        why = transform if isinstance(transform, str) else f"it is for {kind} pixels, and these are {mode}"
        text = "the colour profile of %s can't be used (%s), so it is read as sRGB; other images may be like it"
        _LOG.info(text, shown(path), why, extra=_ONCE)
        return image.convert("RGB")
    from PIL.ImageCms import applyTransform

    # Never none: it isn't done in place.
    return applyTransform(image.convert(mode), transform) or image.convert("RGB")


@lru_cache(maxsize=4)
def _to_srgb(profile: bytes, mode: str) -> "ImageCmsTransform | str | None":
    """The way from a profile's colours to sRGB; None if they are the same, or the reason why there is none."""
    # Its library takes some milliseconds to load, which images without a profile don't need.
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        steps = np.arange(0, 256, 17, dtype=np.uint8)
        colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
        tried = PIL.Image.fromarray(colours if mode == "RGB" else steps[None])
        plain, moved = (np.asarray(one, dtype=np.int16) for one in (tried.convert("RGB"), transform.apply(tried)))
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        return " ".join(str(error).split())
    return None if np.abs(plain - moved).max() <= _SAME_LEVELS else transform
