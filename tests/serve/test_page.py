"""The page in a real browser: an image and a prompt go in; boxes, masks, COCO and a picture come out.

`GROUNDED_SEG_SCREENSHOTS=docs` writes the picture of the page that docs/serve.md shows.
"""

import io
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from paths import ROOT

from grounded_seg.pipeline.load import find_models
from grounded_seg.serve.app import make_app
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.serve.start import loaded_service
from grounded_seg.web.access import Access
from grounded_seg.web.launch import bound_socket

SCENE = ROOT / "examples" / "scene-1.jpg"


@pytest.fixture(scope="module")
def address(demo_settings: ServeSettings) -> Iterator[str]:
    """A server of the demo on a socket, in a thread."""
    import uvicorn

    app = make_app(loaded_service(find_models(demo_settings.models), demo_settings), Access())
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", ws="none")
    server, taken = uvicorn.Server(config), bound_socket("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
    thread.start()
    port = taken.getsockname()[1]
    end = time.monotonic() + 30
    while not server.started:
        assert time.monotonic() < end
        time.sleep(0.02)
    socket.create_connection(("127.0.0.1", port), timeout=30).close()
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join()


class Visit:
    """A page, and what it complained of and asked for."""

    def __init__(self, chromium: Any, address: str, width: int = 1280, height: int = 720) -> None:
        self.page = chromium.new_page(viewport={"width": width, "height": height})
        self.complaints: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda one: self.complaints.append(one.text) if one.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(address, wait_until="networkidle")

    def find(self, prompt: str) -> None:
        self.page.fill("#prompt", prompt)
        self.page.press("#prompt", "Enter")
        # No text that the browser would have to run as a script: the page forbids that.
        self.page.wait_for_selector("#coco:enabled, #status.wrong")

    def names(self) -> list[str]:
        return list(self.page.locator("#found .name").all_inner_texts())

    def threshold(self, value: float) -> None:
        set_value = "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }"
        self.page.locator("#threshold").evaluate(set_value, value)

    def download(self, button: str) -> tuple[str, bytes]:
        with self.page.expect_download() as waiting:
            self.page.click(button)
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


@pytest.fixture
def visit(chromium: Any, address: str) -> Iterator[Visit]:
    one = Visit(chromium, address)
    yield one
    one.page.close()
    outside = [url for url in one.asked if not re.match(re.escape(address) + "|blob:|data:", url)]
    assert outside == []
    assert one.complaints == []


def pixels(content: bytes) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(content)).convert("RGB")


def test_an_image_a_prompt_a_threshold_coco_and_png(visit: Visit, demo: Any) -> None:
    visit.page.set_input_files("#file", SCENE)
    visit.find("car; house; star")
    assert visit.names()
    _, plain = visit.download("#png")
    visit.threshold(1.0)
    assert visit.names() == []
    _, bare = visit.download("#png")
    assert pixels(plain).size == pixels(bare).size == pixels(SCENE.read_bytes()).size
    assert pixels(plain).tobytes() != pixels(bare).tobytes()
    visit.threshold(0.5)
    name, coco = visit.download("#coco")
    assert name == "scene-1.json"
    fields = {"prompts": "car; house; star", "format": "coco"}
    answer = demo.post("/v1/segment", files={"file": (SCENE.name, SCENE.read_bytes())}, data=fields)
    mine, right = json.loads(coco), answer.json()
    assert len(mine["annotations"]) == len(visit.names()) == len(right["annotations"]) > 0
    for one, other in zip(mine["annotations"], right["annotations"], strict=True):
        assert one["score"] == pytest.approx(other["score"], abs=1e-4)
        for key in ("id", "image_id", "category_id", "area", "bbox"):
            assert one[key] == pytest.approx(other[key], rel=0.01)
    assert {key: mine[key] for key in mine if key != "annotations"} == {
        key: right[key] for key in right if key != "annotations"
    }
    picture = os.environ.get("GROUNDED_SEG_SCREENSHOTS")
    if picture:
        visit.page.screenshot(path=str(Path(picture) / "serve.jpg"), type="jpeg", quality=80)


def test_masks_are_decoded_as_they_were_encoded(visit: Visit, demo: Any) -> None:
    fields = {"prompts": "car; ball", "score_threshold": "0.05"}
    answer = demo.post("/v1/segment", files={"file": (SCENE.name, SCENE.read_bytes())}, data=fields).json()
    assert answer["instances"]
    decode = """async ([segmentation, box]) => {
      const { maskInBox } = await import("/masks.js");
      const { inside } = maskInBox(segmentation, box);
      return inside.reduce((sum, one) => sum + one, 0);
    }"""
    for one in answer["instances"]:
        assert visit.page.evaluate(decode, [one["segmentation"], one["bbox"]]) == one["area"]


def test_a_dropped_image_and_an_error_that_is_told(visit: Visit) -> None:
    visit.find("car")
    assert visit.page.inner_text("#status") == "Drop an image first."
    content = list(SCENE.read_bytes())
    drop = """(content) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([new Uint8Array(content)], "dropped.jpg", { type: "image/jpeg" }));
      document.querySelector("#drop").dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
    }"""
    visit.page.fill("#prompt", "")
    visit.page.evaluate(drop, content)
    visit.page.wait_for_selector("#canvas:not([hidden])")
    visit.find("<b>car</b>; ball")
    assert visit.page.locator("#found b").count() == 0
    # An image that the server can't read either is an error on the page, and a complaint of the chromium's own.
    visit.page.set_input_files("#file", {"name": "a.png", "mimeType": "image/png", "buffer": b"no image"})
    visit.page.wait_for_selector("#status.wrong")
    assert "holds no image in a known format" in visit.page.inner_text("#status")
    visit.complaints[:] = [one for one in visit.complaints if "status of 422" not in one]


def test_a_phone_can_use_it(chromium: Any, address: str) -> None:
    visit = Visit(chromium, address, 390, 844)
    visit.page.set_input_files("#file", SCENE)
    visit.find("car; ball")
    assert visit.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert visit.complaints == []
    visit.page.close()
