"""One line of `review.jsonl`: a decision about instances of an image, a threshold, or the undoing of a line.

Every line has `id`, `time` (UTC, ISO 8601), `what` and, where it is known, `reviewer`. The rest depends on `what`:

- `accept`, `reject`, `clear` (undecided again), `relabel`: `image` is the file name in the journal. `instances` has the
  index of each instance in the journal's line or, of one that was added, the id of the line that added it. `boxes` has
  their `bbox`, by which a reader notices that the line is about another run. `relabel` accepts too; `class` is the new
  class. `accept` without instances says that the image was looked through, as one on which nothing was found.
- `add`: `image`, `class`, and `instance`, which is of the journal's form.
- `threshold`: `class` and `score`; undecided instances of the class that score less are left out. null takes it away.
- `undo`: `undoes` is the id of a line that holds no more.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeAlias

from grounded_seg.coco.schema import JournalInstance
from grounded_seg.text.documents import json_of

Key: TypeAlias = int | str
"""An instance of an image: its index in the journal's line, or the id of the line that added it."""
Box: TypeAlias = tuple[float, ...]
"""`bbox` of an instance: left, top, width, height in pixels, as in the journal."""

_ID = re.compile(r"[0-9a-f]{16}")


class What(StrEnum):
    """What a line does."""

    ACCEPT = "accept"
    REJECT = "reject"
    CLEAR = "clear"
    RELABEL = "relabel"
    ADD = "add"
    THRESHOLD = "threshold"
    UNDO = "undo"


ABOUT_INSTANCES = frozenset({What.ACCEPT, What.REJECT, What.CLEAR, What.RELABEL})


class DamagedLineError(ValueError):
    """A line that is none of a review; the message says why."""


@dataclass(frozen=True)
class Event:
    """One line; which fields are set depends on `what`, as the module says."""

    what: What
    image: str | None = None
    instances: tuple[Key, ...] = ()
    boxes: tuple[Box, ...] = ()
    class_name: str | None = None
    """Of `relabel`, `add` and `threshold`."""
    instance: JournalInstance | None = None
    score: float | None = None
    """Of `threshold`, in [0, 1]; None takes the threshold away."""
    undoes: str | None = None
    id: str = ""
    """16 hex digits at random, so that files that are merged have none in common; empty before it is written."""
    time: str = ""
    """Empty before it is written."""
    reviewer: str | None = None

    def text(self) -> str:
        """Write the event as it stands in the file, without its end of line: JSON in ASCII."""
        content: dict[str, Any] = {"id": self.id, "time": self.time}
        if self.reviewer is not None:
            content["reviewer"] = self.reviewer
        content["what"] = str(self.what)
        if self.image is not None:
            content["image"] = self.image
        if self.what in ABOUT_INSTANCES:
            content |= {"instances": self.instances, "boxes": self.boxes}
        if self.class_name is not None:
            content["class"] = self.class_name
        if self.what is What.ADD:
            content["instance"] = self.instance
        if self.what is What.THRESHOLD:
            content["score"] = self.score
        if self.what is What.UNDO:
            content["undoes"] = self.undoes
        return json.dumps(content, allow_nan=False)

    def at(self, time: datetime, new_id: str, reviewer: str | None) -> "Event":
        """Give the event with what it gets when it is written."""
        text = time.astimezone(UTC).isoformat(timespec="milliseconds")
        return replace(self, id=new_id, time=text, reviewer=reviewer)

    @property
    def when(self) -> datetime:
        """Its time as a date."""
        return datetime.fromisoformat(self.time)


def event_from(text: bytes) -> Event:
    """Read a line.

    Raises:
        DamagedLineError: If it is no event.
    """
    try:
        content = json_of(text)
    except ValueError as error:
        raise DamagedLineError("it is no JSON") from error
    if not isinstance(content, Mapping):
        raise DamagedLineError("it is no object")
    try:
        what = What(str(content.get("what")))
    except ValueError as error:
        raise DamagedLineError(f"what is {content.get('what')!r}; it is one of {', '.join(What)}") from error
    event = Event(what, id=_id(content, "id"), time=_time(content), reviewer=_text_or_none(content, "reviewer"))
    match what:
        case What.UNDO:
            return replace(event, undoes=_id(content, "undoes"))
        case What.THRESHOLD:
            return replace(event, class_name=_text(content, "class"), score=_score_or_none(content))
        case What.ADD:
            event = replace(event, image=_text(content, "image"), class_name=_text(content, "class"))
            return replace(event, instance=_instance(content))
    keys = tuple(_key(one) for one in _list(content, "instances"))
    boxes = tuple(_box(one) for one in _list(content, "boxes"))
    if len(keys) != len(boxes):
        raise DamagedLineError("instances and boxes aren't equally many")
    name = _text(content, "class") if what is What.RELABEL else None
    return replace(event, image=_text(content, "image"), instances=keys, boxes=boxes, class_name=name)


def _text(content: Mapping[str, Any], key: str) -> str:
    value = content.get(key)
    if not isinstance(value, str) or not value:
        raise DamagedLineError(f"{key} is no text")
    return value


def _text_or_none(content: Mapping[str, Any], key: str) -> str | None:
    return None if content.get(key) is None else _text(content, key)


def _id(content: Mapping[str, Any], key: str) -> str:
    value = _text(content, key)
    if not _ID.fullmatch(value):
        raise DamagedLineError(f"{key} isn't 16 hex digits")
    return value


def _time(content: Mapping[str, Any]) -> str:
    value = _text(content, "time")
    try:
        has_zone = datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        has_zone = False
    if not has_zone:
        raise DamagedLineError("time is none of ISO 8601 with its zone")
    return value


def _list(content: Mapping[str, Any], key: str) -> list[Any]:
    value = content.get(key)
    if not isinstance(value, list):
        raise DamagedLineError(f"{key} is no list")
    return value


def _key(value: Any) -> Key:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise DamagedLineError("instances holds what is neither an index nor the id of a line")


def _box(value: Any) -> Box:
    if not isinstance(value, list) or len(value) != 4 or not all(map(_is_number, value)):
        raise DamagedLineError("a box isn't four numbers")
    return tuple(map(float, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _score_or_none(content: Mapping[str, Any]) -> float | None:
    value = content.get("score")
    if value is None:
        return None
    if not _is_number(value) or not 0 <= value <= 1:
        raise DamagedLineError("score isn't from 0 to 1")
    return float(value)


def _instance(content: Mapping[str, Any]) -> JournalInstance:
    value: Any = content.get("instance")
    try:
        _box(value["bbox"])
        is_whole = isinstance(value["attributes"]["prompt"], str) and value.keys() >= JournalInstance.__required_keys__
        is_whole = is_whole and _is_number(value["score"]) and isinstance(value["segmentation"], dict | list)
    except (TypeError, KeyError, AttributeError):
        is_whole = False
    if not is_whole:
        raise DamagedLineError("instance isn't one as results.jsonl has them")
    found: JournalInstance = value
    return found
