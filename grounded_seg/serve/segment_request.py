"""`POST /v1/segment`: what a request may say, and its answers."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import PurePath
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from grounded_seg.coco.write import document_from_lines, journal_line
from grounded_seg.detect.prompts import PromptSet, prompt_set_from, prompts_from
from grounded_seg.engine.collector import Thresholds
from grounded_seg.errors import UsageError
from grounded_seg.images.draw import encoded_picture
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image
from grounded_seg.serve.image_sources import bytes_below, bytes_from_text, decoded, plain_name
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.setting_types import Share, convert_values, refuse
from grounded_seg.text.documents import json_of

_FIELDS = ("file", "image", "path", "name", "prompts", "score_threshold", "iou_threshold", "format")
_SOURCES = ("file", "image", "path")
_MOST_PROMPTS = 100


class AnswerForm(StrEnum):
    """What a request is answered with."""

    JSON = "json"
    """The journal's line."""
    COCO = "coco"
    PNG = "png"
    """The overlay."""


@dataclass(frozen=True)
class SegmentRequest:
    """One request, as far as it is right."""

    read: Callable[[], Image]
    """Gives the image; takes a while."""
    name: str | None
    """What the image is called in the answer; None for its own name."""
    prompts: PromptSet
    thresholds: Thresholds
    form: AnswerForm


async def read_segment_request(request: Request, settings: ServeSettings) -> SegmentRequest:
    """Read a request: a form with a file, or JSON with base64 or a path below the root.

    Raises:
        HTTPException, UsageError: If something in it is wrong.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        values = await _form_values(request)
    elif kind == "application/json":
        values = await json_object(request)
    else:
        raise HTTPException(415, "send multipart/form-data with a field `file`, or application/json with `image`")
    unknown = [name for name in values if name not in _FIELDS]
    if unknown:
        raise UsageError(f"there is no field {unknown[0]!r}; the fields are {', '.join(_FIELDS)}")
    form = str(values.get("format") or ("png" if request.headers.get("accept") == "image/png" else "json"))
    kinds = {"score_threshold": Share | None, "iou_threshold": Share | None, "format": AnswerForm}
    given = {"score_threshold": values.get("score_threshold"), "iou_threshold": values.get("iou_threshold")}
    good, problems = convert_values({**given, "format": form}, kinds, {one: one for one in kinds}, numbers_as_text=True)
    refuse(problems)
    name = values.get("name")
    thresholds = Thresholds(good["score_threshold"], good["iou_threshold"])
    return SegmentRequest(
        _image_of(values, settings),
        plain_name(name) if isinstance(name, str) else None,
        asked_prompts(values.get("prompts")),
        thresholds,
        good["format"],
    )


async def json_object(request: Request) -> dict[str, Any]:
    """Read a request's JSON object.

    Raises:
        HTTPException: 400 if it is none.
    """
    try:
        values = json_of(await request.body())
    except ValueError as error:
        raise HTTPException(400, f"the request is no JSON ({error})") from error
    if not isinstance(values, dict):
        raise HTTPException(400, "the request is no JSON object")
    return values


def asked_prompts(given: object) -> PromptSet:
    """Prompts as a text with `;` between them, a list, or a mapping of prompts to classes; never the name of a file.

    In the place of a class may stand what a file of classes has under a prompt.

    Raises:
        UsageError: If there is none, or there are too many.
    """
    prompts = prompts_from(given.split(";")) if isinstance(given, str) else prompt_set_from(_list_or_mapping(given))
    if (n_asked := len(prompts.questions)) > _MOST_PROMPTS:
        raise UsageError(f"{n_asked} prompts are more than {_MOST_PROMPTS}; send several requests")
    return prompts


def _list_or_mapping(given: object) -> Any:
    if given is None:
        raise UsageError('the field `prompts` is missing; name what to look for, as in "red car; traffic light"')
    if isinstance(given, list | dict):
        return given
    raise UsageError("prompts are a text, a list of texts, or a mapping of prompts to classes")


async def _form_values(request: Request) -> dict[str, Any]:
    """Read a form; a field that is there several times, such as `prompts`, becomes a list."""
    values: dict[str, Any] = {}
    async with request.form(max_files=1, max_fields=_MOST_PROMPTS + len(_FIELDS)) as form:
        for name in form:
            given = [one if isinstance(one, str) else (await one.read(), one.filename) for one in form.getlist(name)]
            values[name] = given[0] if len(given) == 1 else given
    return values


def _image_of(values: Mapping[str, Any], settings: ServeSettings) -> Callable[[], Image]:
    named = [one for one in _SOURCES if values.get(one) is not None]
    if len(named) != 1:
        has = " and ".join(named) or "none"
        raise UsageError(f"give the image as one of {', '.join(_SOURCES)}; the request has {has}")
    [source], given, limit = named, values[named[0]], settings.max_pixels
    if isinstance(given, tuple):
        return partial(decoded, given[0], plain_name(given[1]), limit)
    if not isinstance(given, str) or source == "file":
        what = "file of a form" if source == "file" else "text"
        raise UsageError(f"{source} is no {what}")
    return partial(_image_below, settings, given) if source == "path" else partial(image_in_text, given, limit)


def _image_below(settings: ServeSettings, path: str) -> Image:
    content, name = bytes_below(settings.root, path, settings.max_pixels)
    return decoded(content, name, settings.max_pixels)


def image_in_text(text: str, max_pixels: int) -> Image:
    """Decode an image that is base64 or a data URL.

    Raises:
        HTTPException: 400 if it is neither.
        ImageError: If it is no image.
    """
    return decoded(bytes_from_text(text), "image", max_pixels)


def answer_to(asked: SegmentRequest, image: Image, result: PromptedResult) -> Response:
    """Make the answer in the form asked for, with the seconds of each stage in a header."""
    timing = ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in result.seconds.items())
    headers = {"Server-Timing": timing}
    if asked.form is AnswerForm.PNG:
        return Response(encoded_picture(result.draw(image), ".png"), media_type="image/png", headers=headers)
    line = journal_line(asked.name or PurePath(str(image.path)).as_posix(), result)
    document: object = line
    if asked.form is AnswerForm.COCO:
        document = document_from_lines([line], asked.prompts.classes, asked.prompts.class_by_prompt)
    # ASCII, as the files have it: a name may hold half characters.
    return Response(json.dumps(document), media_type="application/json", headers=headers)
