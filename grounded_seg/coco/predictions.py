"""Predictions to be scored: a run's `annotations.json` or `results.jsonl`, or a plain COCO result list.

A run knows nothing of the data set's ids: its images are found by file name and its classes by name. A result list
uses the data set's own ids.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from grounded_seg.coco.data_set import DataSet, DataSetImage
from grounded_seg.coco.entries import EntryError, read_classes_of, read_file_name, read_id, read_ids
from grounded_seg.coco.image_names import images_by_name, names_among
from grounded_seg.coco.objects import shape_of
from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes, noted_number
from grounded_seg.errors import InputError
from grounded_seg.records import RunLength
from grounded_seg.text.decoding import read_text
from grounded_seg.text.documents import DocumentError, JsonSyntaxError, json_of

_Found: TypeAlias = tuple[str, DataSetImage | None, int | None, str | None, Mapping[str, Any]]
"""Place, image and id of the class (None where the data set lacks it), prompt, entry of a prediction."""

_LINE_KEYS = ("file_name", "instances", "status")
_LISTED = {"image_id": "images", "category_id": "categories"}


@dataclass(frozen=True)
class Prediction:
    """A predicted object, with the data set's ids."""

    image_id: int
    category_id: int
    score: float
    box_xywh: tuple[float, float, float, float]
    """The detector's own box where it is known."""
    mask: RunLength | None
    prompt: str | None = None
    """What was asked, where that is known."""
    detector_score: float | None = None
    """Decides where scores are equal, as probabilities may be; None for the score itself."""


@dataclass(frozen=True)
class PredictionFile:
    """What a file predicts about a data set."""

    predictions: tuple[Prediction, ...]
    asked: frozenset[str] | None
    """Classes that were asked about, by the data set's names for those that it has; None where the file doesn't say."""
    notes: tuple[str, ...]
    has_detector_boxes: bool = False
    """Whether the boxes are the detector's own, as in a run's files."""

    @property
    def has_masks(self) -> bool:
        """Whether any has a mask."""
        return any(one.mask is not None for one in self.predictions)


def read_predictions(path: Path, data_set: DataSet, class_by_prompt: Mapping[str, str] | None = None) -> PredictionFile:
    """Predictions of a file of any of the three forms; one that ends in .jsonl is a journal.

    `class_by_prompt` gives the class of a journal's prompts, None where they are class names.
    """
    if path.suffix.lower() == ".jsonl":
        return _Reader(path, data_set, class_by_prompt).journal()
    return predictions_from(read_json(path), path, data_set)


def predictions_from(document: Any, path: Path, data_set: DataSet) -> PredictionFile:
    """Predictions of a COCO document or result list in memory; `path` is where messages say it is."""
    reader = _Reader(path, data_set, None)
    try:
        if isinstance(document, list):
            return reader.file(reader.of_results(document), asked=None)
        if isinstance(document, Mapping) and isinstance(document.get("annotations"), list):
            return reader.document(document)
    except EntryError as error:
        raise InputError(f"{path}: {error}") from error
    raise InputError(
        f"{path} holds no predictions; name a run's annotations.json or results.jsonl, or a COCO result list"
    )


