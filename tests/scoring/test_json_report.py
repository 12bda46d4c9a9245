"""The report of `eval --json`: there and back, written whole or not at all, and the hash of its truth."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import Box, results, scored, truth, written
from eval_cases import fill_the_disk, grounded_seg

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.errors import OutputError
from grounded_seg.geometry.masks import coco_from_run_length
from grounded_seg.scoring.average_precision import FIGURES
from grounded_seg.scoring.json_report import read_report, report_of, truth_sha256, write_report

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def test_a_report_comes_back_whole(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (2, 2, FAR), n_images=3)
    scores = scored(tmp_path, document, results((1, 1, HERE, 0.9), (3, 2, FAR, 0.4)), n_resamples=3)
    report = report_of(scores, {"images_per_s": 2.0}, ("a note",), {"predictions": "found.json"})
    saved = read_report(written(tmp_path / "report.json", json.dumps(report, allow_nan=False)))
    assert saved.file_names == ("1.png", "2.png", "3.png")
    assert set(saved.matches) == {"boxes", "masks"}
    for name, stage in scores.stages().items():
        for column, array in vars(stage.matches).items():
            if column != "index":
                assert np.array_equal(getattr(saved.matches[name], column), array), column
        assert saved.matches[name].index == stage.matches.index
    for column, array in vars(scores.tallies).items():
        assert np.array_equal(getattr(saved.tallies, column), array), column


def test_the_parts_of_a_report(tmp_path: Path) -> None:
    scores = scored(tmp_path, truth((1, 1, HERE)), results((1, 1, HERE, 0.9)))
    report: dict[str, Any] = report_of(scores, None, (), {"predictions": "found.json"})
    assert report["made_with"] == {"predictions": "found.json"}
    assert {"boxes", "masks", "presence", "calibration", "errors"} <= set(report)
    assert not {"masks_given_true_boxes", "speed", "intervals"} & set(report)
    assert [report["boxes"][name] is None for name in FIGURES].count(True) == 4
    assert report["boxes"]["AP_large"] is None
    assert [one["name"] for one in report["boxes"]["per_class"]] == ["car", "dog"]


def test_a_full_disk_leaves_the_older_report_and_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth_file = written(tmp_path / "truth.json", truth((1, 1, HERE)))
    found = written(tmp_path / "found.json", results((1, 1, HERE, 0.9)))
    report = written(tmp_path / "report.json", "old")
    fill_the_disk(monkeypatch)
    outcome = grounded_seg("eval", truth_file, "--predictions", found, "--json", report)
    assert outcome.exit_code == 1
    [line] = [line for line in outcome.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: {report} can't be written (No space left on device)")
    assert "name another file with --json" in line
    assert report.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "report.json", "truth.json"]


def test_a_report_makes_its_folder_or_says_why_not(tmp_path: Path) -> None:
    write_report({"boxes": {}}, tmp_path / "new" / "report.json")
    assert json.loads((tmp_path / "new" / "report.json").read_text()) == {"boxes": {}}
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file can't be written .*; .*another file with --json"):
        write_report({}, tmp_path / "file" / "report.json")


@pytest.mark.parametrize(
    "change",
    [
        {"bbox": [10, 10, 40, 41]},
        {"area": 1},
        {"iscrowd": 1},
        {"segmentation": [[10, 10, 50, 10, 50, 50]]},
        {"category_id": 2},
    ],
)
def test_the_hash_of_a_truth_is_moved_by_all_that_is_measured(tmp_path: Path, change: dict[str, Any]) -> None:
    document = truth((1, 1, (10, 10, 40, 40)))
    before = truth_sha256(read_data_set(written(tmp_path / "truth.json", document)))
    document["annotations"][0] |= change
    assert truth_sha256(read_data_set(written(tmp_path / "truth.json", document))) != before


def test_the_hash_of_a_truth_takes_any_way_to_write_it(tmp_path: Path) -> None:
    document = truth((1, 1, (10, 10, 40, 40)), (2, 2, (5, 5, 20, 20)), n_images=2)
    data_set = read_data_set(written(tmp_path / "truth.json", document))
    before, mask = truth_sha256(data_set), data_set.objects[1].mask
    assert mask is not None
    document["images"].reverse()
    document["annotations"].reverse()
    document["annotations"][0]["bbox"] = "5 5 20 20"
    document["annotations"][0]["segmentation"] = coco_from_run_length(mask)
    assert truth_sha256(read_data_set(written(tmp_path / "truth.json", document))) == before
