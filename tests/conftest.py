"""What several test modules share: pictures on disk, and models that need no weights."""

from collections.abc import Callable
from pathlib import Path

import hypothesis
import PIL.Image
import pytest
from fakes import ColourDetector, InnerSegmenter, found_models, painted

from grounded_seg.pipeline import GroundedSegmenter
from grounded_seg.settings import DetectSettings, ModelSettings, SegmentSettings, TileSettings

Paint = Callable[..., Path]

# A busy machine is no fault of the code.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


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
    """Makes every run load this detector and its segmenter instead of weights."""
    fake = ColourDetector()

    def from_settings(
        models: ModelSettings,
        detect: DetectSettings,
        *,
        segment: SegmentSettings = SegmentSettings(),  # noqa: B008
        tiles: TileSettings | None = None,
        boxes_only: bool = False,
        found: object = None,
        progress: object = None,
    ) -> GroundedSegmenter:
        return GroundedSegmenter(fake, None if boxes_only else InnerSegmenter(), tiles=tiles)

    monkeypatch.setattr(GroundedSegmenter, "from_settings", from_settings)
    monkeypatch.setattr("grounded_seg.batch.find_models", lambda *_, **__: None)
    monkeypatch.setattr("grounded_seg.evaluation.answers.find_models", lambda *_, **__: found_models())
    return fake
