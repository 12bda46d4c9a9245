"""The images that the chain does worst on, as a page like that of `view`: right, wrong and missed in three colours."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg.coco.image_files import file_of
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.files import as_output_error
from grounded_seg.geometry.masks import area_px, coco_from_run_length, tight_box_xyxy
from grounded_seg.images.draw import PALETTE, encoded_picture
from grounded_seg.images.read import read_sized
from grounded_seg.records import ImageSize, RunLength
from grounded_seg.review.page.picture_cache import PICTURE_PX
from grounded_seg.review.page.static_page import write_static_page
from grounded_seg.scoring.columns import KIND_NAMES, measurable
from grounded_seg.scoring.error_types import ErrorKind
from grounded_seg.scoring.matching import ALL_SIZES, AT_50, image_scores
from grounded_seg.scoring.measure import Scores, Stage

PAGE_NAME = "worst.html"
N_IMAGES = 40
_PARTS = "worst"
"""Folder beside the page."""


def write_worst_page(scores: Scores, predictions: Sequence[Prediction], images: Path, folder: Path) -> list[Path]:
    """Put the images with the lowest F1 at IoU .5 on a page; images without a fault stay away.

    Args:
        scores: What was measured.
        predictions: What was scored; those below the threshold are not shown.
        images: Folder that the data set's file names start from.
        folder: For the page; its pictures and scripts go into `worst/` there.

    Returns:
        The page.
    """
    stage = scores.masks or scores.boxes
    counts = image_scores(stage.matches, scores.score_threshold)
    n_faults = counts.n_wrong + counts.n_missed
    # Of equal F1, the image with more faults is worse.
    order = [index for index in np.lexsort((-n_faults, counts.f1)).tolist() if n_faults[index]][:N_IMAGES]
    measured = measurable(predictions, scores.data_set, stage.kind)
    items, told = [], []
    for number, index in enumerate(order, start=1):
        image = scores.data_set.images[index]
        picture = f"{_PARTS}/{number:03}.jpg"
        read = read_sized(file_of(images, image.file_name) or images / image.file_name, size=image.size)
        with as_output_error():
            (folder / _PARTS).mkdir(parents=True, exist_ok=True)
            (folder / picture).write_bytes(encoded_picture(read.pixels, ".jpg", PICTURE_PX))
        title = (
            f"F1 {counts.f1[index]:.2f}, {counts.n_right[index]} right, {counts.n_wrong[index]} wrong, "
            f"{counts.n_missed[index]} missed"
        )
        faults = _faults(scores, stage, index)
        items.append(
            {
                "index": number - 1,
                "file_name": image.file_name,
                "width": read.width,
                "height": read.height,
                "skipped": None,
                "is_looked_through": False,
                "picture": picture,
                "caption": title,
                "faults": faults,
                **_shapes(scores, index, measured, read.size),
            }
        )
        told.append(f"<li>{html.escape(f'{image.file_name}: {title}')}<br>{html.escape(faults)}</li>\n")
    title = f"The {len(order)} worst of {len(scores.data_set.images)} images"
    about = (
        f"By F1 at IoU 0.5 of {KIND_NAMES[stage.kind]} with a score of at least {scores.score_threshold:g}; images "
        "without a fault are not shown. Errors are named with the class that was predicted, or missed."
    )
    text = f"<h1>{title}</h1>\n<p>{about}</p>\n<ol>\n{''.join(told)}</ol>\n"
    page = folder / PAGE_NAME
    write_static_page(page, _PARTS, _run(scores, title, about, len(items)), items, text)
    return [page]


def _run(scores: Scores, title: str, about: str, n_images: int) -> Mapping[str, Any]:
    """Give what the page is told about a run."""
    return {
        "title": title,
        "about": about,
        "n_images": n_images,
        "n_all": n_images,
        "has_truth": True,
        "palette": PALETTE,
        "classes": [{"name": name, "threshold": None} for name in scores.data_set.classes.values()],
    }


def _shapes(scores: Scores, index: int, measured: Sequence[Prediction], size: ImageSize) -> dict[str, Any]:
    """Give the predictions that reach the threshold, and the objects, of an image by its index."""
    stage, classes = scores.masks or scores.boxes, scores.data_set.classes
    matches = stage.matches
    rows = np.flatnonzero((matches.image == index) & (matches.score >= scores.score_threshold))
    rows = rows[np.argsort(-matches.score[rows], kind="stable")]
    errors = scores.errors[stage.kind].kind
    instances = []
    for key, row in enumerate(rows.tolist()):
        one = measured[matches.prediction[row]]
        is_right, is_ignored = matches.matched[row, ALL_SIZES, AT_50], matches.ignored[row, ALL_SIZES, AT_50]
        shape = _shape(classes[one.category_id], one.box_xywh, one.mask, size)
        instances.append(
            shape
            | {
                "key": key,
                "own_class": shape["class"],
                "label": shape["class"],
                "prompt": one.prompt or shape["class"],
                "score": one.score,
                "mask_score": None,
                "verdict": None if is_ignored else "right" if is_right else "wrong",
                "why": None if errors[row] is None else str(errors[row]),
                "state": "undecided",
            }
        )
    found_by = {int(truth): key for key, truth in enumerate(matches.truth[rows].tolist()) if truth >= 0}
    truths, objects = stage.truths, []
    for place in np.flatnonzero(truths.image == index).tolist():
        mask = truths.masks[place] if truths.masks else None
        box = None if truths.boxes_xywh is None else tuple(truths.boxes_xywh[place].tolist())
        name = truths.index.names[truths.category[place]]
        more = {"found_by": found_by.get(place), "is_crowd": bool(truths.is_crowd[place])}
        objects.append(_shape(name, box, mask, size) | more)
    return {"instances": instances, "objects": objects}


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


def _shape(name: str, box_xywh: Sequence[float] | None, mask: RunLength | None, size: ImageSize) -> dict[str, Any]:
    """Describe a prediction or an object; without a box its mask's is taken, and without a usable mask its box."""
    # Where the data set doesn't say how large its images are, predicted masks may be of any size.
    is_drawn = mask is not None and mask.size == size and area_px(mask) > 0
    if box_xywh is None and mask is not None:
        box_xywh = xywh_from_xyxy(tight_box_xyxy(mask))
    return {
        "class": name,
        "bbox": list(box_xywh or (0, 0, 0, 0)),
        "segmentation": coco_from_run_length(mask) if is_drawn and mask is not None else [],
    }
