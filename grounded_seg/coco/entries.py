"""Images and classes of a COCO file, read in one way by every command: ids, names, and which classes are asked about.

Each function takes the raw entries of a list and gives clean values, with notes of what was unusual, or raises an
`EntryError` that names the place; the caller knows the file.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from grounded_seg.coco.values import Notes, id_text, is_plain_id, shown
from grounded_seg.errors import InputError

NO_INFO = "there is no info, which some readers need"
SHARES = "all boxes end within the first pixel: they look like normalized coordinates, and were read as pixels"
SAME_IDS = "ids of annotations are there more than once, which are only names"
_OTHER_KINDS = {"caption": "captions", "segments_info": "panoptic segments"}
"""What annotations are of where one has such a key, and none a box or a mask."""


class EntryError(ValueError):
    """An entry that can't be read; says which, what is wrong and what to do."""

    def __init__(self, place: str, what: str, remedy: str) -> None:
        super().__init__(f"{place}: {what}; {remedy}")
        self.place, self.what = place, what


def nested_too_deeply(path: Path) -> InputError:
    """What to raise for lists in lists beyond what any COCO file has."""
    return InputError(f"{path} is nested too deeply to be a COCO file; export it again")


def section_twice(path: Path, section: str) -> InputError:
    """What to raise where a list of the file is there twice: readers would take the last one and lose the other."""
    return InputError(
        f'{path} has "{section}" twice; delete one of them, or let `grounded-seg validate {path} --fix OUT` keep the '
        "last"
    )


@dataclass(frozen=True)
class Classes:
    """The classes of a file."""

    ids: Mapping[str, int]
    """Our ids by the text of the file's; several where classes of one name were taken as one."""
    names: Mapping[int, str]
    """By our ids; none twice."""
    places: Mapping[int, int]
    """Where each stands in the file's list."""
    are_numbered: bool = False
    """Whether our ids are others than the file's."""


def other_kind_of(annotations: Iterable[Any]) -> str | None:
    """What annotations are of if none has a box or a mask: captions or panoptic segments; None for objects."""
    kind = None
    for one in annotations:
        if isinstance(one, Mapping):
            if one.get("bbox") or one.get("segmentation"):
                return None
            kind = kind or next((name for key, name in _OTHER_KINDS.items() if key in one), None)
    return kind


def holds_other_kind(path: Path, kind: str) -> InputError:
    """What to raise for a file of annotations that aren't objects."""
    return InputError(f"{path} holds {kind}, no boxes; name a file of objects with their boxes")


def read_id(entry: Mapping[str, Any], key: str, listed: str, notes: Notes, place: str) -> str:
    """Text of an id of `listed`, with a note where it is no whole number from 1 that 64 bits hold.

    Raises:
        ValueError: If there is none, or it is none.
    """
    raw = entry.get(key)
    if raw is None:
        raise ValueError(f"it has no {key}")
    try:
        text = id_text(raw)
    except ValueError as error:
        raise ValueError(f"{key} {error}") from error
    if isinstance(raw, str):
        notes.add(f"ids of {listed} are text", place)
    elif isinstance(raw, float):
        notes.add(f"ids of {listed} are written with a fraction", place)
    elif raw < 1:
        notes.add(f"ids of {listed} are below 1", place)
    elif not is_plain_id(raw):
        notes.add(f"ids of {listed} are more than 64 bits hold", place)
    return text


def read_ids(entries: Sequence[Mapping[str, Any]], listed: str, notes: Notes, least: int = 0) -> dict[str, int]:
    """Ids by their text, distinct; if any isn't a whole number from `least`, all are numbered from 1 in order."""
    numbered: dict[str, int] = {}
    for index, entry in enumerate(entries):
        place = f"{listed}[{index}]"
        try:
            text = read_id(entry, "id", listed, notes, place)
            if text in numbered:
                raise ValueError(f"the id {text} is there twice")
        except ValueError as error:
            raise EntryError(place, str(error), "give each entry an id of its own") from error
        numbered[text] = index + 1
    are_whole = all(is_whole_id(text, least) for text in numbered)
    return {text: int(text) for text in numbered} if are_whole else numbered


def is_whole_id(text: str, least: int) -> bool:
    """Whether the text of an id is a whole number from `least` that 64 bits hold."""
    return text.isascii() and text.isdigit() and len(text) < 20 and least <= int(text) < 2**63


