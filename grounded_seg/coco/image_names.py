"""Names that mean the same: of images in predictions and in a data set, and of classes.

Where the exact name is nowhere, its composed form decides (Unicode's NFC): some systems write an accent as a letter of
its own.
"""

import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TypeAlias

from grounded_seg.coco.data_set import DataSetImage
from grounded_seg.coco.values import Notes

_Parts: TypeAlias = tuple[str, ...]
OTHER_FORM = "{} were found by names whose letters are encoded in another form (NFC, NFD)"
"""Note of what was found so."""


def images_by_name(
    file_names: Iterable[str], images: Sequence[DataSetImage], notes: Notes | None = None
) -> dict[str, DataSetImage]:
    """The image of each name; names that lead to none are left out, those that only their composed form found noted.

    Names that the data set has are taken as they are. A run on a sub-folder has shorter ones, a run on a parent folder
    longer ones: there as many of the last parts decide as a name and any image have in common, if only one image has
    them and no other name fits that one better. `val/1.png` finds `1.png`, `1.png` finds `val/1.png`, and
    `val/a/1.png` finds `a/1.png` beside `b/1.png`.

    Raises:
        ValueError: If a name is listed twice in the data set, or two names could mean the same image.
    """
    names = set(file_names)
    found = _images_by_exact_name(names, images)
    seen = {image.id for image in found.values()}
    # Only the letters beyond ASCII have two forms.
    rest = {name for name in names - found.keys() if not name.isascii()}
    if others := [image for image in images if image.id not in seen and not image.file_name.isascii()]:
        by_form: dict[str, list[str]] = {}
        for name in sorted(rest):
            by_form.setdefault(composed(name), []).append(name)
        own_names = {image.id: image.file_name for image in others}
        images_composed = [replace(image, file_name=composed(image.file_name)) for image in others]
        for form, image in _images_by_exact_name(by_form, images_composed).items():
            own_name = own_names[image.id]
            if len(by_form[form]) > 1:
                raise ValueError(f"{form!r}, in two forms of its letters (NFC, NFD), could both be {own_name!r}")
            found[by_form[form][0]] = replace(image, file_name=own_name)
            if notes is not None:
                notes.add(OTHER_FORM.format("images"), repr(own_name))
    return found


def names_among(names: Iterable[str], known: Collection[str], notes: Notes) -> dict[str, str]:
    """The known class name that each name means, itself or the one of the same composed form; others are left out."""
    by_form: dict[str, str] = {}
    for one in known:
        by_form.setdefault(composed(one), one)
    found = {}
    for name in names:
        if name in known:
            found[name] = name
        elif (own := by_form.get(composed(name))) is not None:
            found[name] = own
            notes.add(OTHER_FORM.format("classes"), repr(own))
    return found


def composed(name: str) -> str:
    """The composed form of a name."""
    return unicodedata.normalize("NFC", name)


def _images_by_exact_name(file_names: Iterable[str], images: Sequence[DataSetImage]) -> dict[str, DataSetImage]:
    n_listed = Counter(image.file_name for image in images)
    by_name = {image.file_name: image for image in images}
    # None for endings that several names share.
    by_ending: dict[_Parts, DataSetImage | None] = {}
    for name, listed in by_name.items():
        for ending in _endings(name):
            by_ending[ending] = None if ending in by_ending else listed
    found: dict[str, DataSetImage] = {}
    best: dict[str, tuple[float, str]] = {}
    # Whole names first, then by how much they have in common: what comes later fits worse, or just as well.
    fits = [(*_fit(name, by_name, by_ending), name) for name in sorted(set(file_names))]
    for n_parts, image, name in sorted(fits, key=lambda fit: -fit[0]):
        if image is None:
            continue
        if (n := n_listed[image.file_name]) > 1:
            raise ValueError(f"the data set lists {image.file_name!r} {n} times, and which one is meant isn't known")
        n_best, other = best.setdefault(image.file_name, (n_parts, name))
        if other == name:
            found[name] = image
        elif n_best == n_parts:
            raise ValueError(f"{other!r} and {name!r} could both be the data set's {image.file_name!r}")
    return found


def _fit(
    name: str, by_name: Mapping[str, DataSetImage], by_ending: Mapping[_Parts, DataSetImage | None]
) -> tuple[float, DataSetImage | None]:
    """Give the image that fits a name best and how many last parts they have in common; infinitely many if all."""
    if name in by_name:
        return float("inf"), by_name[name]
    # The longest ending that any image has: shorter ones fit that image too, and perhaps others.
    ending = next((one for one in _endings(name) if one in by_ending), ())
    return len(ending), by_ending.get(ending)


def _endings(name: str) -> list[_Parts]:
    """Give the last parts of a name, all of them first."""
    parts = PurePosixPath(name).parts
    return [parts[start:] for start in range(len(parts))]
