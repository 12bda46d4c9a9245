"""Examples from JSON lines with `image`, `prefix` and `suffix`: the form that Florence-2's tuners share.

`{"image": "a.jpg", "prefix": "<OD>", "suffix": "car<loc_10><loc_20><loc_300><loc_400>"}`. The prefix is a task's token,
with the text that the task takes behind it, or words of the user's own; the suffix is the answer.
"""

import re
from pathlib import Path

import numpy as np

from grounded_seg.coco.values import Notes
from grounded_seg.detect.answer.tokens import N_BINS, boxes_from_bins
from grounded_seg.detect.tasks import TASKS, Task, TaskOutput
from grounded_seg.errors import InputError, UsageError
from grounded_seg.records import ImageSize
from grounded_seg.text.decoding import read_text, whole_characters
from grounded_seg.text.documents import json_of
from grounded_seg.train.data.checks import ImageSizes, UnusableImageError, UnusableRowError, image_beside
from grounded_seg.train.data.records import BoxExample, Example, Fault, LabelledBox, SplitData, TextExample, split_from

_BIN = re.compile(r"0|[1-9][0-9]{0,5}")
_LOCATION = re.compile(r"<loc_(\d+)>")
_MOST_DIGITS = 20
"""That a message shows."""
_GROUP = re.compile(r"(?P<label>[^<]*)(?P<bins>(?:<loc_\d+>)+)")
_OF_BOXES = re.compile(r"\s*<OD>")
_IMAGE = re.compile(r'"image"\s*:\s*"([^"\\]+)"')
_TASK_TOKEN = re.compile(r"\s*<(?P<name>[A-Z_]+)>(?P<text>.*)", re.DOTALL)


def read_jsonl(path: Path, sizes: ImageSizes) -> tuple[SplitData, tuple[str, ...]]:
    """Rows of a file, and notes; those that can't be used become faults with their line."""
    notes = Notes()
    rows: list[Example | Fault] = []
    # Not `splitlines`: texts may hold other characters that it takes for the end of a line.
    lines = read_text(path).split("\n")
    # An image that is missed at this glance is decoded later, by itself.
    sizes.read(path.parent, (found[1] for line in lines if (found := _IMAGE.search(line))))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        source = f"{path}:{number}"
        try:
            rows.append(_example(line, path.parent, source, sizes, notes))
        except UnusableRowError as error:
            image = error.image if isinstance(error, UnusableImageError) else None
            rows.append(Fault(source, str(error), image))
    if not rows:
        raise InputError(f"{path} is empty; export it again")
    return split_from(rows), notes.lines()


def boxes_from_answer(answer: str, size: ImageSize) -> tuple[LabelledBox, ...]:
    """Read `label<loc>x4<loc>x4 label...`, strictly: what isn't exactly of this form isn't a truth to learn from.

    The boxes have their corners at the centres of the bins; an empty answer has none.
    """
    rest, boxes = answer.strip(), []
    while rest:
        match = _GROUP.match(rest)
        if match is None:
            raise UnusableRowError(f"{_shown(rest)} isn't a label with location tokens behind it; correct the suffix")
        label, bins = match["label"].strip(), _bins(match["bins"])
        if not label:
            raise UnusableRowError(f"{_shown(rest)} has no label in front; correct the suffix")
        if len(bins) % 4:
            raise UnusableRowError(f"{label!r} has {len(bins)} location tokens, which aren't four a box")
        rows = np.array(bins).reshape(-1, 4)
        if (rows[:, :2] > rows[:, 2:]).any():
            raise UnusableRowError(f"a box of {label!r} has its corners in the wrong order; they are x0, y0, x1, y1")
        if (rows[:, :2] == rows[:, 2:]).any():
            raise UnusableRowError(f"a box of {label!r} has no area; correct it or take it out")
        boxes += [LabelledBox(label, (x0, y0, x1, y1)) for x0, y0, x1, y1 in boxes_from_bins(rows, size).tolist()]
        rest = rest[match.end() :].lstrip()
    return tuple(boxes)


