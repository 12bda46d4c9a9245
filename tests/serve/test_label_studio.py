"""Label Studio's wire form: set-up, tasks, regions of each kind, and where images come from."""

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from elsewhere import Elsewhere
from fakes import ColourDetector
from serve_cases import Served, Start

from grounded_seg.geometry.masks import mask_from_run_length
from grounded_seg.serve.label_studio import Connection
from grounded_seg.serve.settings import ServeSettings

LABELS = '<Label value="red"/><Label value="green"/>'
KINDS = ("RectangleLabels", "PolygonLabels", "BrushLabels")


def config(kind: str = "RectangleLabels", labels: str = LABELS) -> str:
    return f'<View><Image name="img" value="$picture"/><{kind} name="tag" toName="img">{labels}</{kind}></View>'


def prompt(*texts: str) -> dict[str, Any]:
    return {"context": {"result": [{"value": {"text": list(texts)}}]}}


def predict(
    served: Served, *images: object, label_config: str | None = None, params: Any = None
) -> list[dict[str, Any]]:
    tasks = [{"id": number, "data": {"picture": image}} for number, image in enumerate(images, 1)]
    answer = served.post(
        "/predict",
        tasks=tasks,
        project="7.1",
        label_config=label_config or config(),
        params=params or {"context": None},
    )
    assert answer.status_code == 200, answer.text
    return list(answer.json()["results"])


def data_url(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def test_the_check_and_the_set_up(served: Served) -> None:
    assert served.client.get("/health").json()["status"] == "UP"
    assert served.client.get("/health").json()["model_class"]
    answer = served.post("/setup", project="7.1", schema=config(), extra_params={})
    assert (answer.status_code, answer.json()) == (200, {"model_version": "colours"})
    assert served.post("/setup", project="7.1", schema="<View/>").status_code == 400
    assert served.post("/webhook", action="ANNOTATION_CREATED").status_code == 201


def test_a_box_is_in_per_cent_of_the_image(served: Served, png: bytes) -> None:
    [one] = predict(served, data_url(png), params=prompt("red"))
    assert one["model_version"] == "colours"
    assert one["score"] == pytest.approx(2 / 3, abs=1e-6)
    [region] = one["result"]
    value = region.pop("value")
    assert len(region.pop("id")) == 10
    assert region == {
        "from_name": "tag",
        "to_name": "img",
        "type": "rectanglelabels",
        "original_width": 40,
        "original_height": 30,
        "image_rotation": 0,
        "score": 0.666667,
    }
    assert value == {
        "x": pytest.approx(5),
        "y": pytest.approx(10),
        "width": pytest.approx(25),
        "height": pytest.approx(20),
        "rotation": 0,
        "rectanglelabels": ["red"],
    }


def test_a_polygon_and_a_brush_are_the_mask(served: Served, png: bytes) -> None:
    [one] = predict(served, data_url(png), label_config=config("PolygonLabels"), params=prompt("red"))
    [region] = one["result"]
    points = np.array(region["value"]["points"]) * (0.4, 0.3)
    assert sorted(points.round(6).tolist()) == [[3, 4], [3, 8], [11, 4], [11, 8]]
    assert region["value"]["closed"] is True
    assert region["value"]["polygonlabels"] == ["red"]
    [one] = predict(served, data_url(png), label_config=config("BrushLabels"), params=prompt("red"))
    [region] = one["result"]
    assert region["value"]["format"] == "rle"
    assert region["value"]["brushlabels"] == ["red"]
    assert all(0 <= byte <= 255 for byte in region["value"]["rle"])


@pytest.mark.parametrize("kind", KINDS)
def test_without_masks_each_kind_is_the_box(start: Start, png: bytes, kind: str) -> None:
    [one] = predict(start(boxes_only=True), data_url(png), label_config=config(kind), params=prompt("red"))
    [region] = one["result"]
    assert region["type"] == kind.lower()


def test_without_a_text_the_labels_are_the_prompts(served: Served, png: bytes) -> None:
    for params in (
        {"context": None},
        {},
        {"context": {"result": []}},
        {"context": {"result": [{"value": {}}]}},
        [],
        None,
    ):
        [one] = predict(served, data_url(png), params=params)
        assert [region["value"]["rectanglelabels"] for region in one["result"]] == [["red"], ["green"]]


def test_a_prompt_goes_to_the_label_of_its_name_or_to_the_only_one_or_nowhere(
    served: Served, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    named = config(labels='<Label value="red"/><Label value="Green"/>')
    [one] = predict(served, data_url(png), label_config=named, params=prompt("green; blue thing"))
    assert [region["value"]["rectanglelabels"] for region in one["result"]] == [["Green"]]
    assert "no label for 'blue thing'" in caplog.text
    only = config(labels='<Label value="Thing"/>')
    [one] = predict(served, data_url(png), label_config=only, params=prompt("red", "green ball"))
    assert [region["value"]["rectanglelabels"] for region in one["result"]] == [["Thing"], ["Thing"]]
    [one] = predict(served, data_url(png), params=prompt("blue"))
    assert (one["result"], one["score"]) == ([], 0.0)


def test_several_tasks_come_in_their_order_and_one_that_fails_is_empty(
    start: Start, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    served = start(ServeSettings(batch_size=2))
    wrong = ("data:image/png;base64,AAAA", "http://evil.example/a.png", "/data/upload/1/a.png", "", None, 3, "s3://b/a")
    results = predict(served, data_url(png), *wrong, data_url(png))
    assert [len(one["result"]) for one in results] == [2, *[0] * len(wrong), 2]
    assert {one["model_version"] for one in results} == {"colours"}
    for number in range(2, 2 + len(wrong)):
        assert f"task {number} has no prediction: " in caplog.text
    # Regions that several predictions add to one task are told apart, equal ones are the same.
    ids = [[region["id"] for region in one["result"]] for one in results]
    assert ids[0] == ids[-1]
    assert len(set(ids[0])) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"tasks": "all", "label_config": config()},
        {"tasks": [], "label_config": "<View/>"},
        {"tasks": []},
        {"tasks": [{}] * 1001, "label_config": config()},
    ],
)
def test_a_request_that_can_not_be_used_is_one_error(served: Served, fields: dict[str, Any]) -> None:
    assert served.post("/predict", **fields).status_code == 400


