"""The bytes of an image file, wherever it is: on disk, in storage elsewhere, in a tar."""

import errno
import os
import stat
from pathlib import Path

from grounded_seg.errors import ImageAccessError, ImageError
from grounded_seg.images.given import advice_about, shown
from grounded_seg.images.remote import storage
from grounded_seg.images.remote.faults import StorageError
from grounded_seg.records import Address, DamagedTar, Location, TarMember
from grounded_seg.settings import MAX_PIXELS

_BYTES_PER_PIXEL = 4
_METADATA_BYTES = 64 << 20
"""An image file of more bytes than so many a pixel and these isn't fetched."""
_LASTING = {errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
"""Why a file can't be reached today nor tomorrow, unless someone changes it."""


def image_bytes(path: Location, max_pixels: int = MAX_PIXELS) -> bytes:
    """Read the file of an image, wherever it is, within the size that an image of `max_pixels` may have.

    Raises:
        ImageError, ImageAccessError, InputError: As `read_image`, but for what is in the file.
    """
    limit = _BYTES_PER_PIXEL * max_pixels + _METADATA_BYTES
    if isinstance(path, DamagedTar):
        raise ImageError(path.reason)
    if isinstance(path, TarMember):
        content = _member_bytes(path, limit)
    elif isinstance(path, Address):
        content = _range(path, 0, limit + 1)
    else:
        check_readable(path)
        content = _local_range(path, path, 0, limit + 1)
    if len(content) > limit:
        raise too_large(path, f"more than {limit} bytes", max_pixels)
    if not content:
        raise ImageError(f"{shown(path)} is empty (0 bytes); copy it again")
    return content


def _member_bytes(path: TarMember, limit: int) -> bytes:
    n_bytes = min(path.n_bytes, limit + 1)
    if isinstance(path.tar, Path):
        content = _local_range(path, path.tar, path.offset, n_bytes)
    else:
        content = _range(path.tar, path.offset, n_bytes)
    if len(content) < n_bytes:
        raise ImageError(f"{shown(path)} is cut off: its tar has changed or is truncated; copy the tar again")
    return content


def _range(where: Address, start: int, n_bytes: int) -> bytes:
    try:
        return storage.read_range(where, start, n_bytes)
    except StorageError as error:
        raise storage.told(where, error) from error


def _local_range(path: Location, where: Path, start: int, n_bytes: int) -> bytes:
    try:
        with where.open("rb") as file:
            file.seek(start)
            # Memory is taken for all that is asked for.
            return file.read(max(0, min(n_bytes, os.fstat(file.fileno()).st_size - start)))
    except OSError as error:
        raise out_of_reach(path, error) from error


def check_readable(path: Path) -> None:
    """Refuse what isn't a file with bytes in it, each with its own reason."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        if path.is_symlink():
            raise ImageError(f"{shown(path)} is a link to a file that isn't there; remove the link") from error
        raise ImageError(f"no file is at {shown(path)}; {advice_about(path)}") from error
    except OSError as error:
        if error.errno not in _LASTING:
            raise out_of_reach(path, error) from error
        raise ImageError(f"{shown(path)} can't be reached ({error.strerror}); check its permissions") from error
    except ValueError as error:
        raise ImageError(f"no file can be at {shown(path)} ({error}); check the path") from error
    if stat.S_ISDIR(status.st_mode):
        why = ", not an image"
        try:
            os.scandir(path).close()
        except OSError as error:
            why = f" that can't be listed ({error.strerror})"
        raise ImageError(f"{shown(path)} is a folder{why}; name the images in it")
    if not stat.S_ISREG(status.st_mode):
        # Opening a pipe would wait forever.
        raise ImageError(f"{shown(path)} is a pipe or a device, not a file; save the image to a file first")
    if status.st_size == 0:
        raise ImageError(f"{shown(path)} is empty (0 bytes); copy it again")


def out_of_reach(path: Location, error: OSError) -> ImageAccessError:
    """The error for a file that the system can't read at present."""
    advice = "see to the disk or the share, and try again"
    return ImageAccessError(f"{shown(path)} can't be read now ({error.strerror}); {advice}")


def too_large(path: Location, what: str, max_pixels: int) -> ImageError:
    """The error for an image beyond the limit."""
    limit = f"the limit is {max_pixels} pixels; scale it down, or raise --max-pixels"
    return ImageError(f"{shown(path)} is too large: {what}, {limit}")