def _example(line: str, folder: Path, source: str, sizes: ImageSizes, notes: Notes) -> Example:
    try:
        row = json_of(line)
    except ValueError as error:
        what = f"this is not JSON ({error}); correct it or take the line out"
        # Whatever it was to say, it was about the boxes of this image, or may have been.
        if found := _IMAGE.search(line):
            raise UnusableImageError(what, _image_of(folder, found[1])) from error
        raise UnusableRowError(what) from error
    try:
        return _example_of(row, folder, source, sizes, notes)
    except UnusableRowError as error:
        name, prefix = (row.get(key) if isinstance(row, dict) else None for key in ("image", "prefix"))
        is_text = isinstance(prefix, str) and prefix.strip() and not _OF_BOXES.match(prefix)
        if is_text or not isinstance(name, str):
            raise
        raise UnusableImageError(str(error), _image_of(folder, name)) from error


def _image_of(folder: Path, name: str) -> Path:
    """Give an image's path as rows that can be used have it."""
    try:
        return image_beside(folder, name)
    except UnusableRowError:
        return folder / name


def _example_of(row: object, folder: Path, source: str, sizes: ImageSizes, notes: Notes) -> Example:
    name, prefix, suffix = (_text(row, key) for key in ("image", "prefix", "suffix"))
    if not name or not prefix.strip():
        raise UnusableRowError("its image or its prefix is empty; fill it in")
    path = image_beside(folder, name, notes)
    size = sizes.of(path)
    question, task = _question(prefix)
    if task is not None and task.name == "OD":
        return BoxExample(path, size, boxes_from_answer(suffix, size), source)
    for text in (prefix, suffix):
        _bins(text)
    if task is not None:
        _check_shapes(task.gives, suffix.strip(), size)
    return TextExample(path, size, question, suffix.strip(), source)


def _check_shapes(gives: TaskOutput, answer: str, size: ImageSize) -> None:
    """Refuse boxes and quads that can't be; otherwise such an answer is learnt as it stands."""
    is_labelled = gives in (TaskOutput.LABELLED_BOXES, TaskOutput.PHRASE_BOXES)
    if is_labelled or (gives is TaskOutput.BOXES_OR_POLYGONS and "<poly>" not in answer):
        boxes_from_answer(answer, size)
    elif gives is TaskOutput.BOXES and answer:
        boxes_from_answer(f"region{answer}", size)
    elif gives is TaskOutput.QUADS:
        for match in _GROUP.finditer(answer):
            n_tokens = len(_bins(match["bins"]))
            if n_tokens % 8:
                raise UnusableRowError(f"{match['label']!r} has {n_tokens} location tokens, which aren't eight a text")


def _text(row: object, key: str) -> str:
    text = row.get(key) if isinstance(row, dict) else None
    if not isinstance(text, str):
        raise UnusableRowError(f"it isn't an object with a text {key}; each row has image, prefix and suffix")
    try:
        return whole_characters(text)
    except ValueError as error:
        raise UnusableRowError(f"its {key} {error}") from error


def _question(prefix: str) -> tuple[str, Task | None]:
    """Give the words to ask, and the task where it is one."""
    match = _TASK_TOKEN.fullmatch(prefix)
    task = TASKS.get(match["name"]) if match else None
    if match is None or task is None:
        return prefix.strip(), None
    try:
        return task.question(match["text"]), task
    except UsageError as error:
        raise UnusableRowError(f"its prefix makes no sense: {error}") from error


def _bins(text: str) -> list[int]:
    found = _LOCATION.findall(text)
    for digits in found:
        # Python makes no number of thousands of digits.
        if not _BIN.fullmatch(digits) or int(digits) >= N_BINS:
            raise UnusableRowError(
                f"there is no token <loc_{digits[:_MOST_DIGITS]}>; they go from <loc_0> to <loc_{N_BINS - 1}>"
            )
    return [int(digits) for digits in found]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")
