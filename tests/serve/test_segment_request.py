"""`POST /v1/segment`: images in each form, answers in each form, and one error for each thing that is wrong."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from fakes import ColourDetector, InnerSegmenter, painted
from serve_cases import GREEN, RED, Served, Start, ThresholdColours, turned_jpeg

from grounded_seg.coco.write import journal_line
from grounded_seg.engine.grounded_segmenter import GroundedSegmenter
from grounded_seg.serve.settings import ServeSettings


def expected(prompts: Any, name: str) -> dict[str, Any]:
    """The journal's line that a run would write."""
    from grounded_seg.records import Image

    image = Image(Path(name), painted(40, 30, red=RED, green=GREEN))
    line = journal_line(name, GroundedSegmenter(ColourDetector(), InnerSegmenter())(image, prompts))
    return dict(json.loads(json.dumps(line)))


def test_a_file_of_a_form_gives_the_line_of_the_journal(served: Served, png: bytes) -> None:
    answer = served.client.post("/v1/segment", files={"file": ("street.png", png)}, data={"prompts": "red car; green"})
    assert answer.status_code == 200
    assert answer.json() == expected("red car; green", "street.png")
    assert len(answer.json()["instances"]) == 2
    assert {part.partition(";")[0].strip() for part in answer.headers["server-timing"].split(",")} == {
        "wait",
        "detect",
        "segment",
    }


@pytest.mark.parametrize("prompts", ["green; red car", ["green", "red car"], {"green": "thing", "red car": "thing"}])
def test_base64_and_prompts_in_each_form(served: Served, as_base64: str, prompts: Any) -> None:
    for image in (as_base64, f"data:image/png;base64,{as_base64}", as_base64[:40] + "\n" + as_base64[40:]):
        answer = served.post(image=image, prompts=prompts, name="a.png")
        assert answer.json() == expected(prompts, "a.png")


def test_prompts_may_have_rules(served: Served, as_base64: str) -> None:
    rules = {"red car": {"class": "car", "threshold": 0.9}, "green": {"not": "blue", "max_detections": 1}}
    answer = served.post(image=as_base64, prompts=rules, format="coco").json()
    assert [one["name"] for one in answer["categories"]] == ["car", "green"]
    assert [one["attributes"]["prompt"] for one in answer["annotations"]] == ["green"]
    wrong = served.post(image=as_base64, prompts={"red car": {"nots": "a"}})
    assert wrong.status_code == 400
    assert "there is no key 'nots' for the prompt 'red car'" in wrong.json()["error"]["message"]
    many = {"red": {"not": [f"thing {number}" for number in range(100)]}}
    refused = served.post(image=as_base64, prompts=many).json()["error"]["message"]
    assert "101 prompts are more than 100" in refused


def test_prompts_of_a_form_may_be_repeated(served: Served, png: bytes) -> None:
    fields = {"prompts": ["red car", "green"]}
    answer = served.client.post("/v1/segment", files={"file": ("a.png", png)}, data=fields)
    assert [one["attributes"]["prompt"] for one in answer.json()["instances"]] == ["red car", "green"]


