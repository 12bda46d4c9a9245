"""What each image of a data set is asked: every class that it has, and all or some of those that it hasn't."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.data_set import DataSet, DataSetObject
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.image_names import names_among
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.values import Notes
from grounded_seg.detect.prompts import PromptSet, prompts_from
from grounded_seg.engine.request import Request
from grounded_seg.errors import UsageError
from grounded_seg.records import Detection

SEED = 0


@dataclass(frozen=True)
class Questions:
    """The prompts of each image."""

    data_set: DataSet
    """With the classes that are asked about, and no others."""
    prompts: PromptSet
    """All of them."""
    by_image: Mapping[int, PromptSet]
    """By the image's id."""
    notes: tuple[str, ...]

    def pairs(self) -> npt.NDArray[np.int64]:
        """Ids of image and class of every question, (q, 2)."""
        id_by_name = {name: class_id for class_id, name in self.data_set.classes.items()}
        # Images may share their prompts, of which there may be thousands.
        distinct = set(self.by_image.values())
        ids = {asked: np.array([id_by_name[name] for name in asked.classes], dtype=np.int64) for asked in distinct}
        classes = [ids[asked] for asked in self.by_image.values()]
        images = np.repeat(np.array(list(self.by_image), dtype=np.int64), list(map(len, classes)))
        return np.column_stack([images, np.concatenate(classes)])

    def request(self, index: int, images: Path, *, true_boxes: bool) -> Request:
        """The engine's request for the image at an index; `images` is the folder that file names start from.

        With `true_boxes`, the objects' own boxes are segmented too, the class as the prompt; crowds are left out.
        """
        image = self.data_set.images[index]
        objects = self.data_set.objects_by_image.get(image.id, ()) if true_boxes else ()
        boxes = tuple(self._true_box(one) for one in objects if not one.is_crowd)
        return Request(
            index,
            image.file_name,
            file_of(images, image.file_name) or images / image.file_name,
            self.by_image[image.id],
            image.size,
            boxes if true_boxes else None,
        )

    def _true_box(self, one: DataSetObject) -> Detection:
        name = self.data_set.classes[one.category_id]
        return Detection(label=name, prompt=name, box_xyxy=xyxy_from_xywh(one.bbox_xywh), score=1.0)

    def sha256(self) -> str:
        """Hash all that is asked: ids, sizes, prompts and true boxes."""
        images = [
            (one.id, None if one.size is None else (one.size.width, one.size.height)) for one in self.data_set.images
        ]
        prompts = {str(image): asked.class_by_prompt for image, asked in self.by_image.items()}
        boxes = [(one.image_id, one.category_id, one.bbox_xywh) for one in self.data_set.objects]
        asked = [images, prompts, boxes]
        if (rules := self.prompts.rules_as_json) is not None:
            asked.append(rules)
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def questions_for(data_set: DataSet, prompts: PromptSet | None = None, n_absent: int | None = None) -> Questions:
    """Decide what is asked.

    Args:
        data_set: The truth.
        prompts: Prompts with their classes; None for the class names themselves.
        n_absent: How many classes that an image hasn't it is asked about, drawn by a fixed seed; None for all. Fewer
            take less time and flatter AP, as fewer wrong predictions are possible.

    Raises:
        UsageError: If a prompt's class isn't one of the data set's, or `n_absent` is negative.
    """
    if n_absent is not None and n_absent < 0:
        raise UsageError(f"absent is {n_absent}, it must be at least 0")
    notes = Notes()
    names = frozenset(data_set.classes.values())
    asked = with_classes_of(data_set, prompts, notes) if prompts else prompts_from(data_set.classes.values())
    if any(rule.threshold is not None for rule in asked.rules):
        notes.add("thresholds of classes are left out, as every box is measured; to measure them, run and score that")
    asked = asked.without_thresholds()
    unknown = [name for name in asked.classes if name not in names]
    if unknown:
        raise UsageError(
            f"{data_set.path} has no class {unknown[0]!r}; it has {', '.join(sorted(names))}: correct the prompts' file"
        )
    left_out = names - set(asked.classes)
    if left_out:
        notes.add(f"{len(left_out)} of {len(names)} classes have no prompt and are left out of all figures")
        data_set = data_set.only_classes(frozenset(asked.classes))
    if n_absent is not None:
        notes.add(f"each image was asked about its own classes and at most {n_absent} others")
    return Questions(data_set, asked, _by_image(data_set, asked, n_absent), notes.lines())


def with_classes_of(data_set: DataSet, prompts: PromptSet, notes: Notes) -> PromptSet:
    """The prompts, with the data set's own names for the classes that it has in another form of their letters."""
    own = names_among(prompts.classes, data_set.classes.values(), notes)
    return replace(prompts, class_names=tuple(own.get(name, name) for name in prompts.class_names))


def _by_image(data_set: DataSet, prompts: PromptSet, n_absent: int | None) -> dict[int, PromptSet]:
    if n_absent is None:
        return {image.id: prompts for image in data_set.images}
    present: dict[int, set[str]] = {image.id: set() for image in data_set.images}
    for one in data_set.objects:
        present[one.image_id].add(data_set.classes[one.category_id])
    chosen = {}
    for image_id, there in present.items():
        absent = [name for name in prompts.classes if name not in there]
        rng = np.random.default_rng((SEED, image_id))
        drawn = rng.permutation(len(absent))[:n_absent].tolist()
        chosen[image_id] = _only(prompts, there | {absent[index] for index in drawn})
    return chosen


def _only(prompts: PromptSet, names: set[str]) -> PromptSet:
    return prompts.only([prompt for prompt, name in prompts.class_by_prompt.items() if name in names])
