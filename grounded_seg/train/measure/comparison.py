"""Base and tuned model on one COCO file, through the pipeline, as `eval` does it."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.errors import InputError
from grounded_seg.evaluation.evaluate import Evaluation, EvaluationSettings, evaluate
from grounded_seg.files import write_text
from grounded_seg.geometry.masks import coco_from_run_length
from grounded_seg.settings import DetectSettings, RunSettings
from grounded_seg.train.data.checks import Progress
from grounded_seg.train.data.records import BoxExample
from grounded_seg.train.folder import TrainFolder
from grounded_seg.train.settings import Method, TrainSettings
from grounded_seg.weights.locate import is_on_disk
from grounded_seg.weights.sources import resolve


@dataclass(frozen=True, eq=False)
class Pair:
    """The same measurement of base and tuned model."""

    base: Evaluation
    tuned: Evaluation


def leaves_out_adapter(settings: TrainSettings) -> bool:
    """Whether the preset has an adapter of its own, which the base that is trained and compared with is without."""
    return settings.models.detector is None and resolve(settings.models).adapter is not None


def pair_on(file: Path, images: Path, settings: TrainSettings, progress: Progress) -> Pair:
    """Measure both on a COCO file."""
    result = TrainFolder(settings.output).result(settings.method)
    base = replace(settings.models, adapter="none")
    if settings.method is Method.LORA:
        tuned = replace(settings.models, adapter=str(result))
    else:
        tuned = replace(settings.models, detector=str(result), adapter="none")
    boxes_only = not is_on_disk(resolve(settings.models).segmenter)
    threshold = DetectSettings().score_threshold
    sides = []
    for models in (base, tuned):
        source = RunSettings(models=models, boxes_only=boxes_only, max_pixels=settings.max_pixels)
        asked = EvaluationSettings(file, source, score_threshold=threshold, images=images, boxes_only=boxes_only)
        sides.append(evaluate(asked, progress))
    return Pair(*sides)


def check_measurable(file: Path) -> None:
    """Refuse now, not after the training, a COCO file that can't be read or lacks images."""
    folder = images_of(file)
    missing = [one.file_name for one in read_data_set(file).images if file_of(folder, one.file_name) is None]
    if missing:
        raise InputError(f"{file}: its image {missing[0]!r} isn't in {folder}; put it there or take its entry out")


def images_of(file: Path) -> Path:
    """Give the folder of a COCO file's images: `images` beside it, or the one that it lies in."""
    beside = file.parent / "images"
    return beside if beside.is_dir() else file.parent


def write_test_file(examples: Sequence[BoxExample], prompts: Sequence[str], folder: TrainFolder) -> tuple[Path, Path]:
    """Write the test split as a COCO file, which `eval` takes as well; give it and the folder of its images.

    Every prompt is a category, those for what is on none of the images too: presence is measured on all of them.
    """
    root = Path(os.path.commonpath([str(one.image.resolve().parent) for one in examples]))
    ids = {name: number for number, name in enumerate(prompts, start=1)}
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
        "annotations": [],
    }
    for number, one in enumerate(examples, start=1):
        name, size = one.image.resolve().relative_to(root).as_posix(), one.size
        document["images"].append({"id": number, "file_name": name, "width": size.width, "height": size.height})
        whole = (0.0, 0.0, float(size.width), float(size.height))
        shapes = [(box.label, box.box_xyxy, box.mask, 0) for box in one.boxes]
        # Objects that aren't listed one by one may be anywhere: nothing that is found of them is wrong.
        shapes += [(name, whole, None, 1) for name in sorted(one.unsure) if name in ids]
        for label, box_xyxy, mask, is_crowd in shapes:
            x, y, width, height = xywh_from_xyxy(box_xyxy)
            annotation = {
                "id": len(document["annotations"]) + 1,
                "image_id": number,
                "category_id": ids[label],
                "bbox": [x, y, width, height],
                "area": width * height,
                "iscrowd": is_crowd,
            }
            shape = {} if mask is None else {"segmentation": coco_from_run_length(mask)}
            document["annotations"].append(annotation | shape)
    path = folder.root / "test.json"
    write_text(path, json.dumps(document) + "\n")
    return path, root
