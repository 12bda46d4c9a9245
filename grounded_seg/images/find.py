"""Find the images that files, folders, lists of them and patterns name, without opening any."""

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from grounded_seg.errors import InputError
from grounded_seg.images.formats import IMAGE_ENDINGS
from grounded_seg.images.given import Given, PathList, PathPattern, advice_about, refuse_address, shown

_LOG = logging.getLogger(__name__)

_RUN_PICTURES = frozenset({"overlays", "masks", "crops"})
"""Folders of a run's folder with the pictures of that run."""
_MAY_BE_SHORTER = re.compile(r"^\.|/\.|//|/$|\\")
"""Most names of a list are as short as can be, and needn't go through `pathlib`."""


@dataclass(frozen=True)
class FoundImages:
    """The images of a request. Names only: ten million paths would not fit beside the models."""

    root: Path
    """The folder given, or the common parent of several."""
    file_names: tuple[str, ...]
    """Path of each image relative to `root`, POSIX, unique, sorted by code point; never empty."""
    group_starts: tuple[int, ...] = (0,)
    """Index of the first image of each group: the images of one tar, or those between two tars."""

    def path(self, file_name: str) -> Path:
        """Where the image of this name is."""
        return self.root / file_name


def find_images(paths: Sequence[Given], recursive: bool = True) -> FoundImages:
    """List the images that files, folders, lists and patterns name, without opening any.

    A file named directly is taken whatever its ending, a file in a folder or one that matches a pattern only with one
    of `IMAGE_ENDINGS`. Links to files are followed, links to folders only where named directly, so that a link to a
    parent is no endless walk. The pictures of a run (`overlays`, `masks` and `crops` beside its journal or manifest)
    are left out unless named. A folder within a folder or pattern that can't be listed, and what a list names and isn't
    there, stand for themselves: reading them as images gives the reason.

    Raises:
        InputError: If a path doesn't exist, a pattern matches nothing, a folder or list that is named can't be read, a
            list holds addresses, or there is no image at all.
    """
    for path in paths:
        if isinstance(path, Path) and not os.path.lexists(path):
            raise InputError(f"no file or folder is at {shown(path)}; {advice_about(path)}")
    left_out: list[str] = []
    unlisted: set[str] = set()
    texts = list(_texts(paths, left_out, unlisted))
    if not texts and (empty := [path.words for path in paths if isinstance(path, PathList)]):
        raise InputError(f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty; give one path a line")
    root, resolved = _root(texts, unlisted)
    inside = len(os.path.join(root, ""))  # noqa: PTH118  (characters before a name, the separator's too)
    names: list[str] = []
    while texts:
        # Taken out one by one, so that a long list isn't held twice.
        text = texts.pop()
        found = [resolved(text)] if text in unlisted else _images_at(resolved(text), recursive, left_out)
        names += (path[inside:].replace(os.sep, "/") for path in found)
    # Sorted with its repeats, rather than as a set: half the memory for ten million names.
    names.sort()
    if left_out:
        note = "left out %d folders with the pictures of earlier runs, such as %s; to include one, name it"
        _LOG.info(note, len(left_out), shown(min(left_out)))
    if not names:
        places = ", ".join(shown(path) for path in paths) or "an empty list of paths"
        raise InputError(f"no images in {places}; looked for files ending in {' '.join(IMAGE_ENDINGS)}, in any case")
    return FoundImages(root=Path(root), file_names=tuple(name for name, _ in groupby(names)))


def common_root(folders: Sequence[Path]) -> tuple[Path, tuple[str, ...]]:
    """The folder that several folders lie in: the one given, or the absolute common parent of different ones.

    With it comes the way from there to each: POSIX, empty or ending with a slash.
    """
    if len(set(folders)) == 1:
        return folders[0], ("",) * len(folders)
    absolute = [Path(_absolute(str(folder))) for folder in folders]
    root = Path(os.path.commonpath(absolute))
    ways = (folder.relative_to(root).as_posix() for folder in absolute)
    return root, tuple("" if way == "." else f"{way}/" for way in ways)


def _root(texts: Sequence[str], unlisted: set[str]) -> tuple[str, Callable[[str], str]]:
    """Find the root, and how the paths given are written below it; `unlisted` are those to be taken as files."""

    def base(path: str, text: str) -> str:
        return os.path.dirname(path) if text in unlisted else _base(path)  # noqa: PTH120

    bases = {base(text, text) for text in texts}
    if len(bases) > 1:
        # Only now do relative and absolute paths, and those with "..", have to share one root.
        return os.path.commonpath({base(_absolute(text), text) for text in texts}), _absolute
    return bases.pop() if bases else "", str


def _texts(paths: Sequence[Given], left_out: list[str], unlisted: set[str]) -> Iterator[str]:
    """Give each path as the shortest text for it, as `pathlib` writes it; the current folder is empty.

    `unlisted` takes the folders that match a pattern and can't be listed.
    """
    for path in paths:
        if isinstance(path, PathPattern):
            yield from _images_and_folders_of(path, left_out, unlisted)
            continue
        for text in path.paths() if isinstance(path, PathList) else [path]:
            if isinstance(text, str):
                refuse_address(text)
            if not isinstance(text, str) or _MAY_BE_SHORTER.search(text):
                text = str(Path(text))
            yield "" if text == os.curdir else text


def _images_and_folders_of(pattern: PathPattern, left_out: list[str], unlisted: set[str]) -> Iterator[str]:
    """Yield what matches a pattern, without files of other endings and the pictures of runs that it doesn't name."""
    n_fixed, n_found = len(Path(pattern.fixed).parts), 0
    is_of_a_run = cache(_is_of_a_run)
    for text in pattern.paths(unlisted):
        n_found += 1
        parts = Path(text).parts
        within = [Path(*parts[: at + 1]) for at in range(n_fixed, len(parts)) if parts[at] in _RUN_PICTURES]
        pictures = [str(folder) for folder in within if is_of_a_run(str(folder.parent))]
        if pictures:
            left_out += {pictures[0]} - set(left_out)
        elif os.path.isdir(text or os.curdir):
            if not _can_be_listed(text or os.curdir):
                unlisted.add(text)
            yield text
        elif _has_image_ending(text):
            yield text
    if not n_found:
        raise InputError(f"no file or folder matches {shown(pattern)}; check the pattern")


def _can_be_listed(folder: str) -> bool:
    try:
        os.scandir(folder).close()
    except OSError:
        return False
    return True


def _base(path: str) -> str:
    """Give the folder itself, or the one that a file is in."""
    # Not `Path.is_dir`, which raises for what lies in a forbidden folder: reading it gives the reason.
    return path if os.path.isdir(path or os.curdir) else os.path.dirname(path)  # noqa: PTH120


def _absolute(path: str) -> str:
    """Make a path absolute and free of "..", keeping the names of links where that can be."""
    given = Path(path)
    if ".." not in given.parts:
        return str(given.absolute())
    return str(given.resolve() if os.path.isdir(given) else given.parent.resolve() / given.name)


def _images_at(path: str, recursive: bool, left_out: list[str]) -> Iterator[str]:
    """Yield the file itself, or the images of a folder in no particular order; adds to the folders left out."""
    if not os.path.isdir(path or os.curdir):
        yield path
        return
    waiting = [path]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder or os.curdir) as entries:
                for entry in entries:
                    place = os.path.join(folder, entry.name)  # noqa: PTH118  (ten million `Path`s take minutes)
                    if entry.is_dir(follow_symlinks=False):
                        if recursive and entry.name in _RUN_PICTURES and _is_of_a_run(folder):
                            left_out.append(place)
                        elif recursive:
                            waiting.append(place)
                    # A link to nothing is listed, like a folder that can't be.
                    elif _has_image_ending(entry.name) and not (entry.is_symlink() and os.path.isdir(place)):
                        yield place
        except OSError as error:
            if folder == path:
                raise InputError(
                    f"folder {shown(path)} can't be listed ({error.strerror}); check its permissions"
                ) from error
            yield folder


def _is_of_a_run(folder: str) -> bool:
    """Tell a folder that one of our runs wrote from one that only has files of the same names."""
    line_keys, manifest_keys = {"file_name", "status", "instances"}, {"prompts", "images", "paths"}
    return _has_keys(folder, "results.jsonl", line_keys) or _has_keys(folder, "run.json", manifest_keys)


def _has_keys(folder: str, name: str, keys: set[str]) -> bool:
    try:
        with Path(folder, name).open("rb") as file:
            # Of a journal, which has a line for each image, the first is enough.
            content = json.loads(file.readline() if name.endswith("l") else file.read())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= keys


def _has_image_ending(name: str) -> bool:
    stem, dot, ending = name.rpartition(".")
    return bool(stem and dot) and ending.lower() in IMAGE_ENDINGS
