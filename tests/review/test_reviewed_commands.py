"""`export` and `eval` of a reviewed run, through the command line."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from review_cases import PARTLY, decide, write_run

from grounded_seg.cli import main
from grounded_seg.export.export import export_labels
from grounded_seg.export.settings import ExportSettings, LabelFormat
from grounded_seg.review.decisions import What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.settings import Reviewed


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give the folder of a run that was decided on."""
    folder = write_run(tmp_path)
    decide(folder)
    return folder


def invoked(*arguments: object) -> Any:
    return CliRunner().invoke(main, [str(one) for one in arguments])


def test_an_export_holds_what_was_accepted_and_tells_the_counts(run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = invoked(
        "export", run, "--to", "coco", "-o", output, "--reviewed", "accepted", "--copy-images", "--seg", "none"
    )
    assert done.exit_code == 0, done.output
    document = json.loads((output / "annotations.json").read_text())
    assert [one["id"] for one in document["annotations"]] == [11, 1, 3, 6]
    assert [one["file_name"] for one in document["images"]] == [
        "added.jpg",
        "empty.jpg",
        "mixed.jpg",
        "partly.jpg",
        "rejected.jpg",
    ]
    assert "note: reviewed (accepted): 4 instances in 5 images; 1 relabelled, 1 added" in done.stderr
    assert "note: left out: undecided 2 images" in done.stderr
    assert "4 labels of 5 images" in done.stdout


@pytest.mark.parametrize("kind", list(LabelFormat))
def test_every_format_takes_a_reviewed_run(run: Path, tmp_path: Path, kind: LabelFormat) -> None:
    report = export_labels(ExportSettings(run, tmp_path / "out", kind, reviewed=Reviewed.ACCEPTED))
    assert (report.n_images, report.n_labels) == (5, 4)
    assert report.review is not None
    assert report.review.n_relabelled == 1


def test_classes_are_those_after_the_review(run: Path, tmp_path: Path) -> None:
    report = export_labels(
        ExportSettings(run, tmp_path / "out", LabelFormat.YOLO, reviewed=Reviewed.ACCEPTED, classes=("van",))
    )
    assert report.n_labels == 1
    done = invoked("export", run, "--to", "yolo", "-o", tmp_path / "no", "--reviewed", "accepted", "--classes", "bus")
    assert done.exit_code == 2
    assert f"{run} has no class bus; it has cat, car, dog, van" in done.stderr


def test_what_cannot_be_exported_is_one_line(run: Path, tmp_path: Path) -> None:
    options = ("--to", "coco", "-o", tmp_path / "out", "--reviewed")
    done = invoked("export", run / "annotations.json", *options, "accepted")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "annotations.json is no folder" in done.stderr
    (run / "review.jsonl").write_text("")
    done = invoked("export", run, *options, "accepted")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
    assert "leaves no image" in done.stderr
    (run / "review.jsonl").write_text("{}\n{}\n")
    done = invoked("export", run, *options, "undecided")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
    assert "review.jsonl:1: this line is damaged" in done.stderr
    (run / "review.jsonl").unlink()
    done = invoked("export", run, *options, "not-rejected")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
    assert "nothing was decided" in done.stderr
    assert not (tmp_path / "out").exists()


def test_an_evaluation_scores_what_was_accepted(run: Path, tmp_path: Path) -> None:
    truth = json.loads((run / "annotations.json").read_text())
    # Of the cats, only those that the reviewer accepted are there.
    truth["annotations"] = [one for one in truth["annotations"] if one["id"] in (1, 6)]
    path, report = tmp_path / "truth.json", tmp_path / "report.json"
    path.write_text(json.dumps(truth))
    figures = {}
    for which in (None, "accepted", "not-rejected", "undecided"):
        more = () if which is None else ("--reviewed", which)
        done = invoked("eval", path, "--predictions", run, "--json", report, *more)
        assert done.exit_code == 0, done.output
        content = json.loads(report.read_text())
        figures[which] = content["boxes"]["AP"]
        assert content["made_with"].get("reviewed") == which
        assert (f"note: reviewed ({which})" in done.stderr) == (which is not None)
    assert figures[None] < figures["not-rejected"] < figures["accepted"] == 1
    assert figures["undecided"] == 0
    done = invoked("eval", path, "--images", run.parent / "images", "--reviewed", "accepted")
    assert done.exit_code == 2
    assert "--reviewed takes a run's folder" in done.stderr
    done = invoked("eval", path, "--predictions", run / "annotations.json", "--reviewed", "accepted")
    assert done.exit_code == 2
    assert "is no folder" in done.stderr


def test_decisions_are_merged_without_a_page(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    with Review(copy, write=True, reviewer="Bob") as review:
        review.decide(What.ACCEPT, PARTLY, [0])
    done = invoked("view", run, "--merge", copy)
    assert done.exit_code == 0, done.output
    assert done.stderr == "note: 1 line merged, 9 were there already\n"
    with Review(run) as review:
        assert all(one.is_accepted for one in review.of(PARTLY))
    done = invoked("view", run, "--merge", tmp_path / "nowhere")
    assert (done.exit_code, done.stderr.count("\n")) == (3, 1)