def read_file_name(entry: Mapping[str, Any], place: str, notes: Notes) -> str:
    """Name of an image's file, a path below the folder of the images with forward slashes."""
    name = entry.get("file_name")
    if not isinstance(name, str) or not name:
        raise EntryError(place, "it has no file_name", "add it")
    if "\\" in name:
        notes.add("file names with backslashes were read with slashes", place)
        name = name.replace("\\", "/")
    if leaves_folder(name):
        raise EntryError(place, f"file_name {shown(name)} leaves the folder of the images", "make it a path below it")
    if not PurePosixPath(name).name:
        raise EntryError(place, f"file_name {shown(name)} is the folder of the images", "make it a path below it")
    try:
        is_name = b"\0" not in os.fsencode(name)
    except UnicodeEncodeError:
        is_name = False
    if not is_name:
        raise EntryError(place, f"file_name {shown(name)} is no name that a file can have", "correct it")
    return name


def leaves_folder(file_name: str) -> bool:
    """Whether a name with forward slashes is a path elsewhere than below the folder of the images."""
    windows = PureWindowsPath(file_name)
    return PurePosixPath(file_name).is_absolute() or bool(windows.drive and windows.root) or ".." in windows.parts


def read_classes_of(
    entries: Sequence[Mapping[str, Any]], used: Collection[str] | None, notes: Notes, least: int = 0
) -> Classes:
    """Classes, but the root that Roboflow's exports begin with.

    `used` has the texts of the ids that objects have. It is None for predictions: a class of which nothing was found
    looks like the root there, and only the truth knows which of them it is.
    """
    texts = list(read_ids(entries, "categories", notes))
    names = [_class_name(entry, f"categories[{index}]", notes) for index, entry in enumerate(entries)]
    root = None if used is None else _root(entries, names, [text in used for text in texts])
    left = [text for index, text in enumerate(texts) if index != root]
    are_whole = all(is_whole_id(text, least) for text in left)
    ids = {text: int(text) if are_whole else number for number, text in enumerate(left, start=1)}
    id_by_name: dict[str, int] = {}
    places: dict[int, int] = {}
    for index, (text, name) in enumerate(zip(texts, names, strict=True)):
        place = f"categories[{index}]"
        if index == root:
            notes.add(f"{name!r} is only the parent of the other classes, without objects, and was left out", place)
            continue
        first = id_by_name.setdefault(name, ids[text])
        places.setdefault(first, index)
        if first != ids[text]:
            notes.add("classes of the same name were taken as one", place)
            ids[text] = first
    return Classes(ids, {class_id: name for name, class_id in id_by_name.items()}, places, not are_whole)


def _class_name(entry: Mapping[str, Any], place: str, notes: Notes) -> str:
    raw = entry.get("name")
    if isinstance(raw, int | float) and not isinstance(raw, bool):
        notes.add("class names that are numbers were read as text", place)
        raw = str(raw)
    if not isinstance(raw, str) or not raw.strip():
        raise EntryError(place, "it has no name", "add it, it is what is asked for")
    try:
        raw.encode("utf-8")
    except UnicodeEncodeError as error:
        what = f"name {shown(raw)} holds half a character"
        raise EntryError(place, what, "write the whole name again") from error
    if raw != raw.strip():
        notes.add("blanks around class names were left out", place)
    return raw.strip()


def _root(entries: Sequence[Mapping[str, Any]], names: Sequence[str], are_used: Sequence[bool]) -> int | None:
    """Index of a class without objects that is the parent of others, and has none itself."""
    above = [str(entry.get("supercategory", "")).strip() for entry in entries]
    for index, name in enumerate(names):
        is_parent = any(parent == name for other, parent in enumerate(above) if other != index)
        if above[index].lower() == "none" and is_parent and not are_used[index]:
            return index
    return None


def note_annotation_ids(entries: Sequence[Mapping[str, Any]], notes: Notes) -> None:
    """Note ids of annotations that aren't whole numbers from 1, each once; nothing refers to them."""
    seen = set()
    for index, entry in enumerate(entries):
        text = annotation_id(entry, f"annotations[{index}]", notes)
        if text is not None and text in seen:
            notes.add(SAME_IDS, f"annotations[{index}]")
        seen.add(text)


def annotation_id(entry: Mapping[str, Any], place: str, notes: Notes) -> str | None:
    """Text of an annotation's id; None where it has none."""
    try:
        return read_id(entry, "id", "annotations", notes, place)
    except ValueError:
        notes.add("annotations without an id were read", place)
        return None
