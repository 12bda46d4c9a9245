"""A labelled data set as it passes from a COCO file of any size to another format, image by image.

The file is read once. Its images are kept in memory, its annotations wait in a temporary database on disk, because
nothing says that those of one image stand together. What is read, noted and refused is the same as in `data_set.py`.
"""

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from grounded_seg.coco.entries import (
    NO_INFO,
    SAME_IDS,
    SHARES,
    Classes,
    EntryError,
    annotation_id,
    holds_other_kind,
    is_whole_id,
    other_kind_of,
    read_classes_of,
    read_file_name,
    read_id,
    read_ids,
)
from grounded_seg.coco.objects import object_of
from grounded_seg.coco.schema import SECTIONS, xyxy_from_xywh
from grounded_seg.coco.sections import MOST_DEPTH, FastParserError, records_of
from grounded_seg.coco.values import Notes, id_text, image_size
from grounded_seg.errors import InputError, OutputError
from grounded_seg.records import BoxXyxy, ImageSize, RunLength
from grounded_seg.text.documents import json_of


@dataclass(frozen=True)
class Label:
    """One object of an image."""

    category: str
    box_xyxy: BoxXyxy
    mask: RunLength | None
    """At the image's own size, never without a pixel; None where there is but a box."""
    score: float | None
    """In [0, 1]; None for what a person drew."""
    is_crowd: bool
    """A region of many objects, which most formats have no word for."""
    record: Mapping[str, Any]
    """As it stands in the file, in the form that every reader takes, for formats that hold any key."""


@dataclass(frozen=True)
class LabelledImage:
    """One image with its objects."""

    file_name: str
    """Relative to the images' folder, POSIX."""
    size: ImageSize
    labels: tuple[Label, ...]
    record: Mapping[str, Any]
    """As a label's."""


