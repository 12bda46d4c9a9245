"""The demo's bare base learns a kind that it doesn't know: the loop of `benchmarks/train_unknown_kind.py`, small."""

import json
from pathlib import Path

import pytest

from grounded_seg.scenes import Split
from grounded_seg.settings import ModelSettings
from grounded_seg.train import TrainSettings, evaluate, train
from grounded_seg.train.settings import Part

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


def only_cars(path: Path) -> None:
    """Leave one class in a COCO file; what shows none is a background image."""
    document = json.loads(path.read_text())
    [car] = [one for one in document["categories"] if one["name"] == "car"]
    annotations = [one for one in document["annotations"] if one["category_id"] == car["id"]]
    path.write_text(json.dumps({**document, "categories": [car], "annotations": annotations}))


@pytest.mark.slow
def test_cars_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from train_unknown_kind import render

    for name, n_scenes in (("train", 48), ("valid", 8), ("test", 8)):
        render(tmp_path / "scenes" / name, Split[name.upper()], n_scenes, smallest=0.2)
        only_cars(tmp_path / "scenes" / name / "_annotations.coco.json")
    settings = TrainSettings(
        dataset=tmp_path / "scenes",
        output=tmp_path / "run",
        models=ModelSettings("demo", device="cpu"),
        parts=frozenset({Part.LANGUAGE, Part.VISION, Part.PROJECTOR}),
        batch_size=8,
        epochs=20,
        lr=2e-3,
        dropout=0.0,
        augment=False,
        eval_images=2,
        report=False,
    )
    report = train(settings)
    before, after = (evaluate(settings, result, split="train") for result in (None, report.result))
    rows = [json.loads(line) for line in report.folder.metrics.read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert before["AP50"] < 0.1
    assert after["AP50"] > 0.5
    # Not only in the right order, but with scores that `run` takes.
    assert after["present_rate"] > 0.7
    assert after["absent_rate"] < 0.2
