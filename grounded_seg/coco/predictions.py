"""Predictions to be scored: a run's `annotations.json` or `results.jsonl`, or a plain COCO result list.

A run knows nothing of the data set's ids: its images are found by file name and its classes by name. A result list
uses the data set's own ids.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from grounded_seg.coco.data_set import DataSet, DataSetImage
from grounded_seg.coco.image_names import images_by_name
from grounded_seg.coco.text import read_json
from grounded_seg.coco.values import Notes, id_text, number, shape_of
from grounded_seg.errors import InputError
from grounded_seg.records import RunLength
from grounded_seg.text.decoding import read_text

_Found: TypeAlias = tuple[str, DataSetImage | None, int | None, str | None, Mapping[str, Any]]
"""Place, image and id of the class (None where the data set lacks it), prompt, entry of a prediction."""


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


@dataclass(frozen=True)
class PredictionFile:
    """What a file predicts about a data set."""

    predictions: tuple[Prediction, ...]
    asked: frozenset[str] | None
    """Classes that were asked about; None where the file doesn't say."""
    notes: tuple[str, ...]

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
    if isinstance(document, list):
        return reader.file(reader.of_results(document), asked=None)
    if isinstance(document, Mapping) and isinstance(document.get("annotations"), list):
        return reader.document(document)
    raise InputError(
        f"{path} holds no predictions; name a run's annotations.json or results.jsonl, or a COCO result list"
    )


class _Reader:
    def __init__(self, path: Path, data_set: DataSet, class_by_prompt: Mapping[str, str] | None) -> None:
        self._path, self._data_set, self._class_by_prompt = path, data_set, class_by_prompt
        self._notes = Notes()
        self._image_by_id = {image.id: image for image in data_set.images}
        self._id_by_class = {name: class_id for class_id, name in data_set.classes.items()}

    def document(self, document: Mapping[str, Any]) -> PredictionFile:
        categories, images = document.get("categories"), document.get("images")
        if not isinstance(categories, list) or not isinstance(images, list):
            raise InputError(f'{self._path}: "images" or "categories" is no list; export the file again')
        try:
            names = {id_text(one["id"]): str(one["name"]).strip() for one in categories}
            files = {id_text(one["id"]): str(one["file_name"]) for one in images}
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{self._path}: an image lacks its id or file_name, or a class its id or name; export the file again"
            ) from error
        images_found = self._images_found(set(files.values()))
        by_text = {text: images_found.get(file_name) for text, file_name in files.items()}
        return self.file(self._of_document(document["annotations"], names, by_text), frozenset(names.values()))

    def journal(self) -> PredictionFile:
        lines = list(self._journal_lines())
        images_found = self._images_found({name for name, _, status in lines if status == "done"})
        asked = None if self._class_by_prompt is None else frozenset(self._class_by_prompt.values())
        return self.file(self._of_journal(lines, images_found), asked)

    def _journal_lines(self) -> Iterator[tuple[str, list[Any], str]]:
        """Yield file name, instances and status of each line."""
        *whole, last = read_text(self._path).split("\n")
        for line_number, text in enumerate([*whole, last] if last else whole, start=1):
            try:
                line = json.loads(text)
                file_name, instances, status = line["file_name"], line["instances"], line["status"]
                if not isinstance(instances, list) or not all(isinstance(one, Mapping) for one in instances):
                    raise TypeError("its instances are no list of objects")
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                if line_number > len(whole) and isinstance(error, json.JSONDecodeError):
                    self._notes.add("the last line is cut off and was left out, as the run was interrupted in it")
                    return
                raise InputError(
                    f"{self._path}:{line_number}: this is no line of a run's journal "
                    f"({type(error).__name__}: {error}); name a results.jsonl as run writes it"
                ) from error
            yield str(file_name), instances, str(status)

    def file(self, found: Iterator[_Found], asked: frozenset[str] | None) -> PredictionFile:
        """Keep the predictions whose image and class belong to the data set."""
        predictions = []
        for place, image, category_id, prompt, entry in found:
            if image is None:
                self._notes.add(f"predictions on images that {self._data_set.path.name} lacks were left out", place)
            elif category_id is None:
                self._notes.add(f"predictions of classes that {self._data_set.path.name} lacks were left out", place)
            else:
                predictions.append(self._prediction(image, category_id, prompt, entry, place))
        n_without = sum(one.mask is None for one in predictions)
        if 0 < n_without < len(predictions):
            self._notes.add(f"{n_without} of {len(predictions)} predictions have no mask: they count as boxes only")
        return PredictionFile(tuple(predictions), asked, self._notes.lines())

    def of_results(self, entries: list[Any]) -> Iterator[_Found]:
        for index, entry in enumerate(entries):
            place = f"[{index}]"
            try:
                image = self._image_by_id[self._data_set.image_ids[id_text(entry["image_id"])]]
                category_id = self._data_set.category_ids.get(id_text(entry["category_id"]))
            except (KeyError, TypeError, ValueError) as error:
                what = f"it names no image of {self._data_set.path.name} ({type(error).__name__}: {error})"
                raise self._error(place, what) from error
            yield place, image, category_id, entry.get("prompt"), entry

    def _of_document(
        self, entries: list[Any], names: Mapping[str, str], images: Mapping[str, DataSetImage | None]
    ) -> Iterator[_Found]:
        for index, entry in enumerate(entries):
            place = f"annotations[{index}]"
            try:
                image, name = images[id_text(entry["image_id"])], names[id_text(entry["category_id"])]
            except (KeyError, TypeError, ValueError) as error:
                what = f"its image_id or category_id isn't listed ({type(error).__name__}: {error})"
                raise self._error(place, what) from error
            yield place, image, self._id_by_class.get(name), _prompt_of(entry), entry

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
                yield place, images.get(file_name), self._id_by_class.get(name), prompt, entry

    def _images_found(self, file_names: set[str]) -> dict[str, DataSetImage]:
        """Find the images that the names mean; refuse a file about other ones, and say which it doesn't list."""
        try:
            found = images_by_name(file_names, self._data_set.images)
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
            self._notes.add(
                f"{len(missing)} of {len(self._data_set.images)} images have no results, such as "
                f"{missing[0].file_name!r}: nothing counts as found there"
            )
        return found

    def _prediction(
        self, image: DataSetImage, category_id: int, prompt: str | None, entry: Mapping[str, Any], place: str
    ) -> Prediction:
        try:
            score = number(entry.get("score"), "score")
            bbox = entry.get("detector_bbox") or entry.get("bbox")
            box, mask = shape_of(bbox, entry.get("segmentation"), image.size, place, self._notes, "predictions")
        except ValueError as error:
            raise self._error(place, str(error)) from error
        return Prediction(image.id, category_id, score, box, mask, prompt)

    def _error(self, place: str, what: str) -> InputError:
        return InputError(f"{self._path}: {place}: {what}; correct it or export the predictions again")


def _prompt_of(entry: Mapping[str, Any]) -> str | None:
    attributes = entry.get("attributes")
    prompt = attributes.get("prompt") if isinstance(attributes, Mapping) else None
    return prompt if isinstance(prompt, str) else None
