"""The files of a data set's images: where each is, and whether it is of the size that the data set says."""

import os
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

from grounded_seg.coco.image_names import OTHER_FORM, composed
from grounded_seg.coco.values import Notes
from grounded_seg.errors import ImageError, InputError
from grounded_seg.images.read import upright_size
from grounded_seg.records import ImageSize


def file_of(folder: Path, file_name: str, notes: Notes | None = None) -> Path | None:
    """The file of an image below its folder; None where there is none.

    Each part of the name that isn't there is looked for in its other forms, which is noted.
    """
    exact = folder / file_name
    # pathlib's own raises where a name is too long.
    if os.path.isfile(exact):
        return exact
    if file_name.isascii():
        return None
    path = folder
    for part in PurePosixPath(file_name).parts:
        there = _part_of(path, part)
        if there is None:
            return None
        path = there
    if not os.path.isfile(path):
        return None
    if notes is not None:
        notes.add(OTHER_FORM.format("images"), repr(file_name))
    return path


def _part_of(folder: Path, part: str) -> Path | None:
    """A file or folder of that name, or of another form of it."""
    for form in (part, composed(part), unicodedata.normalize("NFD", part)):
        if os.path.exists(folder / form):
            return folder / form
    with suppress(OSError):
        return next((one for one in folder.iterdir() if composed(one.name) == composed(part)), None)
    return None


def check_sizes(source: Path, images: Iterable[tuple[str, str, ImageSize | None]], folder: Path, notes: Notes) -> None:
    """Compare the sizes that a file gives with the upright ones of its images, without decoding their pixels.

    Args:
        source: The file, for messages.
        images: Place in the file, file name and size of each.
        folder: What the names are relative to.
        notes: Are told of images that aren't there or can't be read.

    Raises:
        InputError: If one is of another size; says so where width and height are swapped.
    """
    for place, name, stated in images:
        path = file_of(folder, name, notes)
        if path is None:
            notes.add(f"images aren't in {folder}, so that their sizes weren't compared", repr(name))
            continue
        try:
            size = upright_size(path)
        except ImageError:
            notes.add("images can't be read, so that their sizes weren't compared", repr(name))
            continue
        if stated is not None and stated != size:
            raise InputError(
                f"{source}: {place}: {other_size(name, stated, size)}; `grounded-seg validate {source} --images "
                f"{folder} --fix OUT` mends what the image proves"
            )


def other_size(name: str, stated: ImageSize, found: ImageSize) -> str:
    """Say that an image isn't of the size that its data set gives."""
    swapped = ": width and height are swapped" if stated == ImageSize(found.height, found.width) else ""
    return (
        f"the image {name!r} is {stated.width} x {stated.height} px there, but upright it is {found.width} x "
        f"{found.height} px{swapped}"
    )
