"""The images of a run as the browser gets them: read where the run found them, made smaller, and kept for a while."""

import os
import threading
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grounded_seg.coco.entries import leaves_folder
from grounded_seg.errors import ImageError, InputError
from grounded_seg.images.draw import encoded_picture
from grounded_seg.images.find import root_from
from grounded_seg.images.read import read_image
from grounded_seg.images.remote.addresses import below
from grounded_seg.images.tars import TarImages, images_of_tar
from grounded_seg.records import Address, Image, Location, TarMember
from grounded_seg.settings import MAX_PIXELS

THUMBNAIL_PX, PICTURE_PX = 360, 2560
"""Longest sides."""
_CACHE_BYTES = 48 << 20
_N_DECODING = 2
"""Images that are decoded at once: each may take half a gigabyte."""
_N_TARS = 8
"""Listings that are kept."""


class Pictures:
    """Reads images below one root; for several threads."""

    def __init__(self, root: Path | Address, max_pixels: int) -> None:
        """Read nothing yet."""
        self._root = root
        self._max_pixels = max_pixels
        self._decoding = threading.BoundedSemaphore(_N_DECODING)
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._n_bytes = 0
        self._tars: OrderedDict[str, TarImages] = OrderedDict()

    def jpeg(self, file_name: str, longest_side_px: int) -> bytes:
        """Give an image as JPEG, upright and at most so large.

        Raises:
            InputError: If it isn't there or can't be read.
        """
        key = (file_name, longest_side_px)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        with self._decoding:
            encoded = encoded_picture(self.image(file_name).pixels, ".jpg", longest_side_px)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = encoded
                self._n_bytes += len(encoded)
            while self._n_bytes > _CACHE_BYTES and len(self._kept) > 1:
                self._n_bytes -= len(self._kept.popitem(last=False)[1])
        return encoded

    def image(self, file_name: str) -> Image:
        """Decode an image.

        Raises:
            InputError: As `jpeg`.
        """
        return read_image(self._location(file_name), self._max_pixels)

    def _location(self, file_name: str) -> Location:
        """Where an image is; a name that leaves the folder is no image's."""
        if leaves_folder(file_name) or "\0" in file_name:
            raise ImageError(f"{file_name!r} leaves the folder of the images")
        n_before = file_name.lower().find(".tar/")
        place = self._below(file_name)
        if n_before < 0 or (isinstance(place, Path) and os.path.lexists(place)):
            return place
        end = n_before + len(".tar")
        return self._member(self._below(file_name[:end]), file_name[end + 1 :])

    def _below(self, name: str) -> Path | Address:
        return below(self._root, name) if isinstance(self._root, Address) else self._root / name

    def _member(self, tar: Path | Address, member: str) -> Location:
        images = self._listed(tar)
        index = bisect_left(images.names, member)
        if index == len(images.names) or images.names[index] != member:
            raise ImageError(f"{tar} holds no image {member!r}")
        return TarMember(tar, member, images.offsets[index], images.lengths[index])

    def _listed(self, tar: Path | Address) -> TarImages:
        with self._lock:
            if str(tar) not in self._tars:
                self._tars[str(tar)] = images_of_tar(tar)
            self._tars.move_to_end(str(tar))
            while len(self._tars) > _N_TARS:
                self._tars.popitem(last=False)
            return self._tars[str(tar)]


def pictures_of(manifest: Mapping[str, Any], path: Path, images: Path | None = None) -> Pictures:
    """Give the images of a run, from where it found them or from another folder; `path` is the manifest's.

    Raises:
        InputError: If the manifest doesn't say where they are.
    """
    try:
        max_pixels = int(manifest["settings"].get("max_pixels", MAX_PIXELS))
        root = root_from(manifest["images"]["root"]) if images is None else images
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} doesn't say where the images are; name their folder with --images") from error
    return Pictures(root, max_pixels)
