"""Run the pipeline on a data set: what it finds, what it makes of the true boxes, and how long that takes."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from grounded_seg.boxes import areas_px, array_from_boxes, clip
from grounded_seg.coco.dataset import DataSet, DataSetImage
from grounded_seg.coco.export import annotation_from_instance
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.detect.prompts import PromptSet
from grounded_seg.evaluation.answer_file import AskSettings, asked_with, keep, kept_lines
from grounded_seg.evaluation.listed_images import check_all_there, read_listed
from grounded_seg.evaluation.questions import Questions
from grounded_seg.loading import FoundModels, find_models
from grounded_seg.masks import run_length_from_coco
from grounded_seg.pipeline import GroundedSegmenter
from grounded_seg.reading import batches
from grounded_seg.records import Detection, Image, Instance

Progress = Callable[[int, int], None]
"""Is told how many images are done, and how many there are."""


@dataclass(frozen=True)
class Answers:
    """What the models said about a data set."""

    predictions: tuple[Prediction, ...]
    given_true_boxes: tuple[Prediction, ...] | None
    """None where masks weren't asked for, or the data set has none."""
    speed: Mapping[str, float]
    """Images per second, and seconds per image of each stage, without loading the models."""
    made_with: Mapping[str, Any]
    """Weights, settings, device and versions, in JSON."""


def answers_for(questions: Questions, settings: AskSettings, progress: Progress) -> Answers:
    """Ask the models about every image of a data set.

    Raises:
        UsageError: If the folder of the answers is in use, or holds those of other settings or weights.
        InputError: If an image is missing, can't be read, or isn't of the size that the data set says.
        WeightsError, DeviceError: As for `GroundedSegmenter.from_preset`.
        OutputError: If the answers can't be kept.
    """
    check_all_there(questions.data_set, settings.images)
    models = find_models(settings.models, boxes_only=settings.boxes_only)
    lines = kept_lines(questions, settings, models)
    done = {line["image_id"] for line in lines}
    if len(done) < len(questions.data_set.images):
        progress(len(done), len(questions.data_set.images))
        for line in _new_lines(questions, settings, models, done):
            lines.append(line)
            keep(line, settings)
            progress(len(lines), len(questions.data_set.images))
    predictions, given = _predictions(lines, questions)
    return Answers(
        predictions=predictions,
        given_true_boxes=given if _asks_true_boxes(questions.data_set, settings) else None,
        speed=_speed([line["seconds"] for line in lines]),
        made_with=asked_with(settings, models),
    )


def _asks_true_boxes(data_set: DataSet, settings: AskSettings) -> bool:
    return data_set.has_masks and not settings.boxes_only


def _new_lines(
    questions: Questions, settings: AskSettings, models: FoundModels, done: set[int]
) -> Iterator[dict[str, Any]]:
    """Ask about the images that aren't done; a batch is the same images whatever is done already."""
    segmenter = GroundedSegmenter.from_settings(
        settings.models,
        replace(settings.detect, score_threshold=0.0),
        segment=settings.segment,
        tiles=settings.tiles,
        boxes_only=settings.boxes_only,
        found=models,
    )
    for batch in batches(questions.data_set.images, settings.batch_size):
        if all(image.id in done for image in batch):
            continue
        started = time.perf_counter()
        pixels = [read_listed(image, questions.data_set, settings.images) for image in batch]
        read_s = (time.perf_counter() - started) / len(batch)
        for image, line in zip(batch, _ask(batch, pixels, segmenter, questions, settings), strict=True):
            line["seconds"]["read"] = read_s
            if image.id not in done:
                yield line


