"""Images that YOLO's `data.yaml` names, in folders and lists, also by paths of another machine; and their labels."""

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.image_names import OTHER_FORM, composed
from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.images.find import image_files
from grounded_seg.images.formats import IMAGE_ENDINGS
from grounded_seg.images.given import PathPattern
from grounded_seg.text.decoding import read_text
from grounded_seg.train.data.data_yaml import DataYaml, Place
from grounded_seg.train.data.records import Fault

_ROBOFLOW = "../"
_PATTERN = re.compile(r"[*?[]")
_CLASSES_FILE = "classes.txt"
"""Some tools put the names of the classes among the labels."""
_MOST_PARTS = 8
"""Of a path of another machine, so many last parts are looked for."""


def images_at(place: Place, data: DataYaml, notes: Notes) -> tuple[Path, list[Path | Fault]]:
    """The folder or list that a place means, and its images, each once; what a list names and isn't there is a fault.

    Raises:
        InputError: If it isn't there, it could be either of two folders, or it holds no image.
    """
    found = found_place(place, data, notes)
    if found is None:
        where = f"{data.path}:{place.line}"
        raise InputError(f"{where}: it names {place.text[:255]!r}, which isn't there; correct the path")
    if not os.path.exists(found):
        return found, [*image_files(PathPattern(str(found)))]
    if not (os.path.isdir(found) or os.path.isfile(found)):
        # Read as a list, it might have no end.
        raise InputError(
            f"{data.path}:{place.line}: it names {place.text[:255]!r}, a pipe or a device; correct the path"
        )
    if not os.path.isdir(found) and found.suffix.lower() not in IMAGE_ENDINGS:
        return found, list(dict.fromkeys(_listed(found, data, notes)))
    return found, [*image_files(found)]


def found_place(place: Place, data: DataYaml, notes: Notes) -> Path | None:
    """Folder, list or pattern where the file says, as Roboflow means it, or beside the file; None if it is nowhere.

    Raises:
        InputError: If it could be either of two folders.
    """
    own, where = data.path.parent, f"{data.path}:{place.line}"
    bases = {own / one: "" for one in _spellings(data.root)}
    # Ultralytics looks for a relative `path` from the current folder.
    for base, which in ((own, "beside it"), (Path(data.root), "from the current folder")) if data.root else ():
        bases.setdefault(base, which)
    for base, which in bases.items():
        for text in _spellings(place.text):
            both = dict.fromkeys((base / text, base / text.removeprefix(_ROBOFLOW)))
            there = [path for path in both if os.path.exists(path)]
            if len(there) > 1 and not there[0].samefile(there[1]):
                raise InputError(f"{where}: {place.text!r} could be {there[0]} or {there[1]}; write the whole path")
            if there:
                if which:
                    notes.add(f"paths that lead nowhere were found {which}", where)
                if there[0] != base / text:
                    notes.add(f"{_ROBOFLOW} at the start of a path was left out, as Roboflow means it", where)
                return there[0]
    return _pattern(bases, place.text) or _of_another_machine(place, data, notes)


def _pattern(bases: Iterable[Path], text: str) -> Path | None:
    """A pattern below the first of the folders where names match it; None if it is no pattern, or nothing matches."""
    for base in bases if _PATTERN.search(text) else ():
        pattern = Path(glob.escape(str(base)), text)
        if any(PathPattern(str(pattern)).paths(set())):
            return pattern
    return None


def _of_another_machine(place: Place, data: DataYaml, notes: Notes) -> Path | None:
    own = data.path.parent
    for path in _tails(own, f"{data.root}/{place.text}"):
        if os.path.exists(path):
            notes.add("paths that lead nowhere were found by their last parts, beside it", f"{data.path}:{place.line}")
            return path
    return None


class LabelFiles:
    """The label files of images; what is unusual about their place is noted."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes
        self._by_form: dict[Path, dict[str, Path]] = {}

    def of(self, image: Path) -> Path | None:
        """Labels of an image where YOLO puts them, or else beside the image; None where there are none."""
        if (found := self._found(_label_file(image))) is not None:
            return found
        # Ultralytics follows links first.
        linked = _label_file(Path(os.path.realpath(image)))
        if os.path.isfile(linked):
            return linked
        if (found := self._found(image.with_suffix(".txt"))) is not None:
            self._notes.add("labels were found beside their images", str(found))
        return found

    def without_image(self, folder: Path, known: set[Path | None]) -> Iterator[Fault]:
        """The label files of a folder of images that belong to none of them; among the images, other texts may lie."""
        labels = _label_file(folder / "any.jpg").parent
        if labels == folder:
            return
        for path in sorted(labels.rglob("*.txt")):
            if path not in known and path.name != _CLASSES_FILE:
                yield Fault(f"{path}:1", "there is no image of this name; add it or take the file out")

    def _found(self, path: Path) -> Path | None:
        # pathlib's own raises where a name is too long.
        if os.path.isfile(path):
            return path
        if path.name.isascii():
            return None
        if path.parent not in self._by_form:
            there = path.parent.glob("*.txt")
            self._by_form[path.parent] = {composed(one.name): one for one in there}
        found = self._by_form[path.parent].get(composed(path.name))
        if found is not None:
            self._notes.add(OTHER_FORM.format("labels"), str(found))
        return found


def _label_file(image: Path) -> Path:
    """Swap the last folder `images` of the path for `labels`, as YOLO does."""
    parts = list(image.parts if "images" in image.parts[:-1] else image.absolute().parts)
    if "images" not in parts[:-1]:
        return image.with_suffix(".txt")
    parts[len(parts) - 2 - parts[-2::-1].index("images")] = "labels"
    return Path(*parts).with_suffix(".txt")


def _listed(file: Path, data: DataYaml, notes: Notes) -> Iterator[Path | Fault]:
    """Give the images that a list names, one a line, from the list's folder or as else they can be found."""
    is_empty = True
    for number, line in enumerate(read_text(file).splitlines(), start=1):
        if text := line.strip():
            is_empty = False
            yield _listed_image(text, f"{file}:{number}", file.parent, data, notes)
    if is_empty:
        raise InputError(f"{file} is a list without an image; write a path on each line, or correct {data.path.name}")


def _listed_image(text: str, where: str, folder: Path, data: DataYaml, notes: Notes) -> Path | Fault:
    own = data.path.parent
    # Ultralytics takes the current folder where a path doesn't begin with "./".
    starts = dict.fromkeys((folder, own / data.root, own, Path()))
    paths = [start / one for start in starts for one in _spellings(text)]
    for path in (*paths, *_tails(folder, text), *_tails(own, text)):
        if os.path.isfile(path):
            if path != paths[0]:
                notes.add("images of a list were not found from its folder, but elsewhere", where)
            return path
    for start in starts:
        # Only now by the other forms of its letters.
        if (found := file_of(start, text.replace("\\", "/"), notes)) is not None:
            return found
    return Fault(where, f"the image {text[:255]!r} isn't there; correct the path or take the line out")


def _tails(folder: Path, text: str) -> Iterator[Path]:
    """Yield the last parts of a path below a folder, the longest first; `images` alone could be any split's."""
    parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    for start in range(max(0, len(parts) - _MOST_PARTS), len(parts)):
        if parts[start:] != ["images"]:
            yield folder.joinpath(*parts[start:])


def _spellings(text: str) -> tuple[str, ...]:
    """Give a path as it stands and, if it is one of Windows, as one of this system."""
    return tuple(dict.fromkeys((text, text.replace("\\", "/"))))