def test_a_task_that_takes_too_long_is_left_out(
    start: Start, png: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import time

    class SlowDetector(ColourDetector):
        def detect(self, *given: Any, **more: Any) -> Any:
            time.sleep(0.3)
            return super().detect(*given, **more)

    monkeypatch.setattr("grounded_seg.serve.label_studio._LONGEST_S", 0.45)
    served = start(ServeSettings(batch_size=1), detector=SlowDetector())
    results = predict(served, data_url(png), data_url(png), data_url(png))
    assert [len(one["result"]) for one in results] == [2, 0, 0]
    assert "task 3 has no prediction" in caplog.text


def test_images_of_an_allowed_label_studio_are_fetched_with_its_token(
    start: Start, png: bytes, elsewhere: Elsewhere, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere.pages |= {"/data/upload/7/a.png": png, "/data/local-files/": png}
    served = start(ServeSettings(allow_hosts=(elsewhere.host,)))
    assert [len(one["result"]) for one in predict(served, "/data/upload/7/a.png")] == [0]
    served.post("/setup", project="7.1", schema=config(), hostname=elsewhere.url(""), access_token="abc")
    results = predict(
        served, "/data/upload/7/a.png", "/data/local-files/?d=a.png", elsewhere.url("/data/upload/7/a.png")
    )
    assert [len(one["result"]) for one in results] == [2, 2, 2]
    assert {token for _, token in elsewhere.asked} == {"Token abc"}
    assert "abc" not in caplog.text


def test_a_label_studio_that_is_not_allowed_gets_nothing(
    start: Start, elsewhere: Elsewhere, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere.pages["/data/upload/7/a.png"] = png
    served = start(ServeSettings(allow_hosts=("labels.lan",)))
    answer = served.post("/setup", project="7.1", schema=config(), hostname=elsewhere.url(""), access_token="abc")
    assert answer.status_code == 200
    assert f"--allow-host {elsewhere.host}" in caplog.text
    assert [len(one["result"]) for one in predict(served, "/data/upload/7/a.png", elsewhere.url("/a.png"))] == [0, 0]
    assert elsewhere.asked == []


def test_the_environment_names_a_label_studio_that_does_not_set_this_server_up(
    start: Start, png: bytes, elsewhere: Elsewhere
) -> None:
    elsewhere.pages["/data/upload/7/a.png"] = png
    known = Connection(elsewhere.url("/"), "key")
    served = start(ServeSettings(allow_hosts=("127.0.0.1",)), connection=known)
    assert [len(one["result"]) for one in predict(served, "/data/upload/7/a.png")] == [2]
    assert elsewhere.asked == [("/data/upload/7/a.png", "Token key")]


def test_local_files_are_read_below_the_root(start: Start, tmp_path: Path, png: bytes) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a b.png").write_bytes(png)
    (tmp_path / "secret.png").write_bytes(png)
    served = start(ServeSettings(root=tmp_path / "photos"))
    addresses = [
        "/data/local-files/?d=a%20b.png",
        "/data/local-files/?d=../secret.png",
        "/data/local-files/",
        "/data/local-files/?d=",
    ]
    assert [len(one["result"]) for one in predict(served, *addresses)] == [2, 0, 0, 0]


def test_a_mask_survives_the_brush(served: Served, png: bytes) -> None:
    """The runs that Label Studio unpacks are those of the mask that /v1/segment gives."""
    from grounded_seg.export.labelstudio import brush_from_run_length
    from grounded_seg.geometry.masks import run_length_from_coco

    [one] = predict(served, data_url(png), label_config=config("BrushLabels"), params=prompt("red"))
    line = served.post(image=base64.b64encode(png).decode(), prompts="red").json()
    mask = run_length_from_coco(line["instances"][0]["segmentation"])
    assert mask_from_run_length(mask).sum() == 8 * 4
    assert one["result"][0]["value"]["rle"] == list(brush_from_run_length(mask))
    assert json.loads(json.dumps(one)) == one