class _Reader:
    def __init__(self, path: Path, data_set: DataSet, class_by_prompt: Mapping[str, str] | None) -> None:
        self._path, self._data_set, self._class_by_prompt = path, data_set, class_by_prompt
        self._notes = Notes()
        self._image_by_id = {image.id: image for image in data_set.images}
        self._id_by_class = {name: class_id for class_id, name in data_set.classes.items()}
        self._own_names: dict[str, str | None] = {}
        self._has_detector_boxes = False

    def document(self, document: Mapping[str, Any]) -> PredictionFile:
        for key in ("categories", "images", "annotations"):
            if not isinstance(document.get(key), list):
                raise InputError(f'{self._path}: "{key}" is no list; export the file again')
            for index, one in enumerate(document[key]):
                if not isinstance(one, Mapping):
                    raise EntryError(f"{key}[{index}]", "it is no object", "export the predictions again")
        annotations = document["annotations"]
        classes = read_classes_of(document["categories"], None, self._notes)
        names = {text: classes.names[class_id] for text, class_id in classes.ids.items()}
        texts = read_ids(document["images"], "images", self._notes)
        files = {
            text: read_file_name(one, f"images[{index}]", self._notes)
            for index, (text, one) in enumerate(zip(texts, document["images"], strict=True))
        }
        images_found = self._images_found(set(files.values()))
        by_text = {text: images_found.get(file_name) for text, file_name in files.items()}
        return self.file(self._of_document(annotations, names, by_text), frozenset(names.values()))

    def journal(self) -> PredictionFile:
        lines = list(self._journal_lines())
        images_found = self._images_found({name for name, _, status in lines if status == "done"})
        asked = None if self._class_by_prompt is None else frozenset(self._class_by_prompt.values())
        try:
            return self.file(self._of_journal(lines, images_found), asked)
        except EntryError as error:
            raise InputError(f"{self._path}: {error}") from error

    def _journal_lines(self) -> Iterator[tuple[str, list[Any], str]]:
        """Yield file name, instances and status of each line."""
        *whole, last = read_text(self._path).split("\n")
        for line_number, text in enumerate([*whole, last] if last else whole, start=1):
            try:
                line = json_of(text, object_of=None)
            except DocumentError as error:
                if line_number > len(whole) and isinstance(error, JsonSyntaxError):
                    self._notes.add("the last line is cut off and was left out, as the run was interrupted in it")
                    return
                raise self._no_line(line_number, f"it is no JSON: {error}") from error
            missing = [key for key in _LINE_KEYS if not isinstance(line, Mapping) or key not in line]
            if missing:
                raise self._no_line(line_number, f"it has no {missing[0]}")
            instances = line["instances"]
            if not isinstance(instances, list) or not all(isinstance(one, Mapping) for one in instances):
                raise self._no_line(line_number, "its instances are no list of objects")
            yield str(line["file_name"]), instances, str(line["status"])

    def _no_line(self, line_number: int, what: str) -> InputError:
        return InputError(
            f"{self._path}:{line_number}: this is no line of a run's journal ({what}); name a results.jsonl as run "
            "writes it"
        )

    def file(self, found: Iterator[_Found], asked: frozenset[str] | None) -> PredictionFile:
        """Keep the predictions whose image and class belong to the data set."""
        predictions = []
        for place, image, category_id, prompt, entry in found:
            if image is None:
                self._notes.add(f"predictions on images that {self._data_set.path.name} lacks were left out", place)
            elif category_id is None:
                self._notes.add(f"predictions of classes that {self._data_set.path.name} lacks were left out", place)
            elif (one := self._prediction(image, category_id, prompt, entry, place)) is not None:
                predictions.append(one)
        n_without = sum(one.mask is None for one in predictions)
        if 0 < n_without < len(predictions):
            self._notes.add(f"{n_without} of {len(predictions)} predictions have no mask: they count as boxes only")
        if asked is not None:
            asked = frozenset(self._own_name(name) or name for name in asked)
        return PredictionFile(tuple(predictions), asked, self._notes.lines(), self._has_detector_boxes)

    def of_results(self, entries: list[Any]) -> Iterator[_Found]:
        images = {text: self._image_by_id[image_id] for text, image_id in self._data_set.image_ids.items()}
        for index, entry in enumerate(entries):
            place = f"[{index}]"
            if not isinstance(entry, Mapping):
                raise self._error(place, "it is no object")
            image = images.get(text := self._id(entry, "image_id", "images", place))
            if image is None:
                raise self._error(place, f"image_id {text} is not among the images of {self._data_set.path.name}")
            category_id = self._data_set.category_ids.get(self._id(entry, "category_id", "categories", place))
            yield place, image, category_id, entry.get("prompt"), entry

    def _of_document(
        self,
        entries: list[Mapping[str, Any]],
        names: Mapping[str, str],
        images: Mapping[str, DataSetImage | None],
    ) -> Iterator[_Found]:
        for index, entry in enumerate(entries):
            place = f"annotations[{index}]"
            image_text = self._id(entry, "image_id", "images", place)
            class_text = self._id(entry, "category_id", "categories", place)
            for text, listed, key in ((image_text, images, "image_id"), (class_text, names, "category_id")):
                if text not in listed:
                    raise self._error(place, f'{key} {text} is not among the file\'s "{_LISTED[key]}"')
            name = self._own_name(names[class_text])
            yield place, images[image_text], self._id_by_class.get(name or ""), _prompt_of(entry), entry

    def _id(self, entry: Mapping[str, Any], key: str, listed: str, place: str) -> str:
        try:
            return read_id(entry, key, listed, self._notes, place)
        except ValueError as error:
            raise self._error(place, str(error)) from error

    def _of_journal(
        self, lines: list[tuple[str, list[Any], str]], images: Mapping[str, DataSetImage]
    ) -> Iterator[_Found]:
        for line_number, (file_name, instances, _) in enumerate(lines, start=1):
            for index, entry in enumerate(instances):
                place = f"line {line_number}, instance {index + 1}"
                prompt = _prompt_of(entry)
                if prompt is None:
                    raise self._error(place, "it has no attributes.prompt, so its class isn't known")
                name = prompt if self._class_by_prompt is None else self._class_by_prompt.get(prompt)
                if name is None:
                    raise self._error(place, f"its prompt {prompt!r} isn't among the --prompts")
                category_id = self._id_by_class.get(self._own_name(name) or "")
                yield place, images.get(file_name), category_id, prompt, entry

    def _own_name(self, name: str) -> str | None:
        """Name of the data set's class that a name means; None where it has none."""
        if name not in self._own_names:
            self._own_names |= dict.fromkeys([name]) | names_among([name], self._id_by_class, self._notes)
        return self._own_names[name]

    def _images_found(self, file_names: set[str]) -> dict[str, DataSetImage]:
        """Find the images that the names mean; refuse a file about other ones, and say which it doesn't list."""
        try:
            found = images_by_name(file_names, self._data_set.images, self._notes)
        except ValueError as error:
            raise InputError(
                f"{self._path}: {error}; name predictions on the images of {self._data_set.path}, each listed once"
            ) from error
        seen = {image.id for image in found.values()}
        missing = [image for image in self._data_set.images if image.id not in seen]
        if missing and not seen:
            raise InputError(
                f"{self._path} is about none of the images of {self._data_set.path} "
                f"(such as {missing[0].file_name!r}); name the predictions on that data set"
            )
        if missing:
            have = "has" if len(missing) == 1 else "have"
            self._notes.add(
                f"{len(missing)} of {len(self._data_set.images)} images {have} no results, such as "
                f"{missing[0].file_name!r}: nothing counts as found there"
            )
        return found

    def _prediction(
        self, image: DataSetImage, category_id: int, prompt: str | None, entry: Mapping[str, Any], place: str
    ) -> Prediction | None:
        """Read a prediction; None for one of no extent."""
        try:
            if entry.get("score") is None:
                raise ValueError("it has no score")
            score = noted_number(entry["score"], "score", f"{place}.score", self._notes)
            bbox = entry.get("detector_bbox") or entry.get("bbox")
            self._has_detector_boxes |= bool(entry.get("detector_bbox"))
            shape = shape_of(bbox, entry.get("segmentation"), image.size, place, self._notes, "predictions")
        except ValueError as error:
            raise self._error(place, str(error)) from error
        if shape is None:
            return None
        raw = _detector_score_of(entry)
        return Prediction(image.id, category_id, score, shape.box_xywh, shape.mask, prompt, raw)

    def _error(self, place: str, what: str) -> EntryError:
        return EntryError(place, what, "correct it or export the predictions again")


def _prompt_of(entry: Mapping[str, Any]) -> str | None:
    attributes = entry.get("attributes")
    prompt = attributes.get("prompt") if isinstance(attributes, Mapping) else None
    return prompt if isinstance(prompt, str) else None


def _detector_score_of(entry: Mapping[str, Any]) -> float | None:
    attributes = entry.get("attributes")
    score = attributes.get("detector_score") if isinstance(attributes, Mapping) else None
    is_number = isinstance(score, int | float) and not isinstance(score, bool) and math.isfinite(score)
    return float(score) if is_number and score is not None else None