class CocoReader(AbstractContextManager["CocoReader"]):
    """Opened COCO file; use it in a `with` statement."""

    def __init__(self, path: Path, shown: Path | None = None) -> None:
        """Read the file, which messages call `shown`; its annotations go to a temporary disk."""
        self.path = shown or path
        self._read_from = path
        self.sections: dict[str, Any] = {}
        """The sections besides categories, images and annotations, whole."""
        self.categories: dict[int, Mapping[str, Any]] = {}
        """By id from 1, as the images in the order of the file."""
        self.images: dict[int, Mapping[str, Any]] = {}
        self.numbered: dict[str, int] = {}
        """How many entries of a section got other ids, as the file's weren't all whole numbers from 1."""
        self._notes = Notes()
        self._has_shapes = False
        self._farthest_px = 0.0
        self._classes = Classes({}, {}, {})
        # Texts of the file's ids by ours, where they differ.
        self._image_texts: dict[int, str] = {}
        # An empty name is a database on disk that goes away with its connection.
        self._waiting = sqlite3.connect("")
        try:
            with _full_disk_as_output_error():
                self._load()
        except EntryError as error:
            self._waiting.close()
            self._refuse_other_kind()
            raise self._unusable(error) from error
        except BaseException:
            self._waiting.close()
            raise

    def __exit__(self, *_: object) -> None:
        self._waiting.close()

    @property
    def notes(self) -> tuple[str, ...]:
        """Unusual forms that were read so far, a line each; those of an image's labels are noted with the image."""
        return (*self._notes.lines(), *([SHARES] if 0 < self._farthest_px <= 1 else []))

    @cached_property
    def has_masks(self) -> bool:
        """Whether any annotation has a mask that can be read."""
        ids = {text: image_id for image_id, text in self._image_texts.items()}
        query = "SELECT rowid, image, record FROM annotations WHERE has_mask ORDER BY rowid"
        with _full_disk_as_output_error():
            for row, text, record in self._waiting.execute(query):
                label = self._label(row, record, ids[text] if ids else int(text), Notes())
                if label is not None and label.mask is not None:
                    return True
        return False

    def labelled_image(self, image_id: int) -> LabelledImage:
        """Give an image with its annotations, in the order of the file; asked for twice, it is noted twice."""
        record = self.images[image_id]
        text = self._image_texts.get(image_id, str(image_id))
        with _full_disk_as_output_error():
            query = "SELECT rowid, record FROM annotations WHERE image = ? ORDER BY rowid"
            rows = self._waiting.execute(query, (text,)).fetchall()
        size = self.size_of(image_id)
        labels = (self._label(row, written, image_id, self._notes) for row, written in rows)
        return LabelledImage(str(record["file_name"]), size, tuple(one for one in labels if one is not None), record)

    def size_of(self, image_id: int) -> ImageSize:
        """Size of an image; an `InputError` where the file gives none."""
        size = image_size(self.images[image_id])
        if size is None:
            place = f"images[{list(self.images).index(image_id)}]"
            raise self._unusable(
                EntryError(place, "it has no width and height (--images takes them from the files)", "add them")
            )
        return size

    def take_sizes(self, by_name: Mapping[str, ImageSize]) -> None:
        """Give sizes to images that have none, by their file names."""
        for image_id, record in self.images.items():
            size = by_name.get(record["file_name"])
            if size is not None and image_size(record) is None:
                self.images[image_id] = {**record, "width": size.width, "height": size.height}

    def _label(self, row: int, written: str, image_id: int, notes: Notes) -> Label | None:
        place = f"annotations[{row - 1}]"
        try:
            annotation = json_of(written, most_depth=MOST_DEPTH, object_of=None, is_finite=False)
            read = object_of(annotation, self.size_of(image_id), place, notes)
        except ValueError as error:
            raise self._unusable(EntryError(place, str(error), "correct it")) from error
        if read is None:
            return None
        self._farthest_px = max(self._farthest_px, *read.shape.box_xywh)
        category_id = self._classes.ids[read_id(annotation, "category_id", "categories", Notes(), place)]
        # What is in this form already stays where it is.
        record = read.plain(annotation) | {"image_id": image_id, "category_id": category_id}
        record["id"] = row if "annotations" in self.numbered else int(id_text(annotation["id"]))
        return Label(
            category=self._classes.names[category_id],
            box_xyxy=xyxy_from_xywh(read.shape.box_xywh),
            mask=read.shape.mask,
            score=read.score,
            is_crowd=read.is_crowd,
            record=record,
        )

    def _load(self) -> None:
        try:
            found = self._loaded(exact=False)
        except FastParserError:
            self._notes, self.sections = Notes(), {}
            found = self._loaded(exact=True)
        self._refuse_other_kind()
        for section in SECTIONS:
            if section not in found:
                raise InputError(f'{self.path} has no list "{section}"; a COCO file needs it, export it again')
        for section in ("images", "categories"):
            if not found[section]:
                raise self._unusable(f"it lists no {section}")
        self._waiting.execute("CREATE INDEX by_image ON annotations (image)")
        self._take_images(found["images"])
        self._take_classes(found["categories"])
        if "info" not in self.sections:
            self._notes.add(NO_INFO)
        self.sections = {"info": {}, "licenses": []} | self.sections
        self._take_annotation_ids()
        self._check_references()

    def _loaded(self, *, exact: bool) -> dict[str, list[Any]]:
        """Read the file: annotations into the database, other sections into ours; give the records of the rest."""
        self._waiting.execute("DROP TABLE IF EXISTS annotations")
        self._waiting.execute(
            "CREATE TABLE annotations (image TEXT, category TEXT, id TEXT, has_mask INTEGER, record TEXT)"
        )
        found: dict[str, list[Any]] = {}
        n_annotations = 0
        for section, record in records_of(self._read_from, exact=exact):
            if section not in SECTIONS:
                self.sections[section] = record
            elif record is None and section not in found:
                found[section] = []
            elif not isinstance(record, Mapping):
                index = n_annotations if section == "annotations" else len(found[section])
                raise EntryError(f"{section}[{index}]", "it is no object", "export it again")
            elif section == "annotations":
                self._put(n_annotations, record)
                n_annotations += 1
            else:
                found[section].append(record)
        return found

    def _refuse_other_kind(self) -> None:
        """Look at all annotations, where none that was read has a box or a mask."""
        if not self._has_shapes:
            records = (
                record for section, record in records_of(self._read_from, exact=True) if section == "annotations"
            )
            if kind := other_kind_of(records):
                raise holds_other_kind(self.path, kind)

    def _put(self, index: int, record: Mapping[str, Any]) -> None:
        place = f"annotations[{index}]"
        self._has_shapes = self._has_shapes or bool(record.get("bbox") or record.get("segmentation"))
        try:
            image = read_id(record, "image_id", "images", self._notes, place)
            category = read_id(record, "category_id", "categories", self._notes, place)
        except ValueError as error:
            raise EntryError(place, str(error), "correct it") from error
        own = annotation_id(record, place, self._notes)
        row = (image, category, own, bool(record.get("segmentation")), json.dumps(record))
        self._waiting.execute("INSERT INTO annotations VALUES (?, ?, ?, ?, ?)", row)

    def _take_images(self, records: list[Mapping[str, Any]]) -> None:
        ids = read_ids(records, "images", self._notes, least=1)
        if any(text != str(image_id) for text, image_id in ids.items()):
            self._image_texts = {image_id: text for text, image_id in ids.items()}
            self.numbered["images"] = len(ids)
        for index, (record, image_id) in enumerate(zip(records, ids.values(), strict=True)):
            place = f"images[{index}]"
            own: dict[str, Any] = {"id": image_id, "file_name": read_file_name(record, place, self._notes)}
            try:
                size = image_size(record, place, self._notes)
            except ValueError as error:
                raise EntryError(place, str(error), "correct it") from error
            own |= {} if size is None else {"width": size.width, "height": size.height}
            self.images[image_id] = {**record, **own}

    def _take_classes(self, records: list[Mapping[str, Any]]) -> None:
        used = {text for (text,) in self._waiting.execute("SELECT DISTINCT category FROM annotations")}
        self._classes = read_classes_of(records, used, self._notes, least=1)
        if self._classes.are_numbered:
            self.numbered["categories"] = len(self._classes.names)
        for class_id, name in self._classes.names.items():
            self.categories[class_id] = {**records[self._classes.places[class_id]], "id": class_id, "name": name}

    def _take_annotation_ids(self) -> None:
        """Keep the annotations' ids if they are distinct whole numbers from 1."""
        [(n, n_same)] = self._waiting.execute("SELECT count(*), count(id) - count(DISTINCT id) FROM annotations")
        texts = self._waiting.execute("SELECT id FROM annotations")
        are_whole = all(text is not None and is_whole_id(text, least=1) for (text,) in texts)
        if n_same:
            first_of_each = "SELECT min(rowid) FROM annotations GROUP BY id"
            query = f"SELECT min(rowid) FROM annotations WHERE id NOT NULL AND rowid NOT IN ({first_of_each})"  # noqa: S608
            [(row,)] = self._waiting.execute(query)
            self._notes.add(SAME_IDS, f"annotations[{row - 1}]", n_same)
        if n_same or not are_whole:
            self.numbered["annotations"] = n

    def _check_references(self) -> None:
        texts = {"image": set(self._image_texts.values()) or set(map(str, self.images)), "category": self._classes.ids}
        for key, section in (("image", "images"), ("category", "categories")):
            query = f"SELECT {key}, min(rowid) FROM annotations GROUP BY {key} ORDER BY min(rowid)"  # noqa: S608
            for text, row in self._waiting.execute(query):
                if text not in texts[key]:
                    what = f'{key}_id {text} is not among "{section}"'
                    raise EntryError(f"annotations[{row - 1}]", what, "add it there")

    def _unusable(self, error: EntryError | str) -> InputError:
        why = error if isinstance(error, str) else f"{error.place}: {error.what}"
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
