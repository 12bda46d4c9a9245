"""A run beside its ground truth: which instances are right or wrong, and which objects were missed."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg.coco.data_set import DataSetImage, read_data_set
from grounded_seg.coco.image_names import images_by_name, names_among
from grounded_seg.coco.objects import shape_of
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import JournalInstance, JournalLine, Kind, xywh_from_xyxy
from grounded_seg.coco.values import Notes
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import coco_from_run_length, tight_box_xyxy
from grounded_seg.review.page.journal_index import Numbers
from grounded_seg.review.page.selection import RIGHT, UNJUDGED, WRONG, Verdicts
from grounded_seg.scoring.average_precision import SizeRanges
from grounded_seg.scoring.columns import predictions_from, truths_from
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, match


class Truth:
    """Ground truth, and what it says about the lines of a journal, in their order."""

    def __init__(self, path: Path, class_of: Callable[[JournalInstance], str]) -> None:
        """Read the ground truth; `class_of` gives the class of an instance of the run.

        Raises:
            InputError: If it can't be read.
        """
        self._data_set = read_data_set(path)
        self._class_of = class_of
        self._id_by_class = {name: class_id for class_id, name in self._data_set.classes.items()}
        self._class_ids: dict[str, int | None] = {}
        self._images: dict[str, DataSetImage] = {}
        self._notes = Notes()
        self.verdicts: Verdicts
        """Of the lines so far."""
        self._compare("bbox")

    @property
    def notes(self) -> list[str]:
        """What was read in spite of its form, a line each."""
        return list(self._notes.lines())

    def find_images(self, file_names: Iterable[str], *, has_masks: bool) -> None:
        """Find the images that new names mean; masks are compared if the run's first lines have any.

        Raises:
            InputError: If none is known, or two names could mean the same image.
        """
        new = set(file_names) - self._images.keys()
        if has_masks and self._data_set.has_masks and not len(self.verdicts.verdict):
            self._compare("segm")
        try:
            self._images |= images_by_name(new, self._data_set.images, self._notes)
        except ValueError as error:
            raise InputError(f"{self._data_set.path}: {error}; name the ground truth of this run's images") from error
        if new and not self._images:
            raise InputError(
                f"{self._data_set.path} is about none of the run's images (such as {min(new)!r}); name the ground "
                "truth of these images"
            )

    def clear(self) -> None:
        """Forget all lines."""
        self._compare(self._kind)

    def judge(self, lines: Sequence[JournalLine]) -> None:
        """Compare lines that follow those before."""
        predictions, rows, keys = [], [], []
        n_rows = 0
        for line in lines:
            for key, one in enumerate(line["instances"]):
                prediction = self._prediction(line, one)
                if prediction is not None and (self._kind == "bbox" or prediction.mask is not None):
                    predictions.append(prediction)
                    rows.append(n_rows + key)
                    keys.append(key)
            n_rows += len(line["instances"])
        verdict = np.full(n_rows, UNJUDGED, np.uint8)
        places = [self._place(line["file_name"]) for line in lines]
        if predictions:
            chosen = np.isin(self._truths.image, [place for place in places if place >= 0])
            predicted = predictions_from(predictions, self._data_set, self._kind)
            matches = match(self._truths.chosen(chosen), predicted, SizeRanges().as_array()[:1])
            row, key_of = np.array(rows)[matches.prediction], np.array(keys)[matches.prediction]
            is_judged = ~matches.ignored[:, ALL_SIZES, AT_50]
            verdict[row[is_judged]] = np.where(matches.matched[is_judged, ALL_SIZES, AT_50], RIGHT, WRONG)
            found = matches.truth >= 0
            self._found_by[np.flatnonzero(chosen)[matches.truth[found]]] = key_of[found]
        n_truths = [int(self._n_by_place[place]) if place >= 0 else 0 for place in places]
        self.verdicts = Verdicts(
            np.concatenate([self.verdicts.verdict, verdict]),
            np.concatenate([self.verdicts.n_truths, np.array(n_truths, np.int32)]),
        )

    def objects_of(self, file_name: str) -> list[dict[str, Any]]:
        """Objects of an image: class, box, mask, and the key of the instance that found it; None for a missed one."""
        truths, found = self._truths, []
        for row in np.flatnonzero(truths.image == self._place(file_name)).tolist():
            mask = truths.masks[row] if truths.masks else None
            box = truths.boxes_xywh[row].tolist() if truths.boxes_xywh is not None else None
            if mask is not None:
                box = list(xywh_from_xyxy(tight_box_xyxy(mask)))
            by = int(self._found_by[row])
            found.append(
                {
                    "class": truths.index.names[truths.category[row]],
                    "bbox": box,
                    "segmentation": [] if mask is None else coco_from_run_length(mask),
                    "found_by": None if by < 0 else by,
                    "is_crowd": bool(truths.is_crowd[row]),
                }
            )
        return found

    def _compare(self, kind: Kind) -> None:
        """Begin anew, with boxes or masks."""
        self._kind = kind
        self._truths = truths_from(self._data_set, kind)
        self._place_by_id = {image_id: place for place, image_id in enumerate(self._truths.index.image_ids)}
        counted = self._truths.image[~self._truths.is_crowd]
        self._n_by_place = np.bincount(counted, minlength=self._truths.index.n_images)
        self._found_by: Numbers = np.full(len(self._truths), -1, np.int32)
        self.verdicts = Verdicts(np.zeros(0, np.uint8), np.zeros(0, np.int32))

    def _place(self, file_name: str) -> int:
        """Index of an image in the columns; -1 where the truth lacks it."""
        image = self._images.get(file_name)
        return -1 if image is None else self._place_by_id[image.id]

    def _prediction(self, line: JournalLine, one: JournalInstance) -> Prediction | None:
        """Read an instance as scoring has it; None where the truth lacks its image or class."""
        image, class_id = self._images.get(line["file_name"]), self._class_id(self._class_of(one))
        if image is None or class_id is None:
            return None
        try:
            place = f"{line['file_name']}: instance"
            shape = shape_of(one["detector_bbox"], one["segmentation"], image.size, place, self._notes, "predictions")
        except ValueError as error:
            raise InputError(f"{line['file_name']}: {error}; name the ground truth of this run's images") from error
        if shape is None:
            return None
        return Prediction(image.id, class_id, one["score"], shape.box_xywh, shape.mask)

    def _class_id(self, name: str) -> int | None:
        if name not in self._class_ids:
            own = names_among([name], self._id_by_class, self._notes).get(name)
            self._class_ids[name] = None if own is None else self._id_by_class[own]
        return self._class_ids[name]
