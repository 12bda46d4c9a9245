"""What makes a row of a data set unusable: images that can't be read or are of another size, boxes that can't be."""

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

from grounded_seg.coco.entries import leaves_folder
from grounded_seg.coco.image_files import file_of, other_size
from grounded_seg.coco.values import Notes
from grounded_seg.errors import ImageError
from grounded_seg.images.read import read_image
from grounded_seg.records import BoxXyxy, ImageSize
from grounded_seg.settings import MAX_PIXELS

Progress: TypeAlias = Callable[[int, int], None]
"""Told how many are done, and of how many."""
WorkProgress: TypeAlias = Callable[[str, int, int], None]
"""Told what is counted, how many are done, and of how many."""

_MOST_THREADS = 8
_SLACK = 0.01
"""Share of a side that a box may stick out of the image, and is then cut: tools round, and draw up to the border."""


class UnusableRowError(ValueError):
    """A row can't be learnt from; the message says why and what to do."""


class UnusableImageError(UnusableRowError):
    """Nor can any other row about the boxes of its image: they would deny what this one lists."""

    def __init__(self, what: str, image: Path) -> None:
        super().__init__(what)
        self.image = image


class ImageSizes:
    """The upright sizes of a data set's images, each decoded to the end once, as training will, several at a time."""

    def __init__(self, max_pixels: int = MAX_PIXELS, progress: Progress = lambda _done, _all: None) -> None:
        """Begin with none; `progress` is told how many are decoded, of those that are known so far."""
        self._max_pixels = max_pixels
        self._progress = progress
        self._found: dict[Path, ImageSize | ImageError] = {}

    def read(self, folder: Path, file_names: Iterable[str]) -> None:
        """Decode the images of these names that are there, beside their annotations, as `read_paths` does."""
        paths = []
        for name in file_names:
            with suppress(UnusableRowError):
                paths.append(image_beside(folder, name))
        self.read_paths(paths)

    def read_paths(self, paths: Iterable[Path]) -> None:
        """Decode images in several threads; what is wrong with one is said when it is asked for."""
        new = [path for path in dict.fromkeys(paths) if path not in self._found]
        n_before = len(self._found)
        threads = ThreadPoolExecutor(min(_MOST_THREADS, os.cpu_count() or 1))
        try:
            for path, size in zip(new, threads.map(self._size, new), strict=True):
                self._found[path] = size
                self._progress(len(self._found), n_before + len(new))
        finally:
            threads.shutdown(cancel_futures=True)

    def of(self, path: Path, stated: ImageSize | None = None) -> ImageSize:
        """Give an image's upright size; `UnusableRowError` if it can't be read, or isn't what the data set states."""
        if path not in self._found:
            self._found[path] = self._size(path)
        size = self._found[path]
        if isinstance(size, ImageError):
            raise UnusableRowError(str(size)) from size
        if stated is not None and stated != size:
            raise UnusableRowError(f"{other_size(path.name, stated, size)}; export the data set again")
        return size

    def _size(self, path: Path) -> ImageSize | ImageError:
        try:
            return read_image(path, self._max_pixels).size
        except ImageError as error:
            return error


def image_beside(folder: Path, file_name: str, notes: Notes | None = None) -> Path:
    """Find an image beside its annotations, or in `images` there; `UnusableRowError` if it is in neither."""
    shown = repr(file_name[:255])
    if leaves_folder(file_name.replace("\\", "/")):
        raise UnusableRowError(f"the image {shown} is outside of the folder; put it there and name its path in it")
    for parent in (folder, folder / "images"):
        if (path := file_of(parent, file_name, notes)) is not None:
            return path
    raise UnusableRowError(f"the image {shown} isn't there; put it beside the annotations or take the row out")


def checked_box(box_xyxy: BoxXyxy, size: ImageSize) -> BoxXyxy:
    """Cut a box, of finite pixels, at the border of its upright image.

    Raises:
        UnusableRowError: If its corners are in the wrong order, it has no area, or it lies outside of the image by
            more than a hundredth of the side.
    """
    x0, y0, x1, y1 = box_xyxy
    shown = f"the box {', '.join(f'{edge:g}' for edge in box_xyxy)} (x0, y0, x1, y1)"
    if x1 <= x0 or y1 <= y0:
        raise UnusableRowError(f"{shown} has no area; correct it or take it out")
    reach = max(-x0 / size.width, -y0 / size.height, x1 / size.width - 1, y1 / size.height - 1)
    if reach > _SLACK:
        raise UnusableRowError(f"{shown} lies partly outside the image of {size.width} x {size.height} px; correct it")
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(size.width)), min(y1, float(size.height))
