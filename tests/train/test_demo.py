"""The demo's bare base learns a kind that it doesn't know: the loop of `benchmarks/train_unknown_kind.py`, small."""

import json
from pathlib import Path

import pytest
from paths import ROOT

from grounded_seg.scenes import Split
from grounded_seg.settings import ModelSettings, Precision
from grounded_seg.train import TrainSettings, evaluate, train
from grounded_seg.train.settings import Part

BENCHMARKS = ROOT / "benchmarks"


def only_cars(path: Path, n_background: int) -> None:
    """Leave one class in a COCO file, the images that show it, and some that don't."""
    document = json.loads(path.read_text())
    [car] = [one for one in document["categories"] if one["name"] == "car"]
    annotations = [one for one in document["annotations"] if one["category_id"] == car["id"]]
    shown = {one["image_id"] for one in annotations}
    background = [one for one in document["images"] if one["id"] not in shown][:n_background]
    images = [one for one in document["images"] if one["id"] in shown] + background
    path.write_text(json.dumps({"categories": [car], "images": images, "annotations": annotations}))


@pytest.mark.slow
def test_cars_are_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from train_unknown_kind import render

    # Learnt by heart: what is measured are the first scenes of those that are learnt from.
    for name, n_scenes, n_background in (("train", 40, 10), ("valid", 12, 4), ("test", 12, 4)):
        render(tmp_path / "scenes" / name, Split.TRAIN, n_scenes, smallest=0.2)
        only_cars(tmp_path / "scenes" / name / "_annotations.coco.json", n_background)
    settings = TrainSettings(
        dataset=tmp_path / "scenes",
        output=tmp_path / "run",
        models=ModelSettings("demo", device="cpu", dtype=Precision.FLOAT32),
        parts=frozenset({Part.LANGUAGE, Part.VISION, Part.PROJECTOR}),
        batch_size=8,
        epochs=24,
        lr=1e-3,
        rank=32,
        alpha=64.0,
        dropout=0.0,
        augment=False,
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
