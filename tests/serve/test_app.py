"""The application: its pages, its description, what it counts, and how it refuses."""

import json
import re
import threading
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fakes import ColourDetector
from serve_cases import Served, Start

from grounded_seg.serve import openapi as description
from grounded_seg.serve.app import _PAGE, _PAGE_FILES
from grounded_seg.serve.settings import ServeSettings
from grounded_seg.web.access import Access

PAGES = ("/", "/docs")
OUTSIDE = re.compile(r"(?:https?:)?//(?!www\.w3\.org/)[a-z0-9]", re.IGNORECASE)


class Tags(HTMLParser):
    """The tags of a page with their attributes, and the text within scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._within = tag

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_nothing_inline_and_nothing_from_outside(served: Served, path: str) -> None:
    answer = served.client.get(path)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    tags = Tags(answer.text)
    assert tags.inline == []
    assert len(tags.found) > 10
    for tag, attributes in tags.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action"):
            link = attributes.get(name)
            if link is not None:
                assert served.client.get(link).status_code == 200, link
    assert not OUTSIDE.search(answer.text)


@pytest.mark.parametrize("name", _PAGE_FILES)
def test_the_files_of_the_page_ask_nobody_else(served: Served, name: str) -> None:
    text = (_PAGE / name).read_text(encoding="utf-8")
    assert not OUTSIDE.search(text.replace("http://www.w3.org/2000/svg", ""))
    assert "eval(" not in text
    assert "innerHTML" not in text
    answer = served.client.get("/" if name == "index.html" else f"/{name}")
    assert answer.headers["content-type"].partition(";")[0] in (
        "text/html",
        "text/css",
        "text/javascript",
        "image/svg+xml",
    )


def test_every_file_of_the_page_is_served() -> None:
    assert sorted(path.name for path in Path(_PAGE).iterdir()) == sorted(_PAGE_FILES)


def test_the_description_has_every_path_with_its_method(served: Served) -> None:
    content = served.client.get("/openapi.json").json()
    pages = {"/docs", "/", *(f"/{name}" for name in _PAGE_FILES)}
    routes = {
        (path, method.lower())
        for path, methods in served_routes(served).items()
        for method in methods - {"HEAD"}
        if path not in pages
    }
    assert {(path, method) for path, of in content["paths"].items() for method in of} == routes
    assert content["openapi"].startswith("3.1")


def served_routes(served: Served) -> dict[str, set[str]]:
    guarded: Any = served.client.app
    return {route.path: set(route.methods) for route in guarded._app._app.routes}


def test_the_docs_page_names_every_path_and_escapes_its_text(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    text = served.client.get("/docs").text
    for path in served.client.get("/openapi.json").json()["paths"]:
        assert path in text
    monkeypatch.setitem(description._PATHS, "/<script>", {"get": {"summary": "<b>", "responses": {}}})
    assert "<script>" not in description.docs_page()
    assert "&lt;b&gt;" in description.docs_page()


def test_what_is_not_there_is_said(served: Served) -> None:
    for method, path, status in (("GET", "/v2", 404), ("GET", "/v1/segment", 405), ("GET", "/page/../../app.py", 404)):
        answer = served.client.request(method, path)
        assert answer.status_code == status
        assert answer.json()["success"] is False
    assert served.client.get("/favicon.ico").status_code == 404


def test_a_full_queue_is_refused_at_once_before_the_request_is_read(start: Start, as_base64: str) -> None:
    served = start(ServeSettings(queue_size=2))
    fields = {"image": as_base64, "prompts": "red"}
    with served.service.admitted(), served.service.admitted():
        for path in ("/v1/segment", "/v1/predict", "/predict"):
            answer = served.client.post(path, content=b"never read", headers={"Content-Length": "10"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "busy")
            assert answer.headers["retry-after"] == "1"
        assert served.client.get("/health").status_code == 200
    assert served.post(**fields).status_code == 200


def test_a_fault_in_the_models_is_one_answer(start: Start, as_base64: str, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(ColourDetector):
        def detect(self, images: Any, prompts: Any, class_names: Any = None, *, asked: Any = None) -> Any:
            if "red" in prompts:
                raise ZeroDivisionError("a fault of ours")
            return super().detect(images, prompts, class_names, asked=asked)

    served = start(detector=Broken())
    answer = served.post(image=as_base64, prompts="red")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "unexpected ZeroDivisionError" in caplog.text
    assert served.post(image=as_base64, prompts="green").status_code == 200
    assert served.service.n_in_hand == 0


def test_many_callers_at_once_are_all_answered(served: Served, as_base64: str) -> None:
    answers: list[Any] = []

    def ask(prompt: str) -> None:
        answers.append((prompt, served.post(image=as_base64, prompts=prompt)))

    threads = [threading.Thread(target=ask, args=(("red", "green")[number % 2],)) for number in range(16)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert len(answers) == 16
    for prompt, answer in answers:
        assert [one["attributes"]["prompt"] for one in answer.json()["instances"]] == [prompt]


def test_what_is_counted(served: Served, as_base64: str) -> None:
    served.post(image=as_base64, prompts="red")
    served.post(image="%", prompts="red")
    served.client.get("/not/there")
    served.client.get("/health", headers={"Host": "evil.example"})
    text = served.client.get("/metrics").text
    figures = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert figures['grounded_seg_requests_total{path="/v1/segment",status="200"}'] == "1"
    assert figures['grounded_seg_requests_total{path="/v1/segment",status="400"}'] == "1"
    assert figures['grounded_seg_requests_total{path="other",status="404"}'] == "1"
    assert figures['grounded_seg_requests_total{path="/health",status="421"}'] == "1"
    assert (figures["grounded_seg_images_total"], figures["grounded_seg_batches_total"]) == ("1", "1")
    assert figures["grounded_seg_queue_waiting"] == figures["grounded_seg_requests_in_hand"] == "0"
    assert float(figures['grounded_seg_stage_seconds_total{stage="detect"}']) > 0
    names = {re.split(r"[{ ]", line)[0] for line in figures}
    assert names == set(re.findall(r"^# TYPE (\S+) (?:counter|gauge)$", text, re.MULTILINE))


def test_with_a_token_only_the_health_is_open(start: Start) -> None:
    access = Access(host="0.0.0.0", token="s3cret", open_paths=frozenset({"/health"}))
    served = start(access=access)
    paths = [*served_routes(served), "/not/there"]
    statuses = {path: served.client.get(path).status_code for path in paths}
    assert statuses.pop("/health") == 200
    assert set(statuses.values()) == {401}
    assert served.client.get("/v1/models", headers={"Token": "s3cret"}).status_code == 200
    assert json.loads(served.client.get("/v1/models").text)["error"]["code"] == "unauthorized"
