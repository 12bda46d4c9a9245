"""X-AnyLabeling's wire form: models, shapes, an empty answer, and errors that it doesn't take for one."""

import base64
from typing import Any

import numpy as np
import pytest
from buckets import picture
from serve_cases import Served, Start, ThresholdColours, turned_jpeg

from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.records import Detection, ImageResult, Instance
from grounded_seg.serve.anylabeling import prediction_answer, prediction_from
from grounded_seg.serve.settings import ServeSettings


def predicted(served: Served, image: str, **params: Any) -> Any:
    return served.post("/v1/predict", model="grounded-seg", image=f"data:image/jpeg;base64,{image}", params=params)


def test_the_model_is_listed_as_the_client_wants_it(served: Served) -> None:
    content = served.client.get("/v1/models").json()
    assert content["success"] is True
    [(name, model)] = content["data"].items()
    assert name == "grounded-seg"
    assert model["batch_processing_mode"] == "text_prompt"
    assert model["widgets"] == [
        {"name": "edit_text", "value": None},
        {"name": "button_send", "value": None},
        {"name": "edit_conf", "value": 0.5},
        {"name": "toggle_preserve_existing_annotations", "value": False},
    ]
    assert {"display_name", "params", "capabilities"} <= model.keys()


def test_objects_become_polygons(served: Served, as_base64: str) -> None:
    answer = predicted(served, as_base64, text_prompt="red,green. blue; ", conf_threshold=0.5, iou_threshold=0)
    content = answer.json()
    assert content["success"] is True
    assert (content["data"]["description"], content["data"]["replace"]) == ("", None)
    shapes = content["data"]["shapes"]
    assert [(one["label"], one["shape_type"], one["group_id"]) for one in shapes] == [
        ("red", "polygon", None),
        ("green", "polygon", None),
    ]
    # The mask is the box without its outermost pixels.
    assert sorted(shapes[0]["points"]) == [[3, 4], [3, 8], [11, 4], [11, 8]]
    assert shapes[0]["score"] == 0.666667
    assert (shapes[0]["attributes"], shapes[0]["description"]) == ({}, "")


def test_without_masks_objects_are_rectangles_of_four_corners(start: Start, as_base64: str) -> None:
    [shape] = predicted(start(boxes_only=True), as_base64, text_prompt="red").json()["data"]["shapes"]
    assert shape["shape_type"] == "rectangle"
    assert shape["points"] == [[2, 3], [12, 3], [12, 9], [2, 9]]


def test_nothing_found_is_a_success_without_shapes(served: Served, as_base64: str) -> None:
    answer = predicted(served, as_base64, text_prompt="blue")
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["data"]["shapes"] == []


def test_the_thresholds_of_the_client_are_used_and_its_0_is_no_threshold(served: Served, as_base64: str) -> None:
    assert isinstance(served.detector, ThresholdColours)
    predicted(served, as_base64, text_prompt="red", conf_threshold=0.3, iou_threshold=0.0)
    predicted(served, as_base64, text_prompt="red", iou_threshold=0.45, current_task="anything")
    predicted(served, as_base64, text_prompt="red")
    assert served.detector.thresholds == [(0.3, 0.7), (0.5, 0.45), (0.5, 0.7)]


def test_the_bytes_of_the_file_are_turned_upright(served: Served) -> None:
    [shape] = predicted(served, base64.b64encode(turned_jpeg()).decode(), text_prompt="red").json()["data"]["shapes"]
    assert sorted(shape["points"]) == [[3, 4], [3, 8], [11, 4], [11, 8]]


WRONG: tuple[tuple[dict[str, Any], int], ...] = (
    ({"model": "other"}, 404),
    ({"model": None}, 404),
    ({"image": "data:image/jpeg;base64,%%%"}, 400),
    ({"image": None}, 400),
    ({"image": base64.b64encode(b"no image").decode()}, 422),
    ({"params": {"text_prompt": " , ; "}}, 400),
    ({"params": {}}, 400),
    ({"params": None}, 400),
    ({"params": []}, 400),
    ({"params": "red"}, 400),
    ({"params": {"text_prompt": "red", "conf_threshold": 5}}, 400),
    ({"params": {"text_prompt": ["red"]}}, 400),
)


@pytest.mark.parametrize(("fields", "status"), WRONG, ids=[str(fields) for fields, _ in WRONG])
def test_an_error_has_a_status_of_its_own(served: Served, as_base64: str, fields: dict[str, Any], status: int) -> None:
    good = {"model": "grounded-seg", "image": as_base64, "params": {"text_prompt": "red"}}
    answer = served.post("/v1/predict", **{**good, **fields})
    content = answer.json()
    assert answer.status_code == status
    assert content["success"] is False
    assert content["error"]["code"]
    assert content["error"]["message"]


def two_parts(settings: ServeSettings, epsilon_factor: float | None) -> list[dict[str, Any]]:
    """The shapes of one object that is a disc and a small square beside it."""
    rows, columns = np.indices((120, 200))
    mask = (rows - 60) ** 2 + (columns - 60) ** 2 < 50**2
    mask[10:20, 150:160] = True
    found = Instance(Detection("car", "car", (10, 10, 160, 110), 0.9), run_length_from_mask(mask), 0.8)
    params = {"text_prompt": "car", "epsilon_factor": epsilon_factor}
    values = {"model": "grounded-seg", "image": base64.b64encode(picture()).decode(), "params": params}
    asked = prediction_from(values, settings)
    image = asked.read()
    other = Instance(Detection("car", "car", (0, 0, 5, 5), 0.7), run_length_from_mask(rows < 1), 0.8)
    result = ImageResult(image.path, image.size, (other, found))
    return list(prediction_answer(asked, image, result)["data"]["shapes"])  # type: ignore[arg-type]


def test_parts_of_an_object_share_a_group_above_0_and_the_client_says_how_simple_they_are() -> None:
    shapes = two_parts(ServeSettings(), None)
    assert [one["group_id"] for one in shapes] == [None, 2, 2]
    simple, simpler = two_parts(ServeSettings(), 0.005), two_parts(ServeSettings(), 0.05)
    n_corners = [sum(len(one["points"]) for one in some) for some in (simple, simpler)]
    assert n_corners[0] > n_corners[1]
    assert all(len(one["points"]) >= 3 for one in simpler)


def test_a_full_queue_is_an_error_that_the_client_sees(start: Start, as_base64: str) -> None:
    served = start(ServeSettings(queue_size=1))
    with served.service.admitted():
        answer = predicted(served, as_base64, text_prompt="red")
    assert (answer.status_code, answer.json()["success"]) == (503, False)
    assert answer.headers["retry-after"] == "1"
    assert predicted(served, as_base64, text_prompt="red").status_code == 200
