"""The demo asked about the image that comes with the project, against the answer stored beside its weights."""

import time
from collections.abc import Mapping
from typing import Any

from grounded_seg.diagnosis.finding import Finding, State
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.errors import DeviceError, WeightsError
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.geometry.masks import coco_from_run_length, mask_iou, run_length_from_coco
from grounded_seg.records import ImageResult
from grounded_seg.text.documents import json_in
from grounded_seg.weights.sources import shipped_file

SUBJECT = "known answer"
ANSWER_FILE, IMAGE_FILE = "known_answer.json", "scene-1.jpg"
LEAST_IOU = 0.8
"""Of boxes and masks with the stored ones: bfloat16 moves a box by up to two steps of its grid."""


def ask_demo(device: str, dtype: str) -> Finding:
    """Whether the demo finds on this machine what it found where its answer was stored.

    Args:
        device: As `ModelSettings.device`.
        dtype: As `ModelSettings.dtype`.

    Raises:
        WeightsError: If the demo isn't there, or damaged.
        DeviceError: If the device can't run it.
    """
    stored, image = _stored_answer(), shipped_file("demo", IMAGE_FILE)
    started_s = time.monotonic()
    segmenter = GroundedSegmenter.from_preset("demo", device=device, dtype=dtype, offline=True)
    loaded_s = time.monotonic()
    found = segmenter(image, stored["prompt"])
    return compare(found, stored, {"load": loaded_s - started_s, "image": time.monotonic() - loaded_s})


def _stored_answer() -> dict[str, Any]:
    """The answer stored beside the demo's weights; a `WeightsError` if it is damaged."""
    path = shipped_file("demo", ANSWER_FILE)
    try:
        content: dict[str, Any] = json_in(path)
        if not isinstance(content["prompt"], str) or not isinstance(content["instances"], list):
            raise TypeError("no answer in it")
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WeightsError(f"{path} can't be read ({error}); install grounded-seg again") from error
    return content


def compare(found: ImageResult, stored: Mapping[str, Any], seconds: Mapping[str, float]) -> Finding:
    """The finding of a result against the stored answer, which `answer_of` made."""
    expected = stored["instances"]
    facts: dict[str, Any] = {"seconds": {name: round(value, 2) for name, value in seconds.items()}}
    took = f"{seconds['load']:.1f} s to load, {seconds['image']:.1f} s for the image"
    problem = None
    if len(found.instances) != len(expected):
        problem = f"{len(found.instances)} objects instead of {len(expected)}"
    else:
        boxes = pairwise_iou(
            array_from_boxes([one["box_xyxy"] for one in expected]),
            array_from_boxes([one.box_xyxy for one in found.instances]),
        ).diagonal()
        masks = [
            float(mask_iou([run_length_from_coco(one["mask"])], [here.mask])[0, 0]) if here.mask else 0.0
            for one, here in zip(expected, found.instances, strict=True)
        ]
        facts |= {"box_iou": [round(float(one), 4) for one in boxes], "mask_iou": [round(one, 4) for one in masks]}
        worst = min([*map(float, boxes), *masks], default=1.0)
        if worst < LEAST_IOU:
            problem = f"a box or mask overlaps with the stored one by an IoU of {worst:.2f} only"
    if problem is not None:
        what = f"the demo gives {problem}"
        remedy = "try --device cpu --dtype float32: if that is right, this device computes something else; report it"
        return Finding(SUBJECT, State.ERROR, what, remedy, DeviceError.exit_code, facts)
    return Finding(SUBJECT, State.OK, f"the demo finds what it should; {took}", facts=facts)


def answer_of(result: ImageResult, prompt: str) -> dict[str, Any]:
    """What is stored of a result."""
    instances = [
        {
            "label": one.detection.label,
            "score": round(one.detection.score, 4),
            "box_xyxy": [round(edge, 2) for edge in one.box_xyxy],
            "mask": _mask_of(one.mask),
        }
        for one in result.instances
    ]
    return {"image": IMAGE_FILE, "prompt": prompt, "instances": instances}


def _mask_of(mask: Any) -> dict[str, Any]:
    encoded = coco_from_run_length(mask)
    return {"size": list(encoded["size"]), "counts": encoded["counts"]}
