"""Journal lines of results, and the COCO file of journal lines.

Numbers are rounded once, on the way into the journal: pixels to 3 decimals, scores to 6. That is far finer than what a
box or a score means, and makes the text, and so the file's bytes, short and stable.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

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
from grounded_seg.geometry.masks import area_px, coco_from_run_length, tight_box_xyxy
from grounded_seg.records import BoxXyxy, ImageResult, ImageSkipped, Instance

PIXEL_DECIMALS = 3
SCORE_DECIMALS = 6

Record: TypeAlias = tuple[JournalLine, CocoImage | None, Sequence[CocoAnnotation]]
"""A line with its image (None for a skipped one) and annotations as the COCO file has them, with their ids."""
Also: TypeAlias = Callable[[JournalLine, CocoImage | None, Sequence[CocoAnnotation]], None]
"""Is told each line, with its image (None for a skipped one) and annotations as the COCO file has them."""


def annotation_from_instance(instance: Instance) -> JournalInstance:
    """Annotation of an instance, without ids; without a mask it is a box with an empty list as segmentation."""
    detection, mask = instance.detection, instance.mask
    if mask is None:
        x0, y0, x1, y1 = box_xyxy = detection.box_xyxy
        area: float = _rounded((x1 - x0) * (y1 - y0), PIXEL_DECIMALS)
    else:
        box_xyxy, area = tight_box_xyxy(mask), area_px(mask)
    score, raw = _rounded(detection.score, SCORE_DECIMALS), detection.detector_score
    attributes: Attributes = {
        "label": detection.label,
        "prompt": detection.prompt,
        "detector_score": score if raw is None else _rounded(raw, SCORE_DECIMALS),
        "mask_score": None if instance.mask_score is None else _rounded(instance.mask_score, SCORE_DECIMALS),
    }
    if instance.leaves_box:
        attributes["leaves_box"] = True
    return {
        "bbox": _rounded_xywh(box_xyxy),
        "area": area,
        "segmentation": [] if mask is None else coco_from_run_length(mask),
        "iscrowd": 0,
        "score": score,
        "detector_bbox": _rounded_xywh(detection.box_xyxy),
        "attributes": attributes,
    }


def journal_line(file_name: str, outcome: ImageResult | ImageSkipped) -> JournalLine:
    """Journal line of one input, whose name is relative to the run's root; every line has every key."""
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
    for _, image, annotations in _numbered(lines, categories, category_of_prompt):
        if image is None:
            continue
        document["images"].append(image)
        document["annotations"].extend(annotations)
    return document


def write_annotations(
    lines: Iterable[JournalLine],
    categories: Sequence[str],
    destination: Path,
    category_of_prompt: Mapping[str, str] | None = None,
    also: Also | None = None,
) -> None:
    """Stream journal lines into a COCO file, one record a line, in memory that doesn't grow with the run.

    Images and annotations are numbered from 1 in the order of the lines, categories in their own; images that were
    skipped are left out, images on which nothing was found are listed. The same lines give the same bytes. The text is
    ASCII: some readers open files in the system's encoding, and would garble any other. Without `category_of_prompt`
    the prompts are the categories; an `InputError` for a prompt that has none. `also` is told each line in passing.
    """
    write_records(_numbered(lines, categories, category_of_prompt), categories, destination, also)


def write_records(
    records: Iterable[Record], categories: Sequence[str], destination: Path, also: Also | None = None
) -> None:
    """Stream records into a COCO file, as `write_annotations` does, with the ids that they have."""
    document = _empty_document(categories)
    head = [f'"{key}": {_text(document[key])},\n' for key in ("info", "licenses", "categories")]
    # The annotations wait in a second file until the last image is listed.
    with whole_file(destination) as file, tempfile.TemporaryFile("w+b", dir=Path(file.name).parent) as waiting:
        file.write(("{\n" + "".join(head) + '"images": [').encode("ascii"))
        between_images = between_annotations = "\n"
        for line, image, annotations in records:
            if also is not None:
                also(line, image, annotations)
            if image is None:
                continue
            file.write((between_images + _text(image)).encode("ascii"))
            between_images = ",\n"
            if annotations:
                waiting.write((between_annotations + ",\n".join(map(_text, annotations))).encode("ascii"))
                between_annotations = ",\n"
        file.write(b'\n],\n"annotations": [')
        waiting.seek(0)
        shutil.copyfileobj(waiting, file, 1 << 20)
        file.write(b"\n]\n}\n")


def _numbered(
    lines: Iterable[JournalLine], categories: Sequence[str], category_of_prompt: Mapping[str, str] | None
) -> Iterator[tuple[JournalLine, CocoImage | None, list[CocoAnnotation]]]:
    """Yield each line with its image, unless that was skipped, and its annotations, all with their ids."""
    ids = {name: number for number, name in enumerate(categories, start=1)}
    if len(ids) != len(categories):
        raise ValueError(f"categories are named twice: {', '.join(categories)}")
    prompts = {name: name for name in categories} if category_of_prompt is None else category_of_prompt
    n_images = n_annotations = 0
    for line in lines:
        if line["status"] == "skipped" or line["width"] is None or line["height"] is None:
            yield line, None, []
            continue
        n_images += 1
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
        image: CocoImage = {
            "id": n_images,
            "file_name": line["file_name"],
            "width": line["width"],
            "height": line["height"],
        }
        yield line, image, annotations


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
