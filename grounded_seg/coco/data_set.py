"""A COCO data set as records: ids are whole numbers, every reference leads somewhere, what was odd is said in notes.

What is refused is what can't be known: which image a reference means, how large a mask is, whether text after the end
belongs to the file. The rest is read: text for numbers, ids of any kind, missing areas, names that are there twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from grounded_seg.coco.entries import (
    NO_INFO,
    SHARES,
    Classes,
    EntryError,
    holds_other_kind,
    note_annotation_ids,
    other_kind_of,
    read_classes_of,
    read_file_name,
    read_id,
    read_ids,
)
from grounded_seg.coco.objects import object_of
from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes, id_text, image_size
from grounded_seg.errors import InputError
from grounded_seg.records import ImageSize, RunLength

_T = TypeVar("_T")
ObjectFault = Callable[[int, int, InputError], None]
"""Called with an object's index among the annotations, our id of its image, and what is wrong."""
ImagesCheck = Callable[[Sequence["DataSetImage"]], Mapping[str, ImageSize]]
"""Called with all images, in the order of the file, before the first object is read: for who has them at hand.

It gives the sizes of those for which the file has none, by file name.
"""


@dataclass(frozen=True)
class DataSetImage:
    """An image of a data set."""

    id: int
    file_name: str
    """As the file gives it, with forward slashes."""
    size: ImageSize | None
    """None where the file doesn't say."""


@dataclass(frozen=True)
class DataSetObject:
    """An object to be found."""

    image_id: int
    category_id: int
    bbox_xywh: tuple[float, float, float, float]
    mask: RunLength | None
    """None where only its box is known."""
    area: float
    """In square pixels, as the annotator says, or the mask's or box's own."""
    is_crowd: bool
    index: int = 0
    """Its place among the annotations of the file."""


@dataclass(frozen=True, repr=False)
class DataSet:
    """Images, classes and objects that predictions are measured against."""

    path: Path
    images: tuple[DataSetImage, ...]
    """In the order of their ids."""
    classes: Mapping[int, str]
    """Names by id; none twice."""
    objects: tuple[DataSetObject, ...]
    image_ids: Mapping[str, int] = field(default_factory=dict)
    """Our ids by the text of the file's, as are the classes'."""
    category_ids: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Unusual forms that were read, a line each."""
    is_of_run: bool = False
    """Whether it is a run's file, whose `bbox` is the mask's and another than the detector's."""

    def __repr__(self) -> str:
        """Name the file and how much is in it."""
        counts = ", ".join(f"{len(getattr(self, what))} {what}" for what in ("images", "classes", "objects"))
        return f"DataSet({str(self.path)!r}: {counts})"

    @property
    def has_masks(self) -> bool:
        """Whether masks can be measured: any object has one, or there are no objects at all."""
        return not self.objects or any(one.mask is not None for one in self.objects)

    @cached_property
    def objects_by_image(self) -> Mapping[int, tuple[DataSetObject, ...]]:
        """The objects of each image that has any, by its id."""
        groups: dict[int, list[DataSetObject]] = {}
        for one in self.objects:
            groups.setdefault(one.image_id, []).append(one)
        return {image_id: tuple(group) for image_id, group in groups.items()}

    def only_classes(self, names: frozenset[str]) -> "DataSet":
        """Leave out the other classes and their objects."""
        classes = {class_id: name for class_id, name in self.classes.items() if name in names}
        left = tuple(one for one in self.objects if one.category_id in classes)
        ids = {text: class_id for text, class_id in self.category_ids.items() if class_id in classes}
        return replace(self, classes=classes, objects=left, category_ids=ids)


def read_data_set(
    path: Path, on_fault: ObjectFault | None = None, check_images: ImagesCheck = lambda _images: {}
) -> DataSet:
    """Data set of a COCO file.

    With `on_fault`, objects on known images that can't be understood are left out and told to it; else they are
    refused with an `InputError`, as all else that is unusable.
    """
    return data_set_from(read_json(path), path, on_fault, check_images)


def data_set_from(
    document: Any, path: Path, on_fault: ObjectFault | None = None, check_images: ImagesCheck = lambda _images: {}
) -> DataSet:
    """Data set of a COCO document in memory; `path` is where messages say it is."""
    try:
        return _Reader(path, on_fault, check_images).data_set(document)
    except EntryError as error:
        raise InputError(f"{path}: {error}") from error


