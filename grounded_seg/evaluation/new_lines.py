"""Ask the models about the images of a data set: read ahead, one batch after the other, a line for each image."""

import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grounded_seg.coco.data_set import DataSet, DataSetImage
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.coco.write import annotation_from_instance
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.batches import BatchAsker
from grounded_seg.engine.read_ahead import batches, read_ahead
from grounded_seg.evaluation.answer_file import AskSettings
from grounded_seg.evaluation.listed_images import read_listed
from grounded_seg.evaluation.requests import Questions
from grounded_seg.geometry.boxes import areas_px, array_from_boxes, clip
from grounded_seg.pipeline.chain import GroundedSegmenter
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Detection, Image, Instance, SegmentedImage

_N_THREADS = min(8, os.cpu_count() or 1)
"""That read. More wouldn't decode any faster, and hold more images."""


@dataclass(frozen=True)
class _Read:
    """An image of the data set, decoded."""

    listed: DataSetImage
    image: Image
    seconds: float


def new_lines(
    questions: Questions, settings: AskSettings, models: FoundModels, done: set[int]
) -> Generator[dict[str, Any], None, None]:
    """Ask about the images that aren't done; a batch is the same images whatever is done already.

    Raises:
        InputError: If an image can't be read, or isn't of the size that the data set says.
        DeviceMemoryError: If there is no memory even for one image.
    """
    segmenter = GroundedSegmenter.from_settings(
        settings.models,
        replace(settings.detect, score_threshold=0.0),
        segment=settings.segment,
        tiles=settings.tiles,
        boxes_only=settings.boxes_only,
        found=models,
    )
    asker = BatchAsker(segmenter, questions.prompts, settings.batch_size)
    wanted = [
        image
        for batch in batches(questions.data_set.images, settings.batch_size)
        if any(image.id not in done for image in batch)
        for image in batch
    ]

    def read(image: DataSetImage) -> _Read:
        started = time.perf_counter()
        decoded = read_listed(image, questions.data_set, settings.images)
        return _Read(image, decoded, time.perf_counter() - started)

    with read_ahead(wanted, read, n_threads=_N_THREADS, n_ahead=settings.batch_size + _N_THREADS) as images:
        for batch in batches(images, settings.batch_size):
            for one, line in zip(batch, _ask(batch, segmenter, asker, questions, settings), strict=True):
                if one.listed.id not in done:
                    yield line


def asks_true_boxes(data_set: DataSet, settings: AskSettings) -> bool:
    """Tell whether the segmenter is given the objects' own boxes too."""
    return data_set.has_masks and not settings.boxes_only


def _ask(
    batch: Sequence[_Read],
    segmenter: GroundedSegmenter,
    asker: BatchAsker,
    questions: Questions,
    settings: AskSettings,
) -> Iterator[dict[str, Any]]:
    images = [one.image for one in batch]
    prompts = [questions.by_image[one.listed.id] for one in batch]
    if all(asked is questions.prompts for asked in prompts):
        results = [one for one in asker.ask(images) if isinstance(one, PromptedResult)]
        found, seconds_of_found = [one.instances for one in results], [one.seconds for one in results]
    else:
        found, seconds_of_found = _found_one_by_one(images, prompts, segmenter)
    given: list[SegmentedImage] | None = None
    seconds = 0.0
    if asks_true_boxes(questions.data_set, settings):
        started = time.perf_counter()
        boxes = [_true_boxes(one, questions.data_set) for one in batch]
        given = asker.in_parts(
            list(zip(images, boxes, strict=True)),
            lambda part: segmenter.segment_boxes([image for image, _ in part], [true for _, true in part]),
        )
        seconds = (time.perf_counter() - started) / len(batch)
    for place, one in enumerate(batch):
        true = None if given is None else [annotation_from_instance(each) for each in given[place].instances]
        yield {
            "image_id": one.listed.id,
            "instances": [annotation_from_instance(each) for each in found[place]],
            "given_true_boxes": true,
            "seconds": {**seconds_of_found[place], "true_boxes": seconds, "read": one.seconds},
        }


def _found_one_by_one(
    images: Sequence[Image], prompts: Sequence[PromptSet], segmenter: GroundedSegmenter
) -> tuple[list[tuple[Instance, ...]], list[Mapping[str, float]]]:
    """Ask each image its own questions; the models take one set of questions a batch. Gives instances and seconds."""
    found: list[tuple[Instance, ...]] = []
    seconds: list[Mapping[str, float]] = []
    for image, asked in zip(images, prompts, strict=True):
        results = segmenter.segment_images([image], asked) if asked.prompts else []
        found.append(results[0].instances if results else ())
        seconds.append(results[0].seconds if results else {})
    return found, seconds


def _true_boxes(read: _Read, data_set: DataSet) -> list[Detection]:
    """Put the objects' boxes into the detector's form, the class as the prompt; those without area are left out."""
    objects = [one for one in data_set.objects_by_image.get(read.listed.id, ()) if not one.is_crowd]
    boxes = clip(array_from_boxes([xyxy_from_xywh(one.bbox_xywh) for one in objects]), read.image.size)
    return [
        Detection(label=name, prompt=name, box_xyxy=(box[0], box[1], box[2], box[3]), score=1.0)
        for one, box, area in zip(objects, boxes.tolist(), areas_px(boxes).tolist(), strict=True)
        if area > 0
        for name in [data_set.classes[one.category_id]]
    ]
