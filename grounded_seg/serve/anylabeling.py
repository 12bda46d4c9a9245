"""X-AnyLabeling's remote server: its list of models, and predictions as its shapes."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException

from grounded_seg.detect.prompts import PromptSet
from grounded_seg.engine.collector import Thresholds
from grounded_seg.errors import UsageError
from grounded_seg.geometry.outlines import Ring
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import BoxXyxy, Image, Instance
from grounded_seg.serve.segment_request import asked_prompts, image_in_text
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.setting_types import NonNegativeFloat, Share, convert_values, refuse

MODEL = "grounded-seg"
_BETWEEN_PROMPTS = re.compile(r"[,.;\n]")
_TOLERANCE_PX = 1.0
"""How far a simplified outline may stray, where the client doesn't say: with all corners of its pixels nobody could
edit it."""


def models_answer(model_version: str, score_threshold: float) -> dict[str, Any]:
    """List the one model, with what the client is to offer for it."""
    widgets = [
        {"name": "edit_text", "value": None},
        {"name": "button_send", "value": None},
        {"name": "edit_conf", "value": score_threshold},
        {"name": "toggle_preserve_existing_annotations", "value": False},
    ]
    model = {
        "display_name": f"Grounded-Seg ({model_version})",
        "params": {},
        "capabilities": {},
        "batch_processing_mode": "text_prompt",
        "widgets": widgets,
    }
    return {"success": True, "data": {MODEL: model}}


@dataclass(frozen=True)
class Prediction:
    """What the client asks."""

    read: "partial[Image]"
    prompts: PromptSet
    thresholds: Thresholds
    epsilon_factor: float | None
    """Simplify an outline by this share of its length; None for a tolerance of our own."""


def prediction_from(values: Mapping[str, Any], settings: ServeSettings) -> Prediction:
    """Read a request's JSON.

    Raises:
        HTTPException: 404 if it asks for another model, 400 if its image is none.
        UsageError: If its parameters are wrong.
    """
    if values.get("model") != MODEL:
        raise HTTPException(404, f"there is no model {str(values.get('model'))[:80]!r} here; there is {MODEL}")
    image, params = values.get("image"), values.get("params") or {}
    if not isinstance(image, str) or not isinstance(params, dict):
        raise UsageError("image has to be a text with base64, and params an object")
    kinds = {"conf_threshold": Share | None, "iou_threshold": Share | None, "epsilon_factor": NonNegativeFloat | None}
    good, problems = convert_values({name: params.get(name) for name in kinds}, kinds, {name: name for name in kinds})
    refuse(problems)
    text = params.get("text_prompt")
    if not isinstance(text, str) or not _BETWEEN_PROMPTS.sub("", text).strip():
        raise UsageError('text_prompt is empty; type what to look for, as in "car,ball"')
    # The client sends 0 where it doesn't offer that threshold.
    thresholds = Thresholds(good["conf_threshold"], good["iou_threshold"] or None)
    prompts = asked_prompts(_BETWEEN_PROMPTS.split(text))
    return Prediction(partial(image_in_text, image, settings.max_pixels), prompts, thresholds, good["epsilon_factor"])


def prediction_answer(asked: Prediction, image: Image, result: PromptedResult) -> dict[str, Any]:  # noqa: ARG001
    """Make the answer to what was found on an image; nothing found is an empty list of shapes."""
    shapes = [
        shape
        for number, instance in enumerate(result.instances, start=1)
        for shape in _shapes(instance, number, asked.epsilon_factor)
    ]
    return {"success": True, "data": {"shapes": shapes, "description": "", "replace": None}}


def _shapes(instance: Instance, number: int, epsilon_factor: float | None) -> list[dict[str, Any]]:
    """A polygon for each part of a mask, or the rectangle of its box."""
    if instance.mask is None:
        rings, kind = [_corners(instance.box_xyxy)], "rectangle"
    else:
        tolerance_px = _TOLERANCE_PX
        if epsilon_factor:
            longest = max(_length_px(ring) for ring in instance.mask.polygons())
            tolerance_px = epsilon_factor * longest
        rings, kind = [ring.tolist() for ring in instance.mask.polygons(tolerance_px)], "polygon"
    return [
        {
            "label": instance.prompt,
            "shape_type": kind,
            "points": points,
            "score": round(min(max(instance.score, 0.0), 1.0), 6),
            "group_id": number if len(rings) > 1 else None,
            "attributes": {},
            "description": "",
        }
        for points in rings
    ]


def _corners(box_xyxy: BoxXyxy) -> list[list[float]]:
    x0, y0, x1, y1 = box_xyxy
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


def _length_px(ring: Ring) -> float:
    return float(np.linalg.norm(np.diff(ring, axis=0, append=ring[:1]), axis=1).sum())
