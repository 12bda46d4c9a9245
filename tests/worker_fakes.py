"""What workers in other processes import: models that need no weights, and things to do with an image."""

import hashlib
import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fakes import ColourDetector, FakeVersions, FakeWeights, InnerSegmenter

from grounded_seg.engine.request import Processed
from grounded_seg.errors import WeightsError
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.records import Detection, Image, ImageSkipped

Width = tuple[str, float | str]


def found_at(path: Path, n_threads: int = 1) -> FoundModels:
    """A file stands for the weights."""
    path.write_bytes(b"weights")
    weights = FakeWeights(path, "own", None, hashlib.sha256(b"weights").hexdigest())
    versions = FakeVersions()
    return FoundModels(weights, None, None, "cpu", "float32", n_threads, versions)  # type: ignore[arg-type]


def colour_chain(found: FoundModels) -> Chain:
    return Chain(ColourDetector(), InnerSegmenter())


class SlowDetector(ColourDetector):
    """Takes its time."""

    def detect(
        self, images: Sequence[Image], prompts: Sequence[str], class_names: Sequence[str] | None = None, **options: Any
    ) -> list[tuple[Detection, ...]]:
        time.sleep(float(os.environ.get("SECONDS_PER_BATCH", "0.01")))
        return super().detect(images, prompts, **options)


def slow_chain(found: FoundModels, *_: object, **__: object) -> Chain:
    return Chain(SlowDetector(), InnerSegmenter(), calibration=found.calibration)


def no_chain(found: FoundModels) -> Chain:
    raise WeightsError(f"no weights for {found.device}; look elsewhere")


def width(processed: Processed) -> Width:
    """The name of an image and the width of its red thing."""
    result = processed.result
    name = processed.request.name
    if isinstance(result, ImageSkipped):
        return name, result.error
    logging.getLogger("grounded_seg.fakes").warning("%s is seen", name)
    return name, result.instances[0].box_xyxy[2]


def threads(processed: Processed) -> int:
    import torch

    return torch.get_num_threads()


def width_or_death(processed: Processed, *, name: str, mark: Path | None) -> Width:
    """Kills its process at the image of that name: once, if there is to be a mark of it, else always."""
    if processed.request.name == name and (mark is None or not mark.exists()):
        if mark is not None:
            mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return width(processed)


def fails_at_3(processed: Processed) -> Width:
    if processed.request.index == 3:
        raise LookupError("of its own kind")
    return width(processed)


def unpicklable(processed: Processed) -> Callable[[], None]:
    return lambda: None


def width_and_file(processed: Processed, *, output: Path) -> Width:
    """Writes a file too."""
    path = output / "sub" / f"{processed.request.name}.txt"
    path.parent.mkdir(exist_ok=True)
    path.write_text(str(width(processed)[1]))
    return width(processed)
