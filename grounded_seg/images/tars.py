"""Images in tars, as webdataset writes them: listed by their headers, read one by one where they stand.

No tar is unpacked, and none is held in memory. A tar is listed once by jumping from header to header, which storage
elsewhere answers in blocks; afterwards each image is one read at its position, wherever a run is resumed.
"""

import io
import tarfile
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grounded_seg.errors import ImageAccessError, ImageError, InputError
from grounded_seg.images.formats import has_image_ending
from grounded_seg.images.given import shown
from grounded_seg.images.remote.addresses import safe_name
from grounded_seg.images.remote.storage import RemoteFile
from grounded_seg.records import Address

_BLOCK_BYTES = tarfile.BLOCKSIZE
_MOST_HEADER_BYTES = 1 << 20
"""Of one header: long names and the like are read into memory."""
_REMOTE_BLOCK_BYTES = 1 << 20
"""Read at once from storage elsewhere: jumping over less would take as long as reading it."""
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}


@dataclass(frozen=True)
class TarImages:
    """The images of one tar, sorted by name; 16 bytes for each beside its name."""

    tar: Path | Address
    names: tuple[str, ...]
    """Of the images within the tar, safe as a path."""
    offsets: "array[int]"
    lengths: "array[int]"
    n_replaced: int
    """Members that a later one of the same name replaces, as where a tar is unpacked."""
    damage: str | None
    """Why it can't be read, or not to its end; None for a whole one."""


def is_tar(name: str) -> bool:
    """Whether a path or address ends as a tar does.

    Raises:
        InputError: If it ends as a compressed one, whose images can't be read one by one.
    """
    ending = name.lower()
    if ending.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise InputError(f"{shown(name)} is compressed, so no image in it has a position; unpack it to a .tar")
    return ending.endswith(".tar")


def images_of_tar(tar: Path | Address) -> TarImages:
    """List the images of a tar, by its headers.

    Members that are no files, and those without the ending of an image, are left out. Of a tar that is damaged or cut
    off, the images before that are listed.

    Raises:
        InputError: If it is compressed, or storage gives no answer now.
    """
    places: dict[str, tuple[int, int]] = {}
    n_images, damage = 0, None
    try:
        with _opened(tar) as file:
            _refuse_compressed(tar, file.read(_BLOCK_BYTES))
            file.seek(0)
            for name, offset, n_bytes in _files_in(file):
                if has_image_ending(name.rpartition("/")[2]):
                    n_images += 1
                    places[safe_name(name)] = (offset, n_bytes)
    except ImageAccessError as error:
        raise InputError(str(error)) from error
    except ImageError as error:
        damage = str(error)
    except OSError as error:
        damage = f"tar {shown(tar)} can't be read ({error.strerror}); check the path and its permissions"
    except tarfile.TarError as error:
        kept = f"the images behind the first {n_images} are lost" if n_images else "no image of it can be read"
        damage = f"tar {shown(tar)} is damaged or cut off ({error}), {kept}; copy it again"
    names = tuple(sorted(places))
    offsets, lengths = (array("q", (places[name][at] for name in names)) for at in (0, 1))
    return TarImages(tar, names, offsets, lengths, n_images - len(names), damage)


def _opened(tar: Path | Address) -> io.BufferedReader:
    return io.BufferedReader(RemoteFile(tar), _REMOTE_BLOCK_BYTES) if isinstance(tar, Address) else tar.open("rb")


def _refuse_compressed(tar: Path | Address, start: bytes) -> None:
    kind = next((kind for mark, kind in _COMPRESSED.items() if start.startswith(mark)), None)
    if kind is not None:
        raise InputError(f"{shown(tar)} is compressed by {kind}, so no image in it has a position; unpack it to a .tar")


class _Within(io.RawIOBase):
    """Refuses a header that would fill the memory."""

    def __init__(self, file: io.BufferedReader) -> None:
        self._file = file

    def read(self, n_bytes: int = -1) -> bytes:
        if not 0 <= n_bytes <= _MOST_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {n_bytes} bytes")
        return self._file.read(n_bytes)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _files_in(file: io.BufferedReader) -> Iterator[tuple[str, int, int]]:
    """Yield name, position and length of each whole file in a tar.

    Raises:
        tarfile.TarError: Where it is damaged or cut off.
    """
    n_all = file.seek(0, io.SEEK_END)
    file.seek(0)
    try:
        # It reads, seeks and tells, which is all that is asked of it; `members` has no type.
        tar: Any = tarfile.TarFile(fileobj=_Within(file))
        end = 0
        while (member := tar.next()) is not None:
            # The library would keep all of them.
            tar.members.clear()
            after = member.offset_data + (member.size if member.isreg() else 0)
            if member.size < 0 or after > n_all or member.offset_data < end:
                raise tarfile.ReadError(f"byte {member.offset}")
            end = after
            if member.isreg() and not member.issparse():
                yield member.name.lstrip("/").removeprefix("./"), member.offset_data, member.size
    except (ValueError, OverflowError, EOFError, RecursionError) as error:
        raise tarfile.ReadError(str(error)) from error
    file.seek(tar.offset)
    if file.read(_BLOCK_BYTES).strip(b"\0"):
        raise tarfile.ReadError(f"byte {tar.offset}")