def test_a_prompt_never_names_a_file(served: Served, as_base64: str, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("red car: car\n")
    answer = served.post(image=as_base64, prompts=f"@{tmp_path / 'classes.yaml'}")
    assert (answer.status_code, answer.json()["instances"]) == (200, [])


def test_coco_is_the_file_that_a_run_would_write(served: Served, as_base64: str) -> None:
    content = served.post(
        image=as_base64, prompts={"red car": "car", "green": "ball"}, format="coco", name="a.png"
    ).json()
    assert [one["name"] for one in content["categories"]] == ["car", "ball"]
    assert content["images"] == [{"id": 1, "file_name": "a.png", "width": 40, "height": 30}]
    assert [(one["id"], one["category_id"]) for one in content["annotations"]] == [(1, 1), (2, 2)]


def test_the_overlay_is_a_png(served: Served, as_base64: str) -> None:
    by_format = served.post(image=as_base64, prompts="red car", format="png")
    by_header = served.client.post(
        "/v1/segment", json={"image": as_base64, "prompts": "red car"}, headers={"Accept": "image/png"}
    )
    for answer in (by_format, by_header):
        assert answer.headers["content-type"] == "image/png"
        with PIL.Image.open(io.BytesIO(answer.content)) as opened:
            assert opened.size == (40, 30)
    assert by_format.content == by_header.content


def test_the_orientation_is_applied(served: Served) -> None:
    answer = served.post(image=base64.b64encode(turned_jpeg()).decode(), prompts="red car").json()
    assert (answer["width"], answer["height"]) == (40, 30)
    [instance] = answer["instances"]
    assert instance["detector_bbox"] == [2, 3, 10, 6]


def test_thresholds_are_those_of_the_call(served: Served, as_base64: str) -> None:
    assert isinstance(served.detector, ThresholdColours)
    assert len(served.post(image=as_base64, prompts="red", score_threshold=0.6).json()["instances"]) == 1
    # Painted rectangles have a score of 2/3.
    answer = served.post(image=as_base64, prompts="red", score_threshold=0.7, iou_threshold=0.4)
    assert answer.json()["instances"] == []
    form = {"prompts": "red", "score_threshold": "0.65"}
    content = base64.b64decode(as_base64)
    assert served.client.post("/v1/segment", files={"file": ("a.png", content)}, data=form).status_code == 200
    assert served.post(image=as_base64, prompts="red").status_code == 200
    assert served.detector.thresholds == [(0.6, 0.7), (0.7, 0.4), (0.65, 0.7), (0.5, 0.7)]


def test_a_path_below_the_root(start: Start, tmp_path: Path, png: bytes) -> None:
    (tmp_path / "photos" / "day 1").mkdir(parents=True)
    (tmp_path / "photos" / "day 1" / "a.png").write_bytes(png)
    served = start(ServeSettings(root=tmp_path / "photos"))
    for path in ("day 1/a.png", "./day 1/../day 1/a.png", str(tmp_path / "photos" / "day 1" / "a.png")):
        answer = served.post(path=path, prompts="red car; green")
        assert answer.json() == expected("red car; green", "day 1/a.png")


def test_paths_outside_of_the_root_are_refused(start: Start, tmp_path: Path, png: bytes) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (tmp_path / "photos-of-others").mkdir()
    (tmp_path / "photos-of-others" / "a.png").write_bytes(png)
    (root / "link.png").symlink_to(tmp_path / "photos-of-others" / "a.png")
    (root / "folder").symlink_to(tmp_path / "photos-of-others")
    served = start(ServeSettings(root=root))
    outside = ("../photos-of-others/a.png", "link.png", "folder/a.png", "/etc/passwd", "../../../etc/passwd")
    for path in outside:
        answer = served.post(path=path, prompts="red")
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden"), path
        assert str(tmp_path) not in answer.text
    for path in ("missing.png", ".", "a\0b.png", "a" * 5000):
        assert served.post(path=path, prompts="red").status_code == 404, path
    (root / "text.png").write_text("no image")
    answer = served.post(path="text.png", prompts="red")
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unreadable_image")
    assert str(tmp_path) not in answer.text


def test_without_a_root_no_file_is_read(served: Served, tmp_path: Path, png: bytes) -> None:
    (tmp_path / "a.png").write_bytes(png)
    answer = served.post(path=str(tmp_path / "a.png"), prompts="red")
    assert answer.status_code == 403
    assert "--root" in answer.json()["error"]["message"]


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"prompts": "red"}, "give the image as one of file, image, path"),
    ({"image": "AAAA", "path": "a.png", "prompts": "red"}, "image and path"),
    ({"image": "not base64!", "prompts": "red"}, "neither base64 nor a data URL"),
    ({"image": "data:image/png;base64", "prompts": "red"}, "neither base64 nor a data URL"),
    ({"image": 3, "prompts": "red"}, "image is no text"),
    ({"file": "AAAA", "prompts": "red"}, "file is no file of a form"),
    ({"image": "GOOD"}, "prompts` is missing"),
    ({"image": "GOOD", "prompts": " ; "}, "the prompt is empty"),
    ({"image": "GOOD", "prompts": []}, "the prompt is empty"),
    ({"image": "GOOD", "prompts": 3}, "prompts are a text"),
    ({"image": "GOOD", "prompts": [3]}, "3 among the prompts is no text"),
    ({"image": "GOOD", "prompts": [f"red {n}" for n in range(101)]}, "101 prompts are more than 100"),
    ({"image": "GOOD", "prompts": "red", "score_threshold": 2}, "score-threshold is 2, it must be between 0 and 1"),
    ({"image": "GOOD", "prompts": "red", "score_threshold": "high"}, "score-threshold is 'high'"),
    ({"image": "GOOD", "prompts": "red", "iou_threshold": -1}, "iou-threshold is -1"),
    ({"image": "GOOD", "prompts": "red", "format": "xml"}, "format is 'xml', it must be one of json, coco, png"),
    ({"image": "GOOD", "prompts": "red", "threshold": 0.5}, "there is no field 'threshold'"),
)


@pytest.mark.parametrize(("fields", "words"), WRONG, ids=[words for _, words in WRONG])
def test_what_is_wrong_is_said(served: Served, as_base64: str, fields: dict[str, Any], words: str) -> None:
    given = {name: as_base64 if value == "GOOD" else value for name, value in fields.items()}
    answer = served.post(**given)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "bad_request")
    assert words in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_said(served: Served, body: bytes) -> None:
    answer = served.client.post("/v1/segment", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_other_content_is_refused(served: Served, png: bytes) -> None:
    assert served.client.post("/v1/segment", content=png, headers={"Content-Type": "image/png"}).status_code == 415
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert served.client.post("/v1/segment", content=b"--x\r\nbroken", headers=broken).status_code == 400
    two = [("file", ("a.png", png)), ("file", ("b.png", png))]
    assert served.client.post("/v1/segment", files=two, data={"prompts": "red"}).status_code == 400


def test_an_image_that_is_none_is_one_error(served: Served, png: bytes) -> None:
    for content in (b"", b"no image", png[: len(png) // 2], b"\x89PNG\r\n\x1a\n" + b"\0" * 100):
        answer = served.client.post("/v1/segment", files={"file": ("a.png", content)}, data={"prompts": "red"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "unreadable_image")
    answer = served.client.post("/v1/segment", files={"file": ("a.png", png)}, data={"prompts": "red"})
    assert answer.status_code == 200


def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(start: Start) -> None:
    content = io.BytesIO()
    PIL.Image.new("1", (6000, 5000)).save(content, "PNG")
    served = start(ServeSettings(max_pixels=1000))
    answer = served.client.post("/v1/segment", files={"file": ("a.png", content.getvalue())}, data={"prompts": "red"})
    assert answer.status_code == 422
    assert "6000 x 5000 px" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", ["../../etc/cron.d/x.png", "C:\\photos\\x.png", "a\nb\x1b[31m/x.png"])
def test_a_name_is_only_a_name(served: Served, png: bytes, name: str) -> None:
    by_name = served.post(image=base64.b64encode(png).decode(), prompts="red", name=name)
    assert by_name.json()["file_name"] == "x.png"
