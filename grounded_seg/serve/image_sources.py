"""The bytes of an image as a request names them: in the request itself, or below the server's root."""

import base64
import binascii
import os
from pathlib import Path, PurePath
from urllib.parse import unquote_to_bytes

from starlette.exceptions import HTTPException

from grounded_seg.errors import ImageAccessError, ImageError
from grounded_seg.images.contents import image_bytes
from grounded_seg.images.read import image_from_bytes
from grounded_seg.records import Image

_LONGEST_NAME = 200


def decoded(content: bytes, name: str, max_pixels: int) -> Image:
    """Decode the bytes of an image, upright.

    Raises:
        ImageError: If they are none, or too large.
    """
    return image_from_bytes(content, Path(name), max_pixels)


def plain_name(given: str | None) -> str:
    r"""Give what an upload is called without folders and control characters; `image` if nothing is left.

    >>> plain_name("C:\\photos\\red car.jpg"), plain_name("../..")
    ('red car.jpg', 'image')
    """
    last = (given or "").replace("\\", "/").rpartition("/")[2].encode("utf-8", "replace").decode("utf-8")
    name = "".join(letter for letter in last if letter.isprintable()).strip()[-_LONGEST_NAME:]
    return name if name.strip(".") else "image"


def bytes_from_text(text: str) -> bytes:
    """Read base64, or a data URL.

    Raises:
        HTTPException: 400 if it is neither.
    """
    try:
        if text[:5].lower() == "data:":
            kind, comma, text = text.partition(",")
            if not comma:
                raise ValueError("it has no comma")
            if not kind.lower().endswith(";base64"):
                return unquote_to_bytes(text)
        # Line breaks, as some encoders add them.
        return base64.b64decode("".join(text.split()), validate=True)
    except (ValueError, binascii.Error) as error:
        raise HTTPException(400, f"the image is neither base64 nor a data URL ({error})") from error


def path_below(root: Path | None, path: str) -> Path:
    """Find a file below the root, with all links resolved.

    Raises:
        HTTPException: 403 if there is no root, or the file isn't below it; 404 if it isn't there.
    """
    if root is None:
        raise HTTPException(403, "this server reads no files; start it with --root DIR")
    try:
        base = root.resolve(strict=True)
        found = Path(os.path.realpath(base / path))
        is_below = found.is_relative_to(base)
        is_there = is_below and found.is_file()
    except (OSError, ValueError) as error:
        raise HTTPException(404, "no file can have this path") from error
    if not is_below:
        raise HTTPException(403, "the path leads out of the server's root")
    if not is_there:
        raise HTTPException(404, f"no file is at {PurePath(path).as_posix()!r} below the server's root")
    return found


def bytes_below(root: Path | None, path: str, max_pixels: int) -> tuple[bytes, str]:
    """Read a file below the root; gives its name relative to that too, POSIX.

    Raises:
        HTTPException: As `path_below`.
        ImageError: If it can't be read.
    """
    found = path_below(root, path)
    name = PurePath(os.path.normpath(path)).as_posix()
    if root is not None and PurePath(name).is_absolute():
        name = found.relative_to(root.resolve()).as_posix()
    try:
        return image_bytes(found, max_pixels), name
    except ImageError as error:
        # Where the root is concerns nobody else.
        kind = ImageAccessError if isinstance(error, ImageAccessError) else ImageError
        raise kind(str(error).replace(str(found), name)) from error
