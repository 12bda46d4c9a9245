"""One HTML page of the images that the chain does worst on: the truth beside what was predicted."""

import html
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xyxy_from_xywh
from grounded_seg.files import as_output_error
from grounded_seg.geometry.masks import area_px
from grounded_seg.images.draw import draw, save_picture
from grounded_seg.images.read import read_sized
from grounded_seg.records import Detection, Image, ImageResult, Instance, RunLength
from grounded_seg.scoring.columns import KIND_NAMES
from grounded_seg.scoring.error_types import ErrorKind
from grounded_seg.scoring.matching import ALL_SIZES, image_scores
from grounded_seg.scoring.measure import Scores, Stage

PAGE_NAME = "worst.html"
N_IMAGES = 40

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Worst images</title>
<style>
body { font-family: sans-serif; margin: 2em; }
figure { display: inline-block; width: 48%; margin: 0; }
img { width: 100%; }
section { margin-bottom: 2em; }
</style></head><body>
"""


def write_worst_page(scores: Scores, predictions: Sequence[Prediction], images: Path, folder: Path) -> list[Path]:
    """Draw the images with the lowest F1 at IoU .5 and put them on a page; images without a fault stay away.

    Args:
        scores: What was measured.
        predictions: What was scored; those below the threshold are not drawn.
        images: Folder that the data set's file names start from.
        folder: For the page, and its pictures in `worst/`.

    Returns:
        The page.
    """
    stage = scores.masks or scores.boxes
    counts = image_scores(stage.matches, scores.score_threshold)
    n_faults = counts.n_wrong + counts.n_missed
    # Of equal F1, the image with more faults is worse.
    order = [index for index in np.lexsort((-n_faults, counts.f1)).tolist() if n_faults[index]][:N_IMAGES]
    sections = []
    for number, index in enumerate(order, start=1):
        image = scores.data_set.images[index]
        pixels = read_sized(file_of(images, image.file_name) or images / image.file_name, size=image.size)
        seen = [one for one in predictions if one.image_id == image.id and one.score >= scores.score_threshold]
        names = [f"worst/{number:03}-truth.jpg", f"worst/{number:03}-predicted.jpg"]
        with as_output_error():
            truths, found = _truths(scores.data_set, image.id), _found(scores.data_set, seen)
            save_picture(folder / names[0], _drawn(pixels, scores.data_set, truths, with_scores=False))
            save_picture(folder / names[1], _drawn(pixels, scores.data_set, found, with_scores=True))
        title = (
            f"{image.file_name}: F1 {counts.f1[index]:.2f}, {counts.n_right[index]} right, {counts.n_wrong[index]} "
            f"wrong, {counts.n_missed[index]} missed"
        )
        sections.append(_section(title, _faults(scores, stage, index), names))
    page = folder / PAGE_NAME
    intro = (
        f"<h1>The {len(order)} worst of {len(scores.data_set.images)} images</h1>\n"
        f"<p>By F1 at IoU 0.5 of {KIND_NAMES[stage.kind]} with a score of at least {scores.score_threshold:g}; images "
        "without a fault are not shown. Errors are named with the class that was predicted, or missed.</p>\n"
    )
    with as_output_error():
        folder.mkdir(parents=True, exist_ok=True)
        # File names of a data set can hold what isn't text, as a disk from elsewhere has them.
        text = _HEAD + intro + "".join(sections) + "</body></html>\n"
        page.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [page]


def _section(title: str, faults: str, names: Sequence[str]) -> str:
    figures = "".join(
        f'<figure><img src="{name}" loading="lazy" alt="{caption}"><figcaption>{caption}</figcaption></figure> '
        for name, caption in zip(names, ("truth", "predicted"), strict=True)
    )
    return f"<section><h2>{html.escape(title)}</h2><p>{html.escape(faults)}</p>{figures}</section>\n"


def _faults(scores: Scores, stage: Stage, index: int) -> str:
    """Sum up an image's errors, such as "missed car, duplicate ball x 2"."""
    errors, matches = scores.errors[stage.kind], stage.matches
    names = matches.index.names
    shown = np.flatnonzero((matches.image == index) & (matches.score >= scores.score_threshold))
    faults = Counter(
        f"{kind} {names[matches.category[row]]}" for row in shown.tolist() if (kind := errors.kind[row]) is not None
    )
    is_missed = (matches.truth_image == index) & matches.truth_counts[:, ALL_SIZES]
    is_missed[matches.truth[shown][matches.truth[shown] >= 0]] = False
    missed = np.flatnonzero(is_missed)
    faults.update(f"{ErrorKind.MISSED} {names[matches.truth_category[row]]}" for row in missed.tolist())
    return ", ".join(fault if n == 1 else f"{fault} x {n}" for fault, n in faults.items())


def _drawn(
    image: Image, data_set: DataSet, instances: Iterable[Instance], *, with_scores: bool
) -> npt.NDArray[np.uint8]:
    # Where the data set doesn't say how large its images are, predicted masks may be of any size.
    fitting = [one if one.mask is None or one.mask.size == image.size else replace(one, mask=None) for one in instances]
    result = ImageResult(path=image.path, size=image.size, instances=tuple(fitting))
    return draw(image, result, tuple(data_set.classes.values()), with_scores=with_scores)


def _truths(data_set: DataSet, image_id: int) -> list[Instance]:
    return [
        _instance(data_set.classes[one.category_id], one.bbox_xywh, 1.0, one.mask)
        for one in data_set.objects_by_image.get(image_id, ())
    ]


def _found(data_set: DataSet, predictions: Sequence[Prediction]) -> list[Instance]:
    return [_instance(data_set.classes[one.category_id], one.box_xywh, one.score, one.mask) for one in predictions]


def _instance(name: str, box_xywh: tuple[float, float, float, float], score: float, mask: RunLength | None) -> Instance:
    detection = Detection(label=name, prompt=name, box_xyxy=xyxy_from_xywh(box_xywh), score=score)
    # An empty mask has nothing to draw, and the drawing takes masks to hold something.
    return Instance(detection, mask=mask if mask is not None and area_px(mask) else None, mask_score=None)
