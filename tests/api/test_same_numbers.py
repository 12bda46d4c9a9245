"""`GroundedSegmenter` gives, with the demo, exactly what `run` writes for the same settings."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from eval_cases import grounded_seg as command
from paths import ROOT

from grounded_seg import GroundedSegmenter, ImageSkipped
from grounded_seg.coco.write import annotation_from_instance

EXAMPLES = ROOT / "examples"
PROMPTS = "red car; ball; house; tree"
SAME_ANYWHERE = ("--preset", "demo", "--device", "cpu", "--dtype", "float32")

pytestmark = pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")


@pytest.fixture(scope="module")
def demo() -> GroundedSegmenter:
    return GroundedSegmenter.from_preset("demo", device="cpu", dtype="float32")


def run(folder: Path, *words: object) -> dict[str, Any]:
    """The COCO file of a run."""
    done = command("run", PROMPTS, *words, *SAME_ANYWHERE, "--save", "none", "-o", folder)
    assert done.exit_code == 0, done.stderr
    document: dict[str, Any] = json.loads((folder / "annotations.json").read_text())
    return document


def without_ids(document: dict[str, Any]) -> list[dict[str, Any]]:
    ids = ("id", "image_id", "category_id")
    return [{key: value for key, value in one.items() if key not in ids} for one in document["annotations"]]


@pytest.mark.parametrize("score_threshold", [0.0, 0.2, 0.9])
def test_the_threshold_of_a_call_is_that_of_the_command(
    demo: GroundedSegmenter, tmp_path: Path, score_threshold: float
) -> None:
    """Also below the one that the models were loaded with, where duplicates are chosen among more boxes."""
    folder = tmp_path / "run"
    expected = run(folder, EXAMPLES, "--score-threshold", score_threshold, "--batch-size", 2)
    outcomes = list(demo.stream(EXAMPLES, PROMPTS, batch_size=2, score_threshold=score_threshold))
    found = [
        annotation_from_instance(one) for result in outcomes if not isinstance(result, ImageSkipped) for one in result
    ]
    assert [{**one} for one in found] == without_ids(expected)
    assert [one.path.name for one in outcomes] == [image["file_name"] for image in expected["images"]]


def test_settings_as_keywords_are_those_of_the_command(tmp_path: Path) -> None:
    path = EXAMPLES / "scene-1.jpg"
    words = ("--score-threshold", 0.2, "--nms", "none", "--clean", "--multimask", "--tile", 320, "--overlap", 0.3)
    run(tmp_path / "run", path, *words)
    segmenter = GroundedSegmenter.from_preset(
        "demo", device="cpu", dtype="float32", score_threshold=0.2, nms="none", clean=True, multimask=True, tile=320,
        overlap=0.3,
    )  # fmt: skip
    saved = segmenter(path, PROMPTS).save(tmp_path / "saved.json")
    assert saved.read_bytes() == (tmp_path / "run" / "annotations.json").read_bytes()


def test_each_form_of_an_image_gives_the_numbers_of_the_file(demo: GroundedSegmenter) -> None:
    torch = pytest.importorskip("torch")
    path = EXAMPLES / "scene-1.jpg"
    with PIL.Image.open(path) as opened:
        pixels = np.asarray(opened)
        forms = [path.read_bytes(), opened, pixels, torch.tensor(pixels), torch.tensor(pixels).permute(2, 0, 1)]
        results = [demo(form, PROMPTS) for form in forms]
    expected = demo(path, PROMPTS)
    assert len(expected)
    assert all(result.instances == expected.instances for result in results)
