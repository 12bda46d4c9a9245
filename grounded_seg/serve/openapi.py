"""The description of the server's interface: `/openapi.json`, and `/docs` as a page made of it."""

import html
from collections.abc import Mapping
from typing import Any

from grounded_seg import __version__

_SHARE = {"type": "number", "minimum": 0, "maximum": 1}
_PROMPTS = {
    "description": "What to look for: a text with ; between prompts, a list, or a mapping of prompts to classes, or to "
    "objects with class, threshold, not, min_area and max_detections.",
    "oneOf": [
        {"type": "string"},
        {"type": "array", "items": {"type": "string"}},
        {"type": "object", "additionalProperties": {"type": ["string", "object"]}},
    ],
}
_COMMON = {
    "prompts": _PROMPTS,
    "score_threshold": {**_SHARE, "description": "Drop boxes below this score."},
    "iou_threshold": {**_SHARE, "description": "Drop a box whose IoU with a better one is above this."},
    "format": {
        "type": "string",
        "enum": ["json", "coco", "png"],
        "default": "json",
        "description": "The journal's line, a COCO file, or the overlay as a picture.",
    },
    "name": {"type": "string", "description": "What the image is called in the answer."},
}
_FORM = {
    "type": "object",
    "required": ["file", "prompts"],
    "properties": {"file": {"type": "string", "format": "binary", "description": "The image."}, **_COMMON},
}
_JSON = {
    "type": "object",
    "required": ["prompts"],
    "properties": {
        "image": {"type": "string", "description": "The image as base64 or a data URL; or give path."},
        "path": {"type": "string", "description": "A file below --root; or give image."},
        **_COMMON,
    },
}
_FAULT = {
    "type": "object",
    "properties": {
        "success": {"const": False},
        "error": {
            "type": "object",
            "properties": {"code": {"type": "string"}, "message": {"type": "string"}},
        },
    },
}
_ERRORS = {
    "400": "Something in the request is wrong; the message says what.",
    "401": "The token is missing or wrong.",
    "403": "A path outside of the root, a host that isn't allowed, or a page of another server.",
    "413": "The request is too large.",
    "422": "The image can't be read.",
    "503": "Too many requests are in hand.",
}


def _operation(summary: str, answer: str, *, errors: tuple[str, ...] = ("401",), **more: Any) -> dict[str, Any]:
    content = {"application/json": {"schema": _FAULT}}
    faults = {one: {"description": _ERRORS[one], "content": content} for one in errors}
    return {"summary": summary, "responses": {"200": {"description": answer}, **faults}, **more}


def _body(schema: Mapping[str, Any], *, form: Mapping[str, Any] | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"multipart/form-data": {"schema": form}} if form else {}
    return {"required": True, "content": {**content, "application/json": {"schema": schema}}}


def _object(**properties: str) -> dict[str, Any]:
    return {"type": "object", "properties": {name: {"description": text} for name, text in properties.items()}}


_PATHS: dict[str, dict[str, Any]] = {
    "/v1/segment": {
        "post": _operation(
            "Find what prompts name in an image.",
            "The journal's line of the image, a COCO file, or a picture. Header Server-Timing has the seconds of each "
            "stage.",
            errors=tuple(_ERRORS),
            requestBody=_body(_JSON, form=_FORM),
        )
    },
    "/v1/models": {"get": _operation("The model, as X-AnyLabeling lists it.", "Name, widgets and mode.")},
    "/v1/predict": {
        "post": _operation(
            "A prediction for X-AnyLabeling.",
            "Shapes with points in pixels.",
            errors=tuple(_ERRORS),
            requestBody=_body(
                _object(
                    model="grounded-seg.",
                    image="Data URL or base64.",
                    params="text_prompt, conf_threshold, iou_threshold, epsilon_factor.",
                )
            ),
        )
    },
    "/health": {"get": _operation("Whether the server is up; needs no token.", "status is UP.")},
    "/setup": {
        "post": _operation(
            "A Label Studio project begins to ask this server.",
            "model_version.",
            errors=("400", "401"),
            requestBody=_body(
                _object(
                    project="Its id.",
                    schema="Its label config.",
                    hostname="Where images are fetched, if it is allowed.",
                    access_token="The token for that.",  # noqa: S106  (a description)
                )
            ),
        )
    },
    "/predict": {
        "post": _operation(
            "Predictions for tasks of Label Studio.",
            "A result for each task in their order; regions that fit the label config.",
            errors=("400", "401", "413", "503"),
            requestBody=_body(
                _object(
                    tasks="Each with id and data.",
                    label_config="Of the project.",
                    params="context.result[].value.text has prompts; without, the config's labels are asked.",
                )
            ),
        )
    },
    "/webhook": {
        "post": {"summary": "Events of Label Studio; nothing is done.", "responses": {"201": {"description": "Taken."}}}
    },
    "/metrics": {"get": _operation("Counts, seconds and queue.", "In the text form of Prometheus.")},
    "/openapi.json": {"get": _operation("This description.", "OpenAPI 3.1.")},
}


def openapi() -> dict[str, Any]:
    """Give the description in the form of OpenAPI."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "grounded-seg",
            "version": __version__,
            "description": "A sentence and an image go in; boxes, masks and COCO come out.",
        },
        "security": [{"bearer": []}, {"basic": []}, {"token": []}, {}],
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic"},
                "token": {"type": "apiKey", "in": "header", "name": "Token"},
            }
        },
        "paths": _PATHS,
    }


def docs_page() -> str:
    """Give the description as a page, all text escaped."""
    parts = [_operation_html(path, method, one) for path, of in _PATHS.items() for method, one in of.items()]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>grounded-seg: interface</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="stylesheet" href="/page.css"></head><body class="docs"><header><h1>Interface</h1>'
        '<nav><a href="/">Page</a> <a href="/openapi.json">openapi.json</a></nav></header><main>'
        "<p>With a token, give it as <code>Authorization: Bearer TOKEN</code>, as header <code>Token</code>, or as the "
        "password of Basic. An error is <code>{&quot;success&quot;: false, &quot;error&quot;: {&quot;code&quot;, "
        "&quot;message&quot;}}</code> with its status.</p>" + "".join(parts) + "</main></body></html>\n"
    )


def _operation_html(path: str, method: str, operation: Mapping[str, Any]) -> str:
    rows = []
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        rows.append(f"<h3>{html.escape(kind)}</h3>{_list(content['schema']['properties'])}")
    answers = {status: {"description": one["description"]} for status, one in operation["responses"].items()}
    rows.append(f"<h3>Answers</h3>{_list(answers)}")
    head = f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{html.escape(operation['summary'])}</p>"
    return f"<section>{head}{''.join(rows)}</section>"


def _list(described: Mapping[str, Mapping[str, Any]]) -> str:
    items = (
        f"<dt><code>{html.escape(name)}</code></dt><dd>{html.escape(str(one.get('description', '')))}</dd>"
        for name, one in described.items()
    )
    return f"<dl>{''.join(items)}</dl>"
