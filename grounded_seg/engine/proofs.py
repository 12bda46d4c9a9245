"""What a worker on another machine proves before its first batch: that it sees what the first machine sees."""

import hashlib
import os
import platform
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from grounded_seg.engine.batches import read_request
from grounded_seg.engine.request import Request, Work
from grounded_seg.engine.several_workers import Batch
from grounded_seg.errors import DeviceError, InputError, WeightsError
from grounded_seg.pipeline.load import FoundModels, RunsOn, runs_here
from grounded_seg.records import Image
from grounded_seg.settings import ModelSettings


@dataclass(frozen=True)
class Proof:
    """What a worker has to see as this process sees it."""

    working_folder: str
    request: Request | None
    """The first image that can be read here; None where none of the first batch can."""
    pixels: str
    """Its size and the hash of its pixels."""
    models: ModelSettings
    runs_on: RunsOn
    """As `models` asks on the first worker."""


def first_readable(batch: Batch, work: Work[Any]) -> tuple[Request | None, str]:
    """Find the first image of a batch that can be read, with what tells its pixels from others."""
    for request in batch:
        pixels = _pixels(request, work)
        if pixels is not None:
            return request, pixels
    return None, ""


def _pixels(request: Request, work: Work[Any]) -> str | None:
    """Give the size and hash of an image's pixels; None if it can't be read."""
    image = read_request(request, max_pixels=work.max_pixels).image
    if not isinstance(image, Image):
        return None
    return f"{image.width} x {image.height} px, sha256 {hashlib.sha256(image.pixels.tobytes()).hexdigest()}"


def enter(working_folder: str) -> None:
    """Go where relative paths start from, if that folder is here."""
    with suppress(OSError):
        os.chdir(working_folder)


def check_images(proof: Proof, work: Work[Any]) -> None:
    """Refuse a worker that sees another first image, or none: it would skip them all."""
    if proof.request is None:
        return
    pixels = _pixels(proof.request, work)
    if pixels != proof.pixels:
        what = "doesn't see" if pixels is None else "sees other pixels in"
        raise InputError(
            f"the Ray worker on {platform.node()} {what} {proof.request.path}; give all nodes the same images at the "
            "same path"
        )


def check_software(proof: Proof) -> None:
    """Refuse a worker whose dtype, kernels or libraries would give other last digits."""
    here, there = runs_here(proof.models), proof.runs_on
    was, now = ({"dtype": one.dtype, "kernels": one.kernels, **asdict(one.versions)} for one in (there, here))
    differing = [f"{name} {now[name]} where the first has {was[name]}" for name in was if was[name] != now[name]]
    if differing:
        raise DeviceError(
            f"the Ray worker on {platform.node()} differs from the first: {', '.join(differing)}; its results would "
            "differ too. Use nodes of one kind"
        )


def check_weights(found: FoundModels) -> None:
    """Refuse a worker that has other weights at the same paths."""
    # This imports the hub's library.
    from grounded_seg.weights.files import ADAPTER_FILE, ANY_WEIGHTS, sha256_of_weights

    for part in (found.detector, found.adapter, found.segmenter):
        if part is None:
            continue
        where = f"the Ray worker on {platform.node()}"
        if not part.path.exists():
            raise WeightsError(f"{where} doesn't see the weights {part.path}; give all nodes the same path")
        names = (ADAPTER_FILE,) if part is found.adapter else ANY_WEIGHTS
        if sha256_of_weights(part.path, names) != part.sha256:
            raise WeightsError(f"{where} sees other weights in {part.path}; give all nodes the same")
