"""What several test modules share: pictures on disk, and models that need no weights."""

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import PIL.Image
import pytest
from auto_dtype import pytest_configure as pytest_configure
from browser import chromium as chromium
from buckets import bucket as bucket
from buckets import new_connections as new_connections
from buckets import s3_server as s3_server
from buckets import web as web
from coco_cases import Box, truth, written
from fakes import ColourDetector, InnerSegmenter, found_models, painted

from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import FoundModels
from grounded_seg.settings import DetectSettings, SegmentSettings, TileSettings

Paint = Callable[..., Path]

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")

# A shell starts what it puts in the background with Ctrl-C ignored, and children would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


LONGEST = ("train/test_demo.py", "segment/test_segmenter_parity.py", "runs/test_run_by_workers.py")
"""Modules that begin first, as one at the end would leave the other process without work."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest modules first."""
    items.sort(key=lambda item: not item.nodeid.split("::")[0].endswith(LONGEST))


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """Undo what a command sets for its process: where this package's log goes, and from which level on."""
    yield
    log = logging.getLogger("grounded_seg")
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)


@pytest.fixture
def paint(tmp_path: Path) -> Paint:
    """Writes a 40 x 30 picture below `tmp_path`, with rectangles by colour: `paint("a.png", red=(2, 3, 12, 9))`."""

    def write(name: str, **boxes_xyxy: tuple[int, int, int, int]) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(painted(40, 30, **boxes_xyxy)).save(path)
        return path

    return write


@pytest.fixture
def detector(monkeypatch: pytest.MonkeyPatch) -> ColourDetector:
    """Makes every run load this detector and its segmenter instead of weights, each found under its own name."""
    fake = ColourDetector()

    def load_chain(
        found: FoundModels,
        detect: DetectSettings,
        segment: SegmentSettings,
        tiles: TileSettings | None = None,
        *,
        allow_base_mismatch: bool = False,
    ) -> Chain:
        segmenter = None if found.segmenter is None else InnerSegmenter()
        return Chain(fake, segmenter, tiles=tiles, detect=detect, calibration=found.calibration)

    monkeypatch.setattr("grounded_seg.runs.run.load_chain", load_chain)
    monkeypatch.setattr("grounded_seg.runs.run.find_models", found_models)
    return fake


@pytest.fixture
def scenes(tmp_path: Path, paint: Paint) -> Path:
    """Three pictures of 40 x 30 px: red and green, red, nothing. The fake masks lack their boxes' outermost pixels."""
    colours = ("red", "green", "blue")
    boxes: dict[int, dict[str, Box]] = {
        1: {"red": (2, 3, 10, 10), "green": (20, 5, 10, 12)},
        2: {"red": (5, 5, 20, 20)},
    }
    for number in (1, 2, 3):
        xyxy = {name: (x, y, x + w, y + h) for name, (x, y, w, h) in boxes.get(number, {}).items()}
        paint(f"images/{number}.png", **{name: tuple(map(int, box)) for name, box in xyxy.items()})
    document = truth(
        *((image, colours.index(name) + 1, box) for image, here in boxes.items() for name, box in here.items()),
        n_images=3,
        classes=colours,
    )
    for image in document["images"]:
        image |= {"width": 40, "height": 30}
    return written(tmp_path / "truth.json", document)
