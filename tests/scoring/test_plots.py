"""What stands on the plots of an evaluation: order of classes, counts, one scale, and legends beside the lines."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.predictions import read_predictions
from grounded_seg.scoring.measure import score
from grounded_seg.scoring.plots import write_plots

figure = pytest.importorskip("matplotlib.figure", reason="matplotlib isn't installed")
NAMES = ("zebra", "ant", "mole")
"""Mole has most objects, then zebra; this is the order of the tables."""
OBJECTS = {"zebra": 2, "ant": 1, "mole": 3}


@pytest.fixture
def axes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the axes of each plot: every object is found, one of them as another class, and one box is on nothing."""
    document: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.png", "width": 1000, "height": 100}],
        "categories": [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)],
        "annotations": [],
    }
    found: list[dict[str, Any]] = []
    for number, name in enumerate(name for name, n in OBJECTS.items() for _ in range(n)):
        box = {"image_id": 1, "category_id": NAMES.index(name) + 1, "bbox": [100 * number, 10, 50, 50]}
        document["annotations"].append(box | {"id": number + 1, "area": 2500, "iscrowd": 0})
        found.append(box | {"score": 0.97})
    found[-1]["category_id"] = 1
    found.append({"image_id": 1, "category_id": 2, "bbox": [900, 40, 50, 50], "score": 0.03})
    truth, predicted = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps(document))
    predicted.write_text(json.dumps(found))
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path, **_: drawn.setdefault(path.stem, self.axes))
    data_set = read_data_set(truth)
    write_plots(score(data_set, read_predictions(predicted, data_set).predictions, score_threshold=0.5), tmp_path)
    return {name.removesuffix("-boxes"): parts for name, parts in drawn.items()}


def test_curves_are_in_the_order_of_the_tables_with_the_legend_beside_them(axes: dict[str, Any]) -> None:
    [one] = axes["precision-recall"]
    legend = one.get_legend()
    names = [text.get_text().split()[0] for text in legend.get_texts()]
    assert names == [*NAMES, "all"]
    assert legend.get_bbox_to_anchor().x0 > one.bbox.x1


def test_each_bar_of_scores_has_its_number_and_a_single_one_can_be_seen(axes: dict[str, Any]) -> None:
    [one] = axes["scores"]
    assert sorted(text.get_text() for text in one.texts if text.get_text()) == ["1", "1", "5"]
    assert one.get_yscale() == "log"
    assert one.get_ylim()[0] < 1
    assert one.get_legend().get_bbox_to_anchor().y1 < one.bbox.y0


def test_the_confusion_has_counts_and_one_scale_with_its_bar(axes: dict[str, Any]) -> None:
    matrix, bar = axes["confusion"]
    assert bar.get_ylabel() == "share of the row"
    [image] = matrix.get_images()
    assert image.get_clim() == (0, 1)
    assert np.asarray(image.get_array()).round(2).tolist()[2] == [0.33, 0, 0.67, 0]
    assert {text.get_text() for text in matrix.texts} == {"2", "1"}
    assert [text.get_text() for text in matrix.get_yticklabels()] == [*NAMES, "nothing"]


def test_every_plot_has_a_title_and_says_what_its_axes_are(axes: dict[str, Any]) -> None:
    assert len(axes) == 4
    for parts in axes.values():
        assert parts[0].get_title()
        assert parts[0].get_xlabel()
        assert parts[0].get_ylabel()
