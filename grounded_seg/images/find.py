"""Find the images that files, folders, lists of them and patterns name, without opening any."""

import logging
import os
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

from grounded_seg.errors import InputError
from grounded_seg.images.formats import IMAGE_ENDINGS, has_image_ending
from grounded_seg.images.found import FoundImages, assembled
from grounded_seg.images.given import Given, PathList, PathPattern, advice_about, given_from, shown
from grounded_seg.images.parquet_list import ParquetColumn
from grounded_seg.images.remote.addresses import AddressPattern, Braces, address_from, below, common_address
from grounded_seg.images.remote.elsewhere import Elsewhere
from grounded_seg.images.tars import is_tar
from grounded_seg.records import Address
from grounded_seg.text.documents import MOST_BYTES, json_of

_LOG = logging.getLogger(__name__)

_RUN_PICTURES = frozenset({"overlays", "masks", "crops"})
"""Folders of a run's folder with the pictures of that run."""
_LISTS = (PathList, ParquetColumn)
_MAY_BE_SHORTER = re.compile(r"^\.|/\.|//|/$|\\")
"""Most names of a list are as short as can be, and needn't go through `pathlib`."""


def find_images(paths: Sequence[Given], recursive: bool = True) -> FoundImages:
    """List the images that files, folders, tars, lists, patterns and addresses name, without opening any.

    A file named directly is taken whatever its ending, a file in a folder or one that matches a pattern only with one
    of `IMAGE_ENDINGS`. Links to files are followed, links to folders only where named directly, so that a link to a
    parent is no endless walk. The pictures of a run (`overlays`, `masks` and `crops` beside its journal or manifest)
    are left out unless named. A folder within a folder or pattern that can't be listed, and what a list names and isn't
    there, stand for themselves: reading them as images gives the reason. Tars are listed where they are named, by
    themselves or by a pattern.

    Raises:
        InputError: If a path doesn't exist, a pattern matches nothing, a folder, list or bucket that is named can't be
            read, images lie on this disk and elsewhere, or there is no image at all.
        UsageError: If a package for a kind of storage or list isn't installed.
    """
    paths = [one for path in paths for one in (map(given_from, path.texts()) if isinstance(path, Braces) else [path])]
    for path in paths:
        if isinstance(path, Path) and not os.path.lexists(path):
            raise InputError(f"no file or folder is at {shown(path)}; {advice_about(path)}")
    left_out: list[str] = []
    unlisted: set[str] = set()
    elsewhere = Elsewhere()
    texts = list(_texts(paths, left_out, unlisted, elsewhere, recursive))
    if not (texts or elsewhere) and (empty := [path.words for path in paths if isinstance(path, _LISTS)]):
        raise InputError(f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} empty; give one path a line")
    if texts and elsewhere:
        raise InputError(
            f"some images are on this disk, as {shown(texts[0])}, and some in {shown(elsewhere.root())}; run each "
            "alone, and merge the runs with merge-runs"
        )
    if elsewhere:
        root = elsewhere.root()
        names, addresses, tars = elsewhere.named(root)
        found = assembled(root, names, tars, addresses)
    else:
        found = _on_disk(texts, recursive, left_out, unlisted)
    if left_out:
        note = "left out %d folders with the pictures of earlier runs, such as %s; to include one, name it"
        _LOG.info(note, len(left_out), shown(min(left_out)))
    if not found.file_names:
        places = ", ".join(shown(path) for path in paths) or "an empty list of paths"
        raise InputError(
            f"no images in {places}; looked for files ending in {' '.join(IMAGE_ENDINGS)}, in any case; tars are named "
            "themselves, as in 'FOLDER/*.tar'"
        )
    return found


def _on_disk(texts: list[str], recursive: bool, left_out: list[str], unlisted: set[str]) -> FoundImages:
    root, resolved = _root(texts, unlisted)
    inside = len(os.path.join(root, ""))  # noqa: PTH118  (characters before a name, the separator's too)
    names: list[str] = []
    tars: dict[str, Path | Address] = {}
    while texts:
        # Taken out one by one, so that a long list isn't held twice.
        text = texts.pop()
        place = resolved(text)
        if is_tar(place) and not os.path.isdir(place):
            tars[place[inside:].replace(os.sep, "/")] = Path(place)
            continue
        found = [place] if text in unlisted else _images_at(place, recursive, left_out)
        names += (path[inside:].replace(os.sep, "/") for path in found)
    return assembled(Path(root), names, tars)


def image_files(given: Path | PathPattern) -> list[Path]:
    """List the image files that a folder or pattern of this disk names, as `find_images` does."""
    found = find_images([given])
    return [Path(found.root, name) for name in found.file_names] if isinstance(found.root, Path) else []


def root_from(text: str) -> Path | Address:
    """A root as `run.json` has it: a folder or an address."""
    return address_from(text) or Path(text)


def common_root(folders: Sequence[Path | Address]) -> tuple[Path | Address, tuple[str, ...]]:
    """The folder that several folders lie in: the one given, or the absolute common parent of different ones.

    With it comes the way from there to each: POSIX, empty or ending with a slash.

    Raises:
        InputError: If they are in different kinds of storage.
    """
    if len(set(folders)) == 1:
        return folders[0], ("",) * len(folders)
    addresses = [folder.url for folder in folders if isinstance(folder, Address)]
    if addresses:
        shared = common_address([*addresses, *(f"file://{one}" for one in folders if isinstance(one, Path))])
        inside = len(below(shared, "").url)
        return shared, tuple(f"{way}/" if (way := url[inside:]) else "" for url in addresses)
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


def _texts(
    paths: Sequence[Given], left_out: list[str], unlisted: set[str], elsewhere: Elsewhere, recursive: bool
) -> Iterator[str]:
    """Give each path as the shortest text for it, as `pathlib` writes it; the current folder is empty.

    `unlisted` takes the folders that match a pattern and can't be listed, `elsewhere` the addresses.
    """
    for path in paths:
        if isinstance(path, Address | AddressPattern):
            elsewhere.add_given(path, recursive=recursive)
            continue
        if isinstance(path, PathPattern):
            yield from _images_and_folders_of(path, left_out, unlisted)
            continue
        for text in path.paths() if isinstance(path, _LISTS) else [path]:
            if isinstance(text, str) and "://" in text and (address := address_from(text)) is not None:
                elsewhere.add_listed(address, recursive=recursive)
                continue
            written = str(text)
            if not isinstance(text, str) or _MAY_BE_SHORTER.search(text):
                written = str(Path(written))
            yield "" if written == os.curdir else written


def _images_and_folders_of(pattern: PathPattern, left_out: list[str], unlisted: set[str]) -> Iterator[str]:
    """Yield what matches a pattern, without files of other endings and the pictures of runs that it doesn't name."""
    n_fixed, n_found = len(Path(pattern.fixed).parts), 0
    is_of_a_run, names_tars = cache(_is_of_a_run), is_tar(pattern.text)
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
        elif has_image_ending(text) or (names_tars and is_tar(text)):
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
                    elif has_image_ending(entry.name) and not (entry.is_symlink() and os.path.isdir(place)):
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
    path = Path(folder, name)
    # Opening a pipe would wait forever.
    if not os.path.isfile(path):
        return False
    try:
        with path.open("rb") as file:
            # Of a journal, which has a line for each image, the first is enough.
            content = json_of(file.readline(MOST_BYTES) if name.endswith("l") else file.read(MOST_BYTES))
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and content.keys() >= keys
