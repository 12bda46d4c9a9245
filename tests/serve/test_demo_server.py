"""A server of the demo: its answers are those of a run, whatever else it is asked at the time."""

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from paths import ROOT
from starlette.testclient import TestClient

from grounded_seg.cli import main
from grounded_seg.geometry.masks import mask_iou, run_length_from_coco

SCENES = sorted((ROOT / "examples").glob("scene-*.jpg"))
PROMPTS = "car; ball; tree"


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The lines of a run, by name."""
    folder = tmp_path_factory.mktemp("run")
    where = ["--preset", "demo", "--device", "cpu", "--dtype", "float32", "-o", str(folder), "--overwrite"]
    result = CliRunner().invoke(main, ["run", PROMPTS, *map(str, SCENES), *where, "--save", "none"])
    assert result.exit_code == 0, result.output
    found = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    assert sum(len(line["instances"]) for line in found) > 0
    return {line["file_name"]: line for line in found}


def same(line: Any, other: Any) -> None:
    """One image alone, or in a batch: its numbers differ in their last bits."""
    assert len(line["instances"]) == len(other["instances"])
    for one, two in zip(line["instances"], other["instances"], strict=True):
        assert one["attributes"]["prompt"] == two["attributes"]["prompt"]
        assert one["attributes"]["label"] == two["attributes"]["label"]
        assert one["score"] == pytest.approx(two["score"], abs=1e-4)
        assert one["detector_bbox"] == pytest.approx(two["detector_bbox"], abs=0.01)
        [[iou]] = mask_iou(*([run_length_from_coco(each["segmentation"])] for each in (one, two))).tolist()
        assert iou > 0.999


def asked(demo: TestClient, path: Path) -> Any:
    answer = demo.post("/v1/segment", files={"file": (path.name, path.read_bytes())}, data={"prompts": PROMPTS})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_one_after_the_other_and_all_at_once(demo: TestClient, lines: dict[str, Any]) -> None:
    for path in SCENES:
        same(asked(demo, path), lines[path.name])
    answers: dict[int, Any] = {}
    chosen = [SCENES[number % len(SCENES)] for number in range(6)]

    def ask(number: int) -> None:
        answers[number] = asked(demo, chosen[number])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(chosen))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for number, path in enumerate(chosen):
        same(answers[number], lines[path.name])


def test_a_prompt_that_is_too_long_for_the_model_is_an_error_of_its_own(demo: TestClient) -> None:
    fields = {"path": None, "image": _base64(SCENES[0]), "prompts": "car " * 3000}
    answer = demo.post("/v1/segment", json=fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert demo.post("/v1/segment", json={**fields, "prompts": "car"}).status_code == 200


def test_the_thresholds_of_a_call(demo: TestClient) -> None:
    fields = {"image": _base64(SCENES[0]), "prompts": "car; ball"}
    few, many = (
        demo.post("/v1/segment", json={**fields, "score_threshold": limit, "iou_threshold": 1.0}).json()
        for limit in (0.9, 0.05)
    )
    assert len(few["instances"]) <= len(many["instances"])
    assert all(one["score"] >= 0.9 for one in few["instances"])


def _base64(path: Path) -> str:
    import base64

    return base64.b64encode(path.read_bytes()).decode()