def _ask(
    batch: Sequence[DataSetImage],
    pixels: Sequence[Image],
    segmenter: GroundedSegmenter,
    questions: Questions,
    settings: AskSettings,
) -> Iterator[dict[str, Any]]:
    found, seconds_of_found = _found(pixels, [questions.by_image[image.id] for image in batch], segmenter)
    given: list[tuple[Instance, ...]] | None = None
    seconds = 0.0
    if _asks_true_boxes(questions.data_set, settings):
        started = time.perf_counter()
        boxes = [_true_boxes(image, one, questions.data_set) for image, one in zip(batch, pixels, strict=True)]
        given = [one.instances for one in segmenter.segment_boxes(pixels, boxes)]
        seconds = (time.perf_counter() - started) / len(batch)
    for place, image in enumerate(batch):
        yield {
            "image_id": image.id,
            "instances": [annotation_from_instance(one) for one in found[place]],
            "given_true_boxes": None if given is None else [annotation_from_instance(one) for one in given[place]],
            "seconds": {**seconds_of_found[place], "true_boxes": seconds},
        }


def _found(
    pixels: Sequence[Image], prompts: Sequence[PromptSet], segmenter: GroundedSegmenter
) -> tuple[list[tuple[Instance, ...]], list[Mapping[str, float]]]:
    """Ask about a batch, together where all images are asked the same; give instances and seconds of each image."""
    if len(set(map(id, prompts))) == 1 and prompts[0].prompts:
        results = segmenter.segment_images(pixels, prompts[0])
        return [one.instances for one in results], [one.seconds for one in results]
    found: list[tuple[Instance, ...]] = []
    seconds: list[Mapping[str, float]] = []
    for one, asked in zip(pixels, prompts, strict=True):
        results = segmenter.segment_images([one], asked) if asked.prompts else []
        found.append(results[0].instances if results else ())
        seconds.append(results[0].seconds if results else {})
    return found, seconds


def _true_boxes(image: DataSetImage, pixels: Image, data_set: DataSet) -> list[Detection]:
    """Put the objects' boxes into the detector's form, the class as the prompt; those without area are left out."""
    objects = [one for one in data_set.objects_by_image.get(image.id, ()) if not one.is_crowd]
    boxes = clip(array_from_boxes([xyxy_from_xywh(one.bbox_xywh) for one in objects]), pixels.size)
    return [
        Detection(label=name, prompt=name, box_xyxy=(box[0], box[1], box[2], box[3]), score=1.0)
        for one, box, area in zip(objects, boxes.tolist(), areas_px(boxes).tolist(), strict=True)
        if area > 0
        for name in [data_set.classes[one.category_id]]
    ]


def _predictions(
    lines: Iterable[Mapping[str, Any]], questions: Questions
) -> tuple[tuple[Prediction, ...], tuple[Prediction, ...]]:
    """Take what was found, and what was made of the true boxes, by image."""
    id_by_name = {name: class_id for class_id, name in questions.data_set.classes.items()}
    class_by_prompt = questions.prompts.class_by_prompt
    found, given = [], []
    for line in sorted(lines, key=lambda one: int(one["image_id"])):
        for one in line["instances"]:
            category_id = id_by_name[class_by_prompt[one["attributes"]["prompt"]]]
            found.append(_prediction(line["image_id"], category_id, one, one["score"]))
        for one in line["given_true_boxes"] or ():
            # All boxes are true: what ranks these masks is the segmenter's own score.
            score = one["attributes"]["mask_score"]
            category_id = id_by_name[one["attributes"]["prompt"]]
            given.append(_prediction(line["image_id"], category_id, one, 1.0 if score is None else score))
    return tuple(found), tuple(given)


def _prediction(image_id: int, category_id: int, annotation: Mapping[str, Any], score: float) -> Prediction:
    x, y, width, height = annotation["detector_bbox"]
    mask = annotation["segmentation"]
    return Prediction(
        image_id=image_id,
        category_id=category_id,
        score=score,
        box_xywh=(x, y, width, height),
        mask=run_length_from_coco(mask) if mask else None,
        prompt=annotation["attributes"]["prompt"],
    )


def _speed(seconds_of_images: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the stages; the true boxes are asked beside the chain, and don't slow it down."""
    seconds: Counter[str] = Counter()
    for stages in seconds_of_images:
        seconds.update(stages)
    n_images = len(seconds_of_images)
    per_image = {f"{stage}_s_per_image": total / n_images for stage, total in seconds.items()}
    chain_s = sum(total for stage, total in seconds.items() if stage != "true_boxes")
    return {"images_per_s": n_images / chain_s, **per_image} if chain_s else per_image
