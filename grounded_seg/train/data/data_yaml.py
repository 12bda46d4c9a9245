"""What YOLO's `data.yaml` says: the classes, where the images of each split are, and what the rows of labels hold."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.text.decoding import read_text
from grounded_seg.text.yaml_nodes import is_yaml_null, yaml_entries, yaml_line, yaml_root, yaml_text

_SPLIT_KEYS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "valid": ("val", "valid", "validation"),
    "test": ("test",),
}
_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
_N_BOX = 4
TASKS = ("detect", "segment", "obb", "pose")
"""Of Ultralytics' models, those whose labels are rows."""


@dataclass(frozen=True)
class Place:
    """A folder or a list of images, as `data.yaml` names it."""

    text: str
    line: int


@dataclass(frozen=True)
class DataYaml:
    """A `data.yaml`, read."""

    path: Path
    names: Mapping[int, str]
    """Class names by their number, as they are written."""
    root: str
    """What `path` says, empty where it isn't there."""
    places: Mapping[str, tuple[Place, ...]]
    """Of each split that is named."""
    is_pose: bool
    """Whether keypoints follow the box of a row."""
    task: str
    """What `task` says of the rows, one of `TASKS`; empty where it says nothing that is known."""
    n_pose_numbers: int | None
    """How many numbers such a row has behind its class, if the file says so."""


def read_data_yaml(path: Path, notes: Notes) -> DataYaml:
    """Read a `data.yaml`; what was read in spite of its form is noted.

    Raises:
        InputError: If it isn't one, or says something in two ways; names file and line.
    """
    root = yaml_root(read_text(path), path)
    if not isinstance(root, yaml.MappingNode):
        raise InputError(f"{path} is no data.yaml of YOLO: it has no entries `key: value`; export it again")
    entries = {key: value for _, key, value in yaml_entries(root, path)}
    if "names" not in entries:
        raise InputError(f"{path} is no data.yaml of YOLO: it has no names; add the classes as `names: [car, ball]`")
    names = dict(_names(entries["names"], path))
    _note_oddities(path, names, entries.get("nc"), notes)
    places = {split: tuple(found) for split in _SPLIT_KEYS if (found := list(_places(split, entries, path)))}
    if not places:
        raise InputError(f"{path} names no train, val or test images; add them")
    n_pose = _n_pose_numbers(entries.get("kpt_shape"), path)
    task = _text(entries.get("task"), path)
    if task and task not in TASKS:
        notes.add(f"task is {task[:20]!r}, which has no rows of objects: rows are told apart by their numbers")
    return DataYaml(
        path=path,
        names=names,
        root=_text(entries.get("path"), path),
        places=places,
        is_pose=n_pose is not None or task == "pose",
        task=task if task in TASKS else "",
        n_pose_numbers=n_pose,
    )


def _names(node: yaml.Node, path: Path) -> Iterator[tuple[int, str]]:
    if isinstance(node, yaml.SequenceNode):
        named = list(enumerate(node.value))
    elif isinstance(node, yaml.MappingNode):
        named = [(_number(key, line, path), value) for line, key, value in yaml_entries(node, path)]
    else:
        named = []
    if not named:
        what = "names is neither a list of names nor lines `0: car`"
        raise InputError(f"{path}:{yaml_line(node)}: {what}; write `names: [car, ball]`")
    for number, value in named:
        name = yaml_text(value, path)
        if not name:
            what = "has no name" if name is not None else "is no plain text"
            raise InputError(f"{path}:{yaml_line(value)}: the name of class {number} {what}; write it in quotes")
        yield number, name


def _number(key: str, line: int, path: Path) -> int:
    if not _WHOLE.fullmatch(key):
        raise InputError(f"{path}:{line}: {key[:60]!r} is no number of a class; write 0, 1, 2, ...")
    return int(key)


def _note_oddities(path: Path, names: Mapping[int, str], stated: yaml.Node | None, notes: Notes) -> None:
    first: dict[str, int] = {}
    for number, name in names.items():
        if first.setdefault(name, number) != number:
            notes.add("classes of the same name were taken as one", f"names {first[name]} and {number}")
    if sorted(names) != list(range(len(names))):
        notes.add(f"the classes are not numbered 0 to {len(names) - 1}: each number was taken as it stands")
    n_stated = "" if stated is None else _text(stated, path)
    if n_stated and n_stated != str(len(names)):
        notes.add(f"nc is {n_stated[:20]!r}, and there are {len(names)} names: the names count")


def _places(split: str, entries: Mapping[str, yaml.Node], path: Path) -> Iterator[Place]:
    given = [(key, entries[key]) for key in _SPLIT_KEYS[split] if key in entries and not _is_nothing(entries[key])]
    if len(given) > 1:
        keys = " and ".join(key for key, _ in given)
        raise InputError(f"{path}:{yaml_line(given[1][1])}: {keys} are the same split; keep one of the lines")
    for key, node in given:
        for one in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            text = yaml_text(one, path)
            if not text:
                what = f"{key} names something that is no plain text"
                raise InputError(f"{path}:{yaml_line(one)}: {what}; name a folder, a list of images, or several")
            yield Place(text, yaml_line(one))


def _is_nothing(node: yaml.Node) -> bool:
    """Tell what says that there is no such split: nothing, `false` or an empty list."""
    return is_yaml_null(node) or node.value in ("", "false", "False", [])


def _n_pose_numbers(node: yaml.Node | None, path: Path) -> int | None:
    """Read `kpt_shape: [17, 3]`, points and numbers each."""
    if node is None or is_yaml_null(node):
        return None
    texts = [yaml_text(one, path) for one in node.value] if isinstance(node, yaml.SequenceNode) else []
    if len(texts) != 2 or not all(text and _WHOLE.fullmatch(text) for text in texts):
        what = "kpt_shape isn't a list of two whole numbers, as [17, 3]"
        raise InputError(f"{path}:{yaml_line(node)}: {what}; correct it, or take it out if there are no keypoints")
    n_points, n_each = (int(text) for text in texts if text)
    return _N_BOX + n_points * n_each


def _text(node: yaml.Node | None, path: Path) -> str:
    """Give a text, empty for nothing."""
    if node is None or is_yaml_null(node):
        return ""
    text = yaml_text(node, path)
    if text is None:
        raise InputError(f"{path}:{yaml_line(node)}: this has to be one text; correct it")
    return text
