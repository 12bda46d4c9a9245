"""A COCO data set as records: ids are whole numbers, every reference leads somewhere, what was odd is said in notes.

What is refused is what can't be known: which image a reference means, how large a mask is, whether text after the end
belongs to the file. The rest is read: text for numbers, ids of any kind, missing areas, names that are there twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes, id_text, image_size, is_crowd, number, shape_of
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px
from grounded_seg.records import ImageSize, RunLength

_T = TypeVar("_T")
ObjectFault = Callable[[int, int, InputError], None]
"""Called with an object's index among the annotations, our id of its image, and what is wrong."""


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


def read_data_set(path: Path, on_fault: ObjectFault | None = None) -> DataSet:
    """Data set of a COCO file.

    With `on_fault`, objects on known images that can't be understood are left out and told to it; else they are
    refused with an `InputError`, as all else that is unusable.
    """
    return data_set_from(read_json(path), path, on_fault)


def data_set_from(document: Any, path: Path, on_fault: ObjectFault | None = None) -> DataSet:
    """Data set of a COCO document in memory; `path` is where messages say it is."""
    return _Reader(path, on_fault).data_set(document)


class _Reader:
    def __init__(self, path: Path, on_fault: ObjectFault | None) -> None:
        self._path, self._on_fault, self._notes = path, on_fault, Notes()

    def data_set(self, document: Any) -> DataSet:
        if not isinstance(document, Mapping) or "images" not in document:
            what = "a list, as of predictions" if isinstance(document, list) else "no COCO data set"
            raise InputError(
                f'{self._path} holds {what}; ground truth is an object with "images", "annotations" and "categories"'
            )
        image_ids, images = self._images(self._listed(document, "images"))
        category_ids, classes = self._classes(self._listed(document, "categories"))
        by_text = dict(zip(image_ids, images, strict=True))
        objects = tuple(self._objects(self._listed(document, "annotations"), by_text, category_ids))
        # An image's size is its masks' where the file doesn't say.
        sizes = {one.image_id: one.mask.size for one in objects if one.mask is not None}
        sized = [image if image.size else replace(image, size=sizes.get(image.id)) for image in images]
        self._note_what_is_missing(objects)
        return DataSet(
            path=self._path,
            images=tuple(sorted(sized, key=lambda image: image.id)),
            classes=dict(sorted(classes.items())),
            objects=objects,
            image_ids=image_ids,
            category_ids=category_ids,
            notes=self._notes.lines(),
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
        entries = document.get(key)
        if not isinstance(entries, list):
            raise InputError(f'{self._path}: "{key}" is no list; a COCO data set needs one, export it again')
        for index, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise self._error(f"{key}[{index}]", "it is no object", "export it again")
        if not entries and key != "annotations":
            raise InputError(f'{self._path}: "{key}" is empty, there is nothing to measure; name another file')
        return entries

    def _images(self, entries: list[Mapping[str, Any]]) -> tuple[dict[str, int], list[DataSetImage]]:
        ids = self._ids(entries, "images")
        images = []
        for index, (entry, image_id) in enumerate(zip(entries, ids.values(), strict=True)):
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                raise self._error(f"images[{index}]", "it has no file_name", "add it")
            try:
                images.append(DataSetImage(image_id, name.replace("\\", "/"), image_size(entry)))
            except ValueError as error:
                raise self._error(f"images[{index}]", str(error), "correct it") from error
        return ids, images

    def _ids(self, entries: list[Mapping[str, Any]], key: str) -> dict[str, int]:
        """Read distinct ids; if any isn't a whole number, all are numbered from 1 in the file's order."""
        texts: dict[str, int] = {}
        for index, entry in enumerate(entries):
            try:
                text = id_text(entry.get("id"))
                if text in texts:
                    raise ValueError(f"the id {text} is there twice")
            except ValueError as error:
                raise self._error(f"{key}[{index}]", str(error), "give each entry an id of its own") from error
            texts[text] = index + 1
            if isinstance(entry.get("id"), str):
                self._notes.add(f"ids of {key} are text", f"{key}[{index}]")
        if all(text.isascii() and text.isdigit() for text in texts):
            return {text: int(text) for text in texts}
        return texts

    def _classes(self, entries: list[Mapping[str, Any]]) -> tuple[dict[str, int], dict[int, str]]:
        ids = self._ids(entries, "categories")
        id_by_name: dict[str, int] = {}
        for index, (text, entry) in enumerate(zip(list(ids), entries, strict=True)):
            name = entry.get("name")
            if not isinstance(name, str) or not name.strip():
                raise self._error(f"categories[{index}]", "it has no name", "add it, it is what is asked for")
            first = id_by_name.setdefault(name.strip(), ids[text])
            if first != ids[text]:
                self._notes.add("classes of the same name were taken as one", f"categories[{index}]")
                ids[text] = first
        return ids, {class_id: name for name, class_id in id_by_name.items()}

    def _objects(
        self, entries: list[Mapping[str, Any]], images: Mapping[str, DataSetImage], category_ids: Mapping[str, int]
    ) -> Iterator[DataSetObject]:
        for index, raw in enumerate(entries):
            place = f"annotations[{index}]"
            image = self._referred(raw, "image_id", images, place, "images")
            try:
                category_id = self._referred(raw, "category_id", category_ids, place, "categories")
                yield self._object(raw, place, image, category_id)
            except InputError as error:
                if self._on_fault is None:
                    raise
                self._on_fault(index, image.id, error)

    def _object(self, raw: Mapping[str, Any], place: str, image: DataSetImage, category_id: int) -> DataSetObject:
        try:
            box, mask = shape_of(raw.get("bbox"), raw.get("segmentation"), image.size, place, self._notes, "objects")
            if raw.get("area") is None:
                self._notes.add("objects without an area were measured", place)
                area = box[2] * box[3] if mask is None else float(area_px(mask))
            else:
                area = number(raw["area"], "area")
            crowd = is_crowd(raw, place, self._notes)
        except ValueError as error:
            raise self._error(place, str(error), "correct it or take the annotation out") from error
        if "iscrowd" not in raw:
            self._notes.add("objects without iscrowd were taken as single ones", place)
        return DataSetObject(image.id, category_id, box, mask, area, crowd)

    def _referred(self, raw: Mapping[str, Any], key: str, known: Mapping[str, _T], place: str, listed: str) -> _T:
        try:
            return known[id_text(raw.get(key))]
        except ValueError as error:
            raise self._error(place, f"{key} {error}", "correct it or take the annotation out") from error
        except KeyError as error:
            what = f'{key} {error.args[0]} is not among "{listed}"'
            raise self._error(place, what, "add it there or take the annotation out") from error

    def _error(self, place: str, what: str, remedy: str) -> InputError:
        return InputError(f"{self._path}: {place}: {what}; {remedy}")
