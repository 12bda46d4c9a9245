"""Which image of a data set is meant by the file names that somebody's predictions have."""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from grounded_seg.coco.dataset import DataSetImage


def images_by_name(file_names: Iterable[str], images: Sequence[DataSetImage]) -> dict[str, DataSetImage]:
    """Find the image of each name; names that lead to none are left out.

    Names that the data set has are taken as they are. A run on a sub-folder has shorter ones, a run on a parent folder
    longer ones: there the last part decides, if only one image of the data set has it and no name fits that one better.
    `val/1.png` finds `1.png`, and `1.png` finds `val/1.png`.

    Args:
        file_names: As the predictions have them, with forward slashes.
        images: The data set's.

    Raises:
        ValueError: If a name is listed twice in the data set, or two names could mean the same image.
    """
    n_listed = Counter(image.file_name for image in images)
    by_name = {image.file_name: image for image in images}
    n_of_last_part = Counter(map(_last_part, by_name))
    by_last_part = {_last_part(name): image for name, image in by_name.items() if n_of_last_part[_last_part(name)] == 1}
    wanted = set(file_names)
    found = {name: by_name[name] for name in sorted(wanted) if name in by_name}
    for name in found:
        if n_listed[name] > 1:
            raise ValueError(f"the data set lists {name!r} {n_listed[name]} times, and which one is meant isn't known")
    name_of = {image.id: name for name, image in found.items()}
    for name in sorted(wanted - set(found)):
        image = by_last_part.get(_last_part(name))
        if image is None or image.file_name in found:
            continue
        other = name_of.setdefault(image.id, name)
        if other != name:
            raise ValueError(f"{other!r} and {name!r} could both be the data set's {image.file_name!r}")
        found[name] = image
    return found


def _last_part(file_name: str) -> str:
    return PurePosixPath(file_name).name
