"""Label Studio's ML backend: tasks in, predictions with regions out."""

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urljoin, urlsplit

import numpy as np
import numpy.typing as npt
from starlette.exceptions import HTTPException

from grounded_seg.detect.prompts import PromptSet, prompt_set_from, prompts_from
from grounded_seg.engine.collector import Thresholds
from grounded_seg.errors import GroundedSegError, UsageError
from grounded_seg.export.labelstudio import brush_from_run_length, per_cent
from grounded_seg.geometry.masks import run_length_from_box
from grounded_seg.pipeline.result import PromptedResult
from grounded_seg.records import Image, ImageSize, Instance
from grounded_seg.serve.allowed_hosts import allowed_host, fetched_from, host_and_port, is_allowed
from grounded_seg.serve.image_sources import bytes_below, bytes_from_text, decoded, path_below, plain_name
from grounded_seg.serve.label_config import LabelConfig, read_label_config
from grounded_seg.serve.service import Service

_LOG = logging.getLogger(__name__)
_LOCAL_FILES = "/data/local-files/"
_LONGEST_S = 80.0
"""For all tasks of a prediction: Label Studio gives up after 100 s, and gateways before it often after 90 s."""
_TOLERANCE_PX = 1.0
"""How far a polygon may stray from its mask: with all corners of the pixels nobody could edit it."""
_MOST_TASKS = 1000


@dataclass(frozen=True)
class Connection:
    """A Label Studio that images are fetched from."""

    url: str
    """Its root, with a slash at the end."""
    token: str


