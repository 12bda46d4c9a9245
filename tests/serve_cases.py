"""Servers for tests: of models that find painted rectangles, and of the demo, loaded once."""

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import PIL.Image
import pytest
from buckets import picture
from fakes import ColourDetector, InnerSegmenter, painted
from starlette.testclient import TestClient

from grounded_seg.engine.collector import Collector
from grounded_seg.pipeline.chain import Chain
from grounded_seg.pipeline.load import find_models
from grounded_seg.serve.app import make_app
from grounded_seg.serve.label_studio import Connection
from grounded_seg.serve.service import Service
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.serve.start import loaded_service
from grounded_seg.settings import ModelSettings
from grounded_seg.web.access import Access

URL = "http://127.0.0.1:8765"
RED = (2, 3, 12, 9)
GREEN = (20, 5, 30, 17)


class ThresholdColours(ColourDetector):
    """A detector of painted rectangles, whose thresholds can be chosen; it remembers those."""

    def __init__(self, score: float = 0.5, iou: float = 0.7) -> None:
        super().__init__()
        self.thresholds: list[tuple[float, float]] = []
        self._own = (score, iou)

    def with_score_threshold(self, score_threshold: float) -> "ThresholdColours":
        return self._like(score_threshold, self._own[1])

    def with_iou_threshold(self, iou_threshold: float) -> "ThresholdColours":
        return self._like(self._own[0], iou_threshold)

    def _like(self, score: float, iou: float) -> "ThresholdColours":
        other = ThresholdColours(score, iou)
        other.__dict__ |= {"thresholds": self.thresholds, "batch_sizes": self.batch_sizes}
        return other

    def detect(self, images: Any, prompts: Any, class_names: Any = None, *, asked: Any = None) -> Any:
        self.thresholds.append(self._own)
        found = super().detect(images, prompts, class_names, asked=asked)
        return [tuple(one for one in some if one.score >= self._own[0]) for some in found]


@dataclass
class Served:
    """A server in this process, and what its detector was asked."""

    client: TestClient
    service: Service
    detector: ColourDetector

    def post(self, where: str = "/v1/segment", /, **fields: Any) -> Any:
        """Send JSON."""
        return self.client.post(where, json=fields)


Start = Callable[..., Served]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server of painted rectangles: `start(settings, access, detector=..., boxes_only=...)`."""
    with ExitStack() as stack:

        def started(
            settings: ServeSettings | None = None,
            access: Access | None = None,
            *,
            detector: ColourDetector | None = None,
            boxes_only: bool = False,
            connection: Connection | None = None,
        ) -> Served:
            settings, detector = settings or ServeSettings(), detector or ThresholdColours()
            chain = Chain(detector, None if boxes_only else InnerSegmenter())
            service = Service(Collector(chain, settings.batch_size), settings, "colours")
            app = make_app(service, access or Access(max_body_bytes=settings.max_bytes), connection)
            client = stack.enter_context(TestClient(app, URL, raise_server_exceptions=False))
            return Served(client, service, detector)

        yield started


@pytest.fixture
def served(start: Start) -> Served:
    return start()


@pytest.fixture
def png() -> bytes:
    """A picture of 40 x 30 px with a red and a green rectangle."""
    return picture(red=RED, green=GREEN)


@pytest.fixture
def as_base64(png: bytes) -> str:
    return base64.b64encode(png).decode()


def turned_jpeg() -> bytes:
    """A picture of 30 x 40 px that EXIF turns upright, to 40 x 30 with a red rectangle."""
    content, exif = io.BytesIO(), PIL.Image.Exif()
    exif[0x0112] = 6
    lying = PIL.Image.fromarray(painted(40, 30, red=RED)).transpose(PIL.Image.Transpose.ROTATE_90)
    lying.save(content, "PNG", exif=exif)
    return content.getvalue()


@pytest.fixture(scope="session")
def demo_settings() -> ServeSettings:
    return ServeSettings(models=ModelSettings("demo", device="cpu", dtype="float32"), batch_size=4)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def demo(demo_settings: ServeSettings) -> Iterator[TestClient]:
    """A server of the demo."""
    service = loaded_service(find_models(demo_settings.models), demo_settings)
    with TestClient(make_app(service, Access()), URL, raise_server_exceptions=False) as client:
        yield client
