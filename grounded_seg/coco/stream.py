"""A labelled data set as it passes from a COCO file of any size to another format, image by image. The home of ijson.

The file is read once. Its images are kept as they are, its annotations wait in a temporary database on disk, because
nothing says that those of one image stand together.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ijson

from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.values import box_xywh, image_size, is_crowd, is_plain_id, mask_of, number
from grounded_seg.errors import InputError, OutputError
from grounded_seg.records import BoxXyxy, ImageSize, RunLength

_SECTIONS = ("categories", "images", "annotations")


@dataclass(frozen=True)
class Label:
    """One object of an image."""

    category: str
    box_xyxy: BoxXyxy
    mask: RunLength | None
    """At the image's own size; None where there is but a box."""
    score: float | None
    """In [0, 1]; None for what a person drew."""
    is_crowd: bool
    """A region of many objects, which most formats have no word for."""
    record: Mapping[str, Any]
    """As it stands in the file, for formats that hold any key."""


@dataclass(frozen=True)
class LabelledImage:
    """One image with its objects."""

    file_name: str
    """Relative to the images' folder, POSIX."""
    size: ImageSize
    labels: tuple[Label, ...]
    record: Mapping[str, Any]
    """As it stands in the file."""


class CocoReader(AbstractContextManager["CocoReader"]):
    """Opened COCO file; use it in a `with` statement."""

    def __init__(self, path: Path) -> None:
        """Read the file, whose ids have to be distinct whole numbers from 1; its annotations go to a temporary disk."""
        self.path = path
        self.sections: dict[str, Any] = {"info": {}, "licenses": []}
        """The sections besides categories, images and annotations, whole."""
        self.categories: dict[int, Mapping[str, Any]] = {}
        """By id, as the images in the order of the file."""
        self.images: dict[int, Mapping[str, Any]] = {}
        self.has_masks = False
        """Whether any annotation has one."""
        # An empty name is a database on disk that goes away with its connection.
        self._waiting = sqlite3.connect("")
        try:
            with _full_disk_as_output_error():
                self._waiting.execute("CREATE TABLE annotations (image_id INTEGER, category_id INTEGER, record TEXT)")
                self._load()
        except BaseException:
            self._waiting.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._waiting.close()

    def labelled_image(self, image_id: int) -> LabelledImage:
        """Give an image with its annotations, in the order of the file."""
        record = self.images[image_id]
        with _full_disk_as_output_error():
            query = "SELECT record FROM annotations WHERE image_id = ? ORDER BY rowid"
            rows = self._waiting.execute(query, (image_id,)).fetchall()
        try:
            if (size := image_size(record)) is None:
                raise ValueError("it has no width and height")
            labels = tuple(self._label(json.loads(text), size) for (text,) in rows)
            return LabelledImage(str(record["file_name"]), size, labels, record)
        except (KeyError, ValueError) as error:
            raise self._unusable(f"image {image_id} or one of its annotations is damaged ({error!r})") from error

    def _label(self, annotation: Mapping[str, Any], size: ImageSize) -> Label:
        if (box := box_xywh(annotation["bbox"])) is None:
            raise ValueError("it has no bbox")
        score = annotation.get("score")
        return Label(
            category=str(self.categories[annotation["category_id"]]["name"]),
            box_xyxy=xyxy_from_xywh(box),
            mask=mask_of(annotation.get("segmentation"), size),
            score=None if score is None else number(score),
            is_crowd=is_crowd(annotation),
            record=annotation,
        )

    def _load(self) -> None:
        try:
            with self.path.open("rb") as file:
                for section, record in _records(file):
                    self._take(section, record)
        except OSError as error:
            raise InputError(f"{self.path} can't be read ({error.strerror}); check the path") from error
        except (ijson.JSONError, UnicodeDecodeError) as error:
            raise self._unusable(f"it is no JSON ({' '.join(str(error).split())})") from error
        if not self.images:
            raise self._unusable("it lists no images")
        self._waiting.execute("CREATE INDEX by_image ON annotations (image_id)")
        for image_id, category_id in self._waiting.execute("SELECT DISTINCT image_id, category_id FROM annotations"):
            if image_id not in self.images or category_id not in self.categories:
                ids = f"image {image_id}, category {category_id}"
                raise self._unusable(f"an annotation names {ids}, not both are listed")

    def _take(self, section: str, record: Any) -> None:
        if section not in _SECTIONS:
            self.sections[section] = record
            return
        own_id = self._checked_id(section, record, "id")
        if section == "annotations":
            self.has_masks |= bool(record.get("segmentation"))
            ids = [self._checked_id(section, record, key) for key in ("image_id", "category_id")]
            self._waiting.execute("INSERT INTO annotations VALUES (?, ?, ?)", (*ids, json.dumps(record)))
            return
        known = self.categories if section == "categories" else self.images
        if own_id in known:
            raise self._unusable(f"two {section} have the id {own_id}")
        known[own_id] = record

    def _checked_id(self, section: str, record: Any, key: str) -> int:
        found = record.get(key) if isinstance(record, Mapping) else None
        if not is_plain_id(found):
            raise self._unusable(f"one of its {section} has {key} {found!r}, which is no whole number from 1")
        return found

    def _unusable(self, why: str) -> InputError:
        return InputError(
            f"{self.path}: {why}; `grounded-seg validate {self.path} --fix OUT` lists and repairs what is wrong"
        )


@contextmanager
def _full_disk_as_output_error() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        remedy = "make room on the disk of temporary files, or set TMPDIR to a folder on another disk"
        raise OutputError(f"the temporary database can't be written ({error}); {remedy}") from error


def _records(file: Any) -> Iterator[tuple[str, Any]]:
    """Yield every record of each section, and other sections whole, in the order of the file."""
    # One pass over the events, because `ijson.items` finds one section only.
    builder, section, depth = None, "", 0
    for prefix, event, value in ijson.parse(file, use_float=True):
        if builder is None:
            if prefix == "" and event == "map_key":
                section = value
            starts = prefix == f"{section}.item" if section in _SECTIONS else prefix == section != ""
            if not starts or event == "map_key":
                continue
            builder = ijson.ObjectBuilder()
        builder.event(event, value)
        depth += event in ("start_map", "start_array")
        depth -= event in ("end_map", "end_array")
        if depth == 0:
            yield section, builder.value
            builder = None
