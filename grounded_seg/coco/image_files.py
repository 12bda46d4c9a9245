"""The files of a data set's images: where each is, and whether it is of the size that the data set says."""

import os
from collections.abc import Iterable, Mapping
from functools import lru_cache
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
    """A file or folder of that name, or the only one of another form of it."""
    if os.path.exists(folder / part):
        return folder / part
    try:
        name = _names_by_form(str(folder), folder.stat().st_mtime_ns).get(composed(part))
    except OSError:
        return None
    return None if name is None else folder / name


@lru_cache(maxsize=64)
def _names_by_form(folder: str, changed_ns: int) -> Mapping[str, str | None]:  # noqa: ARG001  (part of the key)
    """The names in a folder, as it was at a time, by their composed form; None for those that share one.

    A folder may hold 100,000 names, and each of them may be looked for.
    """
    found: dict[str, str | None] = {}
    with os.scandir(folder) as entries:
        # Only letters beyond ASCII have two forms.
        for name in (entry.name for entry in entries if not entry.name.isascii()):
            found[composed(name)] = None if composed(name) in found else name
    return found


def check_sizes(
    source: Path, images: Iterable[tuple[str, str, ImageSize | None]], folder: Path, notes: Notes
) -> dict[str, ImageSize]:
    """Compare the sizes that a file gives with the upright ones of its images, without decoding their pixels.

    Returns the upright sizes of those for which the file gives none, by name.

    Args:
        source: The file, for messages.
        images: Place in the file, file name and size of each.
        folder: What the names are relative to.
        notes: Are told of images that aren't there or can't be read, or whose size the file lacks.

    Raises:
        InputError: If one is of another size; says so where width and height are swapped.
    """
    missing = {}
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
        if stated is None:
            missing[name] = size
            notes.add("images without width and height got those of their files", place)
        elif stated != size:
            raise InputError(
                f"{source}: {place}: {other_size(name, stated, size)}; `grounded-seg validate {source} --images "
                f"{folder} --fix OUT` mends what the image proves"
            )
    return missing


def other_size(name: str, stated: ImageSize, found: ImageSize) -> str:
    """Say that an image isn't of the size that its data set gives."""
    swapped = ": width and height are swapped" if stated == ImageSize(found.height, found.width) else ""
    return (
        f"the image {name!r} is {stated.width} x {stated.height} px there, but upright it is {found.width} x "
        f"{found.height} px{swapped}"
    )
