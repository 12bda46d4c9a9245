"""Journal lines of results, and the COCO file of journal lines.

Numbers are rounded once, on the way into the journal: pixels to 3 decimals, scores to 6. That is far finer than what a
box or a score means, and makes the text, and so the file's bytes, short and stable.
"""

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from grounded_seg import __version__
from grounded_seg.coco.schema import (
    Attributes,
    CocoAnnotation,
    CocoDocument,
    CocoImage,
    JournalInstance,
    JournalLine,
    xywh_from_xyxy,
)
from grounded_seg.errors import InputError
from grounded_seg.files import whole_file
from grounded_seg.geometry.masks import CompressedMask, area_px, coco_from_run_length, tight_box_xyxy
from grounded_seg.records import BoxXyxy, ImageResult, ImageSkipped, Instance

PIXEL_DECIMALS = 3
SCORE_DECIMALS = 6
_COPIED_BYTES = 1 << 20
"""At once, of what waits on disk."""


def annotation_from_instance(instance: Instance) -> JournalInstance:
    """Annotation of an instance, without ids.

    With a mask, `bbox` is the mask's tight box and `area` its number of pixels. Without one they are the detector's box
    and its area, and `segmentation` is an empty list, as tools that import boxes expect.
    """
    detection = instance.detection
    segmentation: CompressedMask | list[list[float]]
    if instance.mask is None:
        x0, y0, x1, y1 = box_xyxy = detection.box_xyxy
        area: float = _rounded((x1 - x0) * (y1 - y0), PIXEL_DECIMALS)
        segmentation = []
    else:
        box_xyxy, area = tight_box_xyxy(instance.mask), area_px(instance.mask)
        segmentation = coco_from_run_length(instance.mask)
    score = _rounded(detection.score, SCORE_DECIMALS)
    attributes: Attributes = {
        "label": detection.label,
        "prompt": detection.prompt,
        "detector_score": score,
        "mask_score": None if instance.mask_score is None else _rounded(instance.mask_score, SCORE_DECIMALS),
    }
    if instance.leaves_box:
        attributes["leaves_box"] = True
    return {
        "bbox": _rounded_xywh(box_xyxy),
        "area": area,
        "segmentation": segmentation,
        "iscrowd": 0,
        "score": score,
        "detector_bbox": _rounded_xywh(detection.box_xyxy),
        "attributes": attributes,
    }


def journal_line(file_name: str, outcome: ImageResult | ImageSkipped) -> JournalLine:
    """Journal line of one input; every line has every key.

    Args:
        file_name: Relative to the run's root, POSIX.
        outcome: The result, or why there is none.
    """
    if isinstance(outcome, ImageSkipped):
        return {
            "file_name": file_name,
            "status": "skipped",
            "width": None,
            "height": None,
            "instances": [],
            "reason": outcome.reason,
            "error": outcome.error,
        }
    return {
        "file_name": file_name,
        "status": "done",
        "width": outcome.size.width,
        "height": outcome.size.height,
        "instances": [annotation_from_instance(instance) for instance in outcome.instances],
        "reason": None,
        "error": None,
    }


def document_from_lines(
    lines: Iterable[JournalLine], categories: Sequence[str], category_of_prompt: Mapping[str, str] | None = None
) -> CocoDocument:
    """COCO file in memory; the arguments are those of `write_annotations`."""
    document = _empty_document(categories)
    for image, annotations in _numbered(lines, categories, category_of_prompt):
        document["images"].append(image)
        document["annotations"].extend(annotations)
    return document


def write_annotations(
    lines: Iterable[JournalLine],
    categories: Sequence[str],
    destination: Path,
    category_of_prompt: Mapping[str, str] | None = None,
) -> None:
    """Stream journal lines into a COCO file, one record a line, in memory that doesn't grow with the run.

    Images that were skipped are left out, images on which nothing was found are listed. The same lines give the same
    bytes. The text is ASCII: some readers open files in the system's encoding, and would garble any other.
    A write that fails leaves an older file whole.

    Args:
        lines: In the order that images and annotations are to be numbered, from 1.
        categories: Names in order; their ids are 1, 2, ...
        destination: The file, replaced if it is there; its folder must exist.
        category_of_prompt: The category of each prompt; None where the prompts are the categories.

    Raises:
        InputError: If a line names a prompt without a category.
        ValueError: If a category is named twice.
    """
    with whole_file(destination) as file:
        _stream(file, _numbered(lines, categories, category_of_prompt), _empty_document(categories))


def _stream(
    file: IO[bytes], numbered: Iterable[tuple[CocoImage, list[CocoAnnotation]]], document: CocoDocument
) -> None:
    """Write the whole document; the annotations wait in a second file until the last image is listed."""
    head = [
        f"{_text(key)}: {_text(value)},\n" for key, value in document.items() if key not in ("images", "annotations")
    ]
    file.write(("{\n" + "".join(head) + '"images": [').encode("ascii"))
    with tempfile.TemporaryFile("w+b", dir=Path(file.name).parent) as waiting:
        between_images = between_annotations = "\n"
        for image, annotations in numbered:
            file.write((between_images + _text(image)).encode("ascii"))
            between_images = ",\n"
            if annotations:
                waiting.write((between_annotations + ",\n".join(map(_text, annotations))).encode("ascii"))
                between_annotations = ",\n"
        file.write(b'\n],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file, _COPIED_BYTES)
    file.write(b"\n]\n}\n")


def _numbered(
    lines: Iterable[JournalLine], categories: Sequence[str], category_of_prompt: Mapping[str, str] | None
) -> Iterator[tuple[CocoImage, list[CocoAnnotation]]]:
    """Yield each image that was done with its annotations, all with their ids."""
    ids = {name: number for number, name in enumerate(categories, start=1)}
    if len(ids) != len(categories):
        raise ValueError(f"categories are named twice: {', '.join(categories)}")
    prompts = {name: name for name in categories} if category_of_prompt is None else category_of_prompt
    n_images = n_annotations = 0
    for line in lines:
        if line["status"] == "skipped" or line["width"] is None or line["height"] is None:
            continue
        n_images += 1
        image: CocoImage = {
            "id": n_images,
            "file_name": line["file_name"],
            "width": line["width"],
            "height": line["height"],
        }
        annotations: list[CocoAnnotation] = []
        for instance in line["instances"]:
            n_annotations += 1
            prompt = instance["attributes"]["prompt"]
            if prompts.get(prompt) not in ids:
                raise InputError(
                    f"{line['file_name']}: prompt {prompt!r} belongs to none of the categories "
                    f"{', '.join(categories)}; the journal is another run's, start over with --overwrite"
                )
            category_id = ids[prompts[prompt]]
            annotations.append({"id": n_annotations, "image_id": n_images, "category_id": category_id, **instance})
        yield image, annotations


def _empty_document(categories: Sequence[str]) -> CocoDocument:
    return {
        "info": {"description": "Made by grounded-seg", "version": __version__},
        "licenses": [],
        "categories": [{"id": number, "name": name} for number, name in enumerate(categories, start=1)],
        "images": [],
        "annotations": [],
    }


# One encoder for all: `json.dumps` would make one for each annotation.
_text = json.JSONEncoder(allow_nan=False).encode


def _rounded_xywh(box_xyxy: BoxXyxy) -> list[float]:
    return [_rounded(value, PIXEL_DECIMALS) for value in xywh_from_xyxy(box_xyxy)]


def _rounded(value: float, decimals: int) -> float:
    # Plain float: numpy's isn't JSON. Plus zero: -0.0 would be another text for the same number.
    return round(float(value), decimals) + 0.0
