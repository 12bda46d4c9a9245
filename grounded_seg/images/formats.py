"""Which files are images, and how Pillow opens them: the formats, and the limits within which they are read."""

import ctypes
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import BinaryIO

import PIL.Image
import PIL.PngImagePlugin

LATER_ENDINGS = ("heic", "heif", "hif", "avif")
"""Those that count as images since HEIC and AVIF are read: a folder held less before."""
IMAGE_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", *LATER_ENDINGS)
"""A file in a folder is an image if its name ends so, in any case."""
# Pillow reads many more, among them EPS, which it hands to Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_AVIF_BRANDS = {b"avif", b"avis"}
_ANY_CODEC_BRANDS = {b"mif1", b"msf1"}
"""What a file of either kind may call itself, with its own kind further on."""
_START_BYTES = 256
_MAX_METADATA_BYTES = 16 << 20
"""Of one piece of a PNG's metadata, unpacked; Pillow's own limit is 1 MiB, which profiles and comments do pass."""


def has_image_ending(name: str) -> bool:
    """Whether a name ends as an image's does; a name that is nothing but the ending is hidden."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in IMAGE_ENDINGS


def open_image(source: Path | BinaryIO) -> PIL.Image.Image:
    """Open an image by what it holds, whatever it is called; to be closed, as by `with`. Its pixels aren't decoded.

    Raises:
        PIL.UnidentifiedImageError: If it is of no known format.
        PIL.Image.DecompressionBombError: If it has more than twice `PIL.Image.MAX_IMAGE_PIXELS` pixels.
        SyntaxError and others: What Pillow raises on damage.
    """
    kind = container_of(_start_of(source))
    if kind == "HEIF":
        # Its library takes a tenth of a second to load, and few runs need it. Not registered with Pillow, which is the
        # process's.
        from pillow_heif import HeifImageFile

        return _within_limit(HeifImageFile(source, ""))
    if kind == "AVIF":
        from PIL.AvifImagePlugin import AvifImageFile

        return _within_limit(AvifImageFile(source, ""))
    return PIL.Image.open(source, formats=_FORMATS)


def _within_limit(opened: PIL.Image.Image) -> PIL.Image.Image:
    """Hold an image to Pillow's own limit, as `PIL.Image.open` does, which these formats go around."""
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and opened.width * opened.height > 2 * limit:
        opened.close()
        raise PIL.Image.DecompressionBombError(f"{opened.width} x {opened.height} px")
    return opened


def container_of(start: bytes) -> str | None:
    r"""HEIF or AVIF by the first bytes of a file, None for anything else.

    >>> container_of(b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif")
    'AVIF'
    """
    if start[4:8] != b"ftyp":
        return None
    n_bytes = min(int.from_bytes(start[:4], "big"), len(start))
    main, brands = start[8:12], {start[at : at + 4] for at in range(8, n_bytes, 4)}
    if main not in _HEIF_BRANDS and brands & _AVIF_BRANDS:
        return "AVIF"
    return "HEIF" if brands & (_HEIF_BRANDS | _ANY_CODEC_BRANDS) else None


def _start_of(source: Path | BinaryIO) -> bytes:
    if isinstance(source, Path):
        with source.open("rb") as file:
            return file.read(_START_BYTES)
    start = source.read(_START_BYTES)
    source.seek(0)
    return start


@contextmanager
def only_own_limit() -> Iterator[None]:
    """Leave it to `read_image` alone how large an image may be, and hush Pillow, in all threads until the block ends.

    Pillow's limit is the process's, so this is for a program around all that it reads.
    """
    before = PIL.Image.MAX_IMAGE_PIXELS
    PIL.Image.MAX_IMAGE_PIXELS = None
    try:
        with PILLOW_ADAPTED:
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = before


@cache
def _tiff_error_handler() -> Callable[[int | None], int | None] | None:
    """What sets the handler of libtiff's errors and gives the one before; None where Pillow shows no libtiff."""
    try:
        setter = ctypes.CDLL(PIL.Image.core.__file__).TIFFSetErrorHandler  # type: ignore[attr-defined]
    except (AttributeError, OSError, TypeError):
        return None
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return setter


class _Adaptation:
    """Ignores Pillow's warnings and hushes libtiff, and lets Pillow read larger metadata, while any thread is inside.

    What Pillow warns of is readable all the same or one of our errors; so is what libtiff writes to stderr by itself.
    `warnings.catch_warnings` alone isn't safe here: threads that leave in another order than they came restore each
    other's filters. So the first one in changes the filters, the last one out restores them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._n_inside = 0
        self._filters = warnings.catch_warnings()
        self._max_metadata_bytes = 0
        self._tiff_handler: int | None = None

    def __enter__(self) -> None:
        with self._lock:
            if self._n_inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
                self._max_metadata_bytes = PIL.PngImagePlugin.MAX_TEXT_CHUNK
                PIL.PngImagePlugin.MAX_TEXT_CHUNK = max(self._max_metadata_bytes, _MAX_METADATA_BYTES)
                if setter := _tiff_error_handler():
                    self._tiff_handler = setter(None)
            self._n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                if setter := _tiff_error_handler():
                    setter(self._tiff_handler)
                PIL.PngImagePlugin.MAX_TEXT_CHUNK = self._max_metadata_bytes
                self._filters.__exit__(None, None, None)


PILLOW_ADAPTED = _Adaptation()
"""Around all that Pillow reads."""