class _Reader:
    def __init__(self, path: Path, on_fault: ObjectFault | None, check_images: ImagesCheck) -> None:
        self._path, self._on_fault, self._check_images = path, on_fault, check_images
        self._notes = Notes()

    def data_set(self, document: Any) -> DataSet:
        if not isinstance(document, Mapping) or "images" not in document:
            what = "a list, as of predictions" if isinstance(document, list) else "no COCO data set"
            raise InputError(
                f'{self._path} holds {what}; ground truth is an object with "images", "annotations" and "categories"'
            )
        images = self._listed(document, "images")
        annotations = self._listed(document, "annotations")
        if kind := other_kind_of(annotations):
            raise holds_other_kind(self._path, kind)
        image_ids, by_text = self._images(images)
        classes = self._classes(self._listed(document, "categories"), annotations)
        if "info" not in document:
            self._notes.add(NO_INFO)
        note_annotation_ids(annotations, self._notes)
        measured = self._check_images(list(by_text.values()))
        by_text = {text: replace(one, size=one.size or measured.get(one.file_name)) for text, one in by_text.items()}
        objects = tuple(self._objects(annotations, by_text, classes.ids))
        # An image's size is its masks' where the file doesn't say.
        sizes = {one.image_id: one.mask.size for one in objects if one.mask is not None}
        sized = [image if image.size else replace(image, size=sizes.get(image.id)) for image in by_text.values()]
        self._note_what_is_missing(objects)
        if objects and all(max(one.bbox_xywh) <= 1 for one in objects):
            self._notes.add(SHARES)
        return DataSet(
            path=self._path,
            images=tuple(sorted(sized, key=lambda image: image.id)),
            classes=dict(sorted(classes.names.items())),
            objects=objects,
            image_ids=image_ids,
            category_ids=classes.ids,
            notes=self._notes.lines(),
            is_of_run=any(one.get("detector_bbox") not in (None, one.get("bbox")) for one in annotations),
        )

    def _note_what_is_missing(self, objects: Sequence[DataSetObject]) -> None:
        n_without = sum(one.mask is None for one in objects)
        if not objects:
            self._notes.add("there are no annotations: precision and recall can't be measured, only presence")
        elif n_without == len(objects):
            self._notes.add("the annotations have boxes only: masks are not measured")
        elif n_without:
            self._notes.add(
                f"{n_without} of {len(objects)} objects have no mask: for masks, what is predicted on them "
                "counts neither as right nor as wrong"
            )

    def _listed(self, document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        if key not in document:
            raise InputError(f'{self._path} has no "{key}"; a COCO data set needs it, export it again')
        entries = document[key]
        if not isinstance(entries, list):
            raise InputError(f'{self._path}: "{key}" is no list; a COCO data set needs one, export it again')
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise EntryError(f"{key}[{index}]", "it is no object", "export it again")
        if not entries and key != "annotations":
            raise InputError(f'{self._path}: "{key}" is empty, there is nothing to measure; name another file')
        return entries

    def _images(self, entries: list[Mapping[str, Any]]) -> tuple[dict[str, int], dict[str, DataSetImage]]:
        """Our ids by the text of the file's, and the images likewise."""
        ids = read_ids(entries, "images", self._notes)
        images = {}
        for index, (entry, (text, image_id)) in enumerate(zip(entries, ids.items(), strict=True)):
            place = f"images[{index}]"
            name = read_file_name(entry, place, self._notes)
            try:
                images[text] = DataSetImage(image_id, name, image_size(entry, place, self._notes))
            except ValueError as error:
                raise EntryError(place, str(error), "correct it") from error
        return ids, images

    def _classes(self, entries: list[Mapping[str, Any]], annotations: list[Mapping[str, Any]]) -> Classes:
        used = set()
        for annotation in annotations:
            with suppress(ValueError):
                used.add(id_text(annotation.get("category_id")))
        return read_classes_of(entries, used, self._notes)

    def _objects(
        self, entries: list[Mapping[str, Any]], images: Mapping[str, DataSetImage], category_ids: Mapping[str, int]
    ) -> Iterator[DataSetObject]:
        for index, raw in enumerate(entries):
            place = f"annotations[{index}]"
            image = self._referred(raw, "image_id", images, place, "images")
            try:
                category_id = self._referred(raw, "category_id", category_ids, place, "categories")
                found = self._object(raw, index, image, category_id)
            except EntryError as error:
                if self._on_fault is None:
                    raise
                self._on_fault(index, image.id, InputError(f"{self._path}: {error}"))
                continue
            if found is not None:
                yield found

    def _object(
        self, raw: Mapping[str, Any], index: int, image: DataSetImage, category_id: int
    ) -> DataSetObject | None:
        place = f"annotations[{index}]"
        try:
            read = object_of(raw, image.size, place, self._notes)
        except ValueError as error:
            raise EntryError(place, str(error), "correct it or take the annotation out") from error
        if read is None:
            return None
        shape = read.shape
        return DataSetObject(image.id, category_id, shape.box_xywh, shape.mask, read.area, read.is_crowd, index)

    def _referred(self, raw: Mapping[str, Any], key: str, known: Mapping[str, _T], place: str, listed: str) -> _T:
        try:
            text = read_id(raw, key, listed, self._notes, place)
        except ValueError as error:
            raise EntryError(place, str(error), "correct it or take the annotation out") from error
        if text not in known:
            what = f'{key} {text} is not among "{listed}"'
            raise EntryError(place, what, "add it there or take the annotation out")
        return known[text]