class LabelStudioBackend:
    """Answers Label Studio; knows where it is from its set-up, or from what the server was started with."""

    def __init__(self, service: Service, connection: Connection | None = None) -> None:
        """Begin with a connection, or wait for that of a set-up."""
        self._service = service
        self._connection = connection
        self._hosts = [allowed_host(one) for one in service.settings.allow_hosts]

    def set_up(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Take note of a project: its host and token are kept only if the host is allowed.

        Raises:
            UsageError: If its configuration can't be used.
        """
        if values.get("schema"):
            read_label_config(values["schema"])
        url, token = values.get("hostname"), values.get("access_token")
        if isinstance(url, str) and url:
            if is_allowed(url, self._hosts):
                self._connection = Connection(url.rstrip("/") + "/", token if isinstance(token, str) else "")
            else:
                shown = urlsplit(url).netloc.rpartition("@")[2] or url[:80]
                _LOG.warning("images of %s aren't fetched; start the server with --allow-host %s", shown, shown)
        return {"model_version": self._service.model_version}

    async def predict(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Make the predictions of some tasks, in their order; one that fails has no regions, and is logged.

        Raises:
            UsageError: If the request as a whole can't be used.
        """
        tasks = values.get("tasks")
        if not isinstance(tasks, list) or len(tasks) > _MOST_TASKS:
            raise UsageError(f"tasks have to be a list of at most {_MOST_TASKS}")
        config = read_label_config(values.get("label_config"))
        prompts = _prompts_of(values, config)
        labels = {one: config.region_for(one, has_mask=True) for one in prompts.prompts}
        unlabelled = [one for one, found in labels.items() if found is None]
        if unlabelled:
            _LOG.warning("the label config has no label for %s: left out", ", ".join(map(repr, unlabelled)))
        # Two prompts for one label find one object once.
        wanted = {one: found[1] for one, found in labels.items() if found is not None}
        end = asyncio.get_running_loop().time() + _LONGEST_S
        results: list[dict[str, Any]] = []
        # So many together as the models take; more would only hold their images.
        for start in range(0, len(tasks), self._service.settings.batch_size):
            some = tasks[start : start + self._service.settings.batch_size]
            answers = (self._prediction(task, config, wanted, end) for task in some)
            results += await asyncio.gather(*answers)
        return {"results": results}

    async def _prediction(
        self, task: Any, config: LabelConfig, prompts: Mapping[str, str], end: float
    ) -> dict[str, Any]:
        regions: list[dict[str, Any]] = []
        number = task.get("id") if isinstance(task, dict) else None
        try:
            if prompts:
                async with asyncio.timeout_at(end):
                    regions = await self._regions(task, config, prompt_set_from(prompts))
        except (HTTPException, GroundedSegError, TimeoutError) as error:
            reason = f"not within {_LONGEST_S:.0f} s" if isinstance(error, TimeoutError) else _text_of(error)
            _LOG.warning("task %s has no prediction: %s", number, reason)
        scores = [region["score"] for region in regions]
        score = sum(scores) / len(scores) if scores else 0.0
        return {"result": regions, "score": score, "model_version": self._service.model_version}

    async def _regions(self, task: Any, config: LabelConfig, prompts: PromptSet) -> list[dict[str, Any]]:
        data = task.get("data") if isinstance(task, dict) else None
        address = data.get(config.image_key) if isinstance(data, dict) else None
        if not isinstance(address, str) or not address:
            raise UsageError(f"its data has no text {config.image_key!r}")

        def read() -> Image:
            content, name = self._content(address)
            return decoded(content, name, self._service.settings.max_pixels)

        def make(image: Image, result: PromptedResult) -> list[dict[str, Any]]:
            return regions_of(result, image.size, config)

        return await self._service.ask(read, prompts, Thresholds(), make)

    def _content(self, address: str) -> tuple[bytes, str]:
        """Read a task's image, wherever it is."""
        settings = self._service.settings
        if address[:5].lower() == "data:":
            return bytes_from_text(address), "image"
        parts = urlsplit(address)
        name = plain_name(parts.path)
        if parts.path.endswith(_LOCAL_FILES) and settings.root is not None:
            path = parse_qs(parts.query).get("d", [""])[0]
            if self._connection is None or _is_below(settings.root, path):
                return bytes_below(settings.root, path, settings.max_pixels)
        connection = self._connection
        if not parts.scheme and not parts.netloc:
            if connection is None:
                raise HTTPException(403, f"{address[:80]!r} is of a Label Studio that isn't known; see docs/serve.md")
            address = urljoin(connection.url, address)
        headers = {}
        if connection is not None and connection.token and host_and_port(address) == host_and_port(connection.url):
            headers = {"Authorization": f"Token {connection.token}"}
        return fetched_from(address, self._hosts, settings.max_bytes, headers), name


def _is_below(root: Path, path: str) -> bool:
    try:
        path_below(root, path)
    except HTTPException:
        return False
    return True


def _prompts_of(values: Mapping[str, Any], config: LabelConfig) -> PromptSet:
    """The text of the context, else the names of the config's labels."""
    params = values.get("params")
    context = params.get("context") if isinstance(params, dict) else None
    regions = context.get("result") if isinstance(context, dict) else None
    texts: list[str] = []
    for region in regions if isinstance(regions, list) else ():
        value = region.get("value") if isinstance(region, dict) else None
        text = value.get("text") if isinstance(value, dict) else None
        texts += [one for one in (text if isinstance(text, list) else [text]) if isinstance(one, str)]
    typed = [part for text in texts for part in re.split(r"[;\n]", text) if part.strip()]
    return prompts_from(typed or config.label_names)


def _text_of(error: Exception) -> str:
    return error.detail if isinstance(error, HTTPException) else str(error)


def regions_of(result: PromptedResult, size: ImageSize, config: LabelConfig) -> list[dict[str, Any]]:
    """Make the regions of what was found: one an object, or a polygon for each of its parts."""
    regions: list[dict[str, Any]] = []
    for instance in result.instances:
        found = config.region_for(instance.prompt, has_mask=instance.mask is not None)
        if found is None:
            continue
        control, label = found
        for value in _values(instance, control.kind, size):
            region = {
                "from_name": control.from_name,
                "to_name": control.to_name,
                "type": control.kind,
                "original_width": size.width,
                "original_height": size.height,
                "image_rotation": 0,
                "value": {**value, control.kind: [label]},
                "score": round(instance.score, 6),
            }
            # Of what it is: a second prediction for the same task adds its regions to those of the first.
            number = hashlib.sha256(json.dumps([len(regions), region]).encode()).hexdigest()[:10]
            regions.append({"id": number, **region})
    return regions


def _values(instance: Instance, kind: str, size: ImageSize) -> list[dict[str, Any]]:
    x0, y0, x1, y1 = instance.box_xyxy
    if kind == "rectanglelabels":
        [[x, y], [right, bottom]] = _per_cent(np.array([[x0, y0], [x1, y1]]), size).tolist()
        return [{"x": x, "y": y, "width": right - x, "height": bottom - y, "rotation": 0}]
    if kind == "brushlabels":
        mask = instance.mask or run_length_from_box(instance.box_xyxy, size)
        return [{"format": "rle", "rle": list(brush_from_run_length(mask))}]
    if instance.mask is None:
        rings = [np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])]
    else:
        rings = instance.mask.polygons(_TOLERANCE_PX)
    return [{"points": _per_cent(ring, size).tolist(), "closed": True} for ring in rings]


def _per_cent(points: npt.NDArray[np.float64], size: ImageSize) -> npt.NDArray[np.float64]:
    """Points in per cent of the image's sides, (n, 2); the last bit of a number doesn't lead out of it."""
    clipped: npt.NDArray[np.float64] = np.clip(np.array(per_cent(points, size)), 0.0, 100.0)
    return clipped
