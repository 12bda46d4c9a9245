"""Read a COCO data set as the world writes it: everything clean afterwards and what was odd said, or refused by place.

What is refused is what can't be known: which image a reference means, how large a mask is, whether text after the end
belongs to the file. The rest is read: text for numbers, ids of any kind, missing areas, names that are there twice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject
from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes, box_xywh, id_text, mask_of, number
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px, tight_box_xyxy
from grounded_seg.records import ImageSize, RunLength

ObjectFault = Callable[[int, int, InputError], None]
"""Told an object's place among the annotations, our id of its image, and what is wrong."""


def read_data_set(path: Path, on_fault: ObjectFault | None = None) -> DataSet:
    """Read and clean a COCO file.

    Args:
        path: The file.
        on_fault: Told of objects on known images that can't be understood, which are left out then; None to refuse
            them.

    Raises:
        InputError: If it can't be read, isn't a COCO data set, lists no images, or holds what can't be understood;
            names the file, the place in it and what to do.
    """
    return _Reader(path, on_fault).read()


class _Reader:
    """Reads one file; knows where it is, for messages."""

    def __init__(self, path: Path, on_fault: ObjectFault | None) -> None:
        self._path = path
        self._on_fault = on_fault
        self._notes = Notes()

    def read(self) -> DataSet:
        document = read_json(self._path)
        if not isinstance(document, Mapping) or "images" not in document:
            what = "a list, as of predictions" if isinstance(document, list) else "no COCO data set"
            raise InputError(
                f'{self._path} holds {what}; ground truth is an object with "images", "annotations" and "categories"'
            )
        image_ids, images = self._images(self._listed(document, "images"))
        category_ids, classes = self._classes(self._listed(document, "categories"))
        by_id = {image.id: image for image in images}
        objects = tuple(self._objects(self._listed(document, "annotations"), image_ids, category_ids, by_id))
        masks = {one.image_id: one.mask for one in objects if one.mask is not None}
        if not objects:
            self._notes.add("there are no annotations: precision and recall can't be measured, only presence")
        data_set = DataSet(
            path=self._path,
            images=tuple(_sized(image, masks) for image in sorted(images, key=lambda image: image.id)),
            classes=dict(sorted(classes.items())),
            objects=objects,
            image_ids=image_ids,
            category_ids=category_ids,
            notes=(),
        )
        self._note_boxes_only(data_set)
        return replace(data_set, notes=self._notes.lines())

    def _note_boxes_only(self, data_set: DataSet) -> None:
        n_without = sum(one.mask is None for one in data_set.objects)
        if not data_set.has_masks:
            self._notes.add("the annotations have boxes only: masks are not measured")
        elif n_without:
            self._notes.add(
                f"{n_without} of {len(data_set.objects)} objects have no mask: for masks, what is predicted on them "
                "counts neither as right nor as wrong"
            )

    def _listed(self, document: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
        entries = document.get(key)
        if not isinstance(entries, list):
            raise InputError(f'{self._path}: "{key}" is no list; a COCO data set needs one, export it again')
        for place, entry in enumerate(entries):
            if not isinstance(entry, Mapping):
                raise self._error(f"{key}[{place}]", "it is no object", "export it again")
        if not entries and key != "annotations":
            raise InputError(f'{self._path}: "{key}" is empty, there is nothing to measure; name another file')
        return entries

    def _images(self, entries: list[Mapping[str, Any]]) -> tuple[dict[str, int], list[DataSetImage]]:
        ids = self._ids(entries, "images")
        images = []
        for place, (entry, image_id) in enumerate(zip(entries, ids.values(), strict=True)):
            name = entry.get("file_name")
            if not isinstance(name, str) or not name:
                raise self._error(f"images[{place}]", "it has no file_name", "add it")
            images.append(DataSetImage(image_id, name.replace("\\", "/"), self._size(entry, f"images[{place}]")))
        return ids, images

    def _size(self, entry: Mapping[str, Any], place: str) -> ImageSize | None:
        if entry.get("width") is None or entry.get("height") is None:
            return None
        try:
            width, height = number(entry["width"]), number(entry["height"])
        except ValueError as error:
            raise self._error(place, f"width or height {error}", "correct it") from error
        if min(width, height) < 1 or not (width.is_integer() and height.is_integer()):
            raise self._error(place, f"its size is {width:g} x {height:g} px", "correct it")
        return ImageSize(width=int(width), height=int(height))

    def _ids(self, entries: list[Mapping[str, Any]], key: str) -> dict[str, int]:
        """Read distinct ids; if any isn't a whole number, all are numbered from 1 in the file's order."""
        texts: dict[str, int] = {}
        for place, entry in enumerate(entries):
            try:
                text = id_text(entry.get("id"))
            except ValueError as error:
                raise self._error(f"{key}[{place}]", str(error), "give each entry an id of its own") from error
            if text in texts:
                raise self._error(f"{key}[{place}]", f"the id {text} is there twice", "give each entry its own")
            texts[text] = place + 1
            if isinstance(entry.get("id"), str):
                self._notes.add(f"ids of {key} are text", f"{key}[{place}]")
        if all(text.isascii() and text.isdigit() for text in texts):
            return {text: int(text) for text in texts}
        return texts

    def _classes(self, entries: list[Mapping[str, Any]]) -> tuple[dict[str, int], dict[int, str]]:
        ids = self._ids(entries, "categories")
        id_by_name: dict[str, int] = {}
        for place, (text, entry) in enumerate(zip(list(ids), entries, strict=True)):
            name = entry.get("name")
            if not isinstance(name, str) or not name.strip():
                raise self._error(f"categories[{place}]", "it has no name", "add it, it is what is asked for")
            first = id_by_name.setdefault(name.strip(), ids[text])
            if first != ids[text]:
                self._notes.add("classes of the same name were taken as one", f"categories[{place}]")
                ids[text] = first
        return ids, {class_id: name for name, class_id in id_by_name.items()}

    def _objects(
        self,
        entries: list[Mapping[str, Any]],
        image_ids: Mapping[str, int],
        category_ids: Mapping[str, int],
        images: Mapping[int, DataSetImage],
    ) -> Iterator[DataSetObject]:
        for index, raw in enumerate(entries):
            place = f"annotations[{index}]"
            image = images[self._reference(raw, "image_id", image_ids, place, "images")]
            try:
                yield self._object(raw, place, image, category_ids)
            except InputError as error:
                if self._on_fault is None:
                    raise
                self._on_fault(index, image.id, error)

    def _object(
        self, raw: Mapping[str, Any], place: str, image: DataSetImage, category_ids: Mapping[str, int]
    ) -> DataSetObject:
        category_id = self._reference(raw, "category_id", category_ids, place, "categories")
        try:
            mask = mask_of(raw.get("segmentation"), image.size, f"{place}.segmentation", self._notes)
            box = box_xywh(raw.get("bbox"), f"{place}.bbox", self._notes)
            area = None if raw.get("area") is None else self._number(raw, "area")
            is_crowd = self._is_crowd(raw, place)
        except ValueError as error:
            raise self._error(place, str(error), "correct it or take the annotation out") from error
        if box is None:
            if mask is None:
                raise self._error(place, "it has neither bbox nor segmentation", "add one or take it out")
            self._notes.add("objects without a bbox got their mask's", place)
            x0, y0, x1, y1 = tight_box_xyxy(mask)
            box = [x0, y0, x1 - x0, y1 - y0]
        if area is None:
            self._notes.add("objects without an area were measured", place)
            area = box[2] * box[3] if mask is None else float(area_px(mask))
        if "iscrowd" not in raw:
            self._notes.add("objects without iscrowd were taken as single ones", place)
        return DataSetObject(image.id, category_id, (box[0], box[1], box[2], box[3]), mask, area, is_crowd)

    def _is_crowd(self, raw: Mapping[str, Any], place: str) -> bool:
        if isinstance(raw.get("iscrowd"), bool):
            self._notes.add("iscrowd written as true or false was read as 1 or 0", place)
            return bool(raw["iscrowd"])
        return bool(self._number(raw, "iscrowd")) if raw.get("iscrowd") else False

    @staticmethod
    def _number(raw: Mapping[str, Any], key: str) -> float:
        try:
            return number(raw[key])
        except ValueError as error:
            raise ValueError(f"{key} {error}") from error

    def _reference(self, raw: Mapping[str, Any], key: str, known: Mapping[str, int], place: str, listed: str) -> int:
        try:
            return known[id_text(raw.get(key))]
        except ValueError as error:
            raise self._error(place, f"{key} {error}", "correct it or take the annotation out") from error
        except KeyError as error:
            what = f'{key} {error.args[0]} is not among "{listed}"'
            raise self._error(place, what, "add it there or take the annotation out") from error

    def _error(self, place: str, what: str, remedy: str) -> InputError:
        return InputError(f"{self._path}: {place}: {what}; {remedy}")


def _sized(image: DataSetImage, masks: Mapping[int, RunLength]) -> DataSetImage:
    """Take an image's size from one of its masks where the file doesn't say."""
    mask = masks.get(image.id)
    return image if image.size is not None or mask is None else replace(image, size=mask.size)
