"""File names for formats that keep one label file per image, where `a.jpg` and `a.png` would share theirs."""

from collections.abc import Iterable
from pathlib import PurePosixPath


def unique_names(file_names: Iterable[str], *, flat: bool) -> dict[str, str]:
    """Give each image a name whose stem no other has, whatever the case of its letters.

    A name that is free stays as it is; a later one that isn't gets a number.

    Args:
        file_names: Relative, POSIX, each once.
        flat: Put all into one folder: `a/b.jpg` becomes `a__b.jpg`.

    >>> unique_names(["a.jpg", "a.png", "b/a.jpg"], flat=True)
    {'a.jpg': 'a.jpg', 'a.png': 'a_2.png', 'b/a.jpg': 'b__a.jpg'}
    """
    taken: set[str] = set()
    names = {}
    for file_name in file_names:
        path = PurePosixPath(file_name.replace("/", "__") if flat else file_name)
        name, number = path, 1
        while str(name.with_suffix("")).casefold() in taken:
            number += 1
            name = path.with_stem(f"{path.stem}_{number}")
        taken.add(str(name.with_suffix("")).casefold())
        names[file_name] = str(name)
    return names
