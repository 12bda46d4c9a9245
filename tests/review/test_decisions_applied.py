"""What decisions leave of a run: instances, images, ids, classes and counts, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from review_cases import LINES, MIXED, SKIPPED, decide, instance, line, write_run

from grounded_seg.errors import InputError, OutputError, UsageError
from grounded_seg.review.decisions import What
from grounded_seg.review.decisions_applied import check_reviewable, reviewed_file
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.journal import text_of
from grounded_seg.settings import Reviewed


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give the folder of a run that was decided on."""
    folder = write_run(tmp_path)
    decide(folder)
    return folder


def left(run: Path, which: Reviewed) -> tuple[dict[str, Any], list[str]]:
    """Document and counts."""
    with reviewed_file(run, which) as (path, counts):
        document = json.loads(path.read_text())
        lines = list(counts.lines())
    assert not path.exists()
    return document, lines


def found(document: dict[str, Any]) -> dict[str, list[tuple[int, str]]]:
    """Id and class of each instance, by image."""
    names = {one["id"]: one["name"] for one in document["categories"]}
    files = {one["id"]: one["file_name"] for one in document["images"]}
    by_image: dict[str, list[tuple[int, str]]] = {name: [] for name in files.values()}
    for one in document["annotations"]:
        by_image[files[one["image_id"]]].append((one["id"], names[one["category_id"]]))
    return by_image


def test_accepted_ones_only_and_images_of_which_all_were_rejected(run: Path) -> None:
    document, lines = left(run, Reviewed.ACCEPTED)
    assert found(document) == {
        "added.jpg": [(11, "dog")],
        "empty.jpg": [],
        "mixed.jpg": [(1, "cat"), (3, "van")],
        "partly.jpg": [(6, "cat")],
        "rejected.jpg": [],
    }
    assert [one["name"] for one in document["categories"]] == ["cat", "car", "dog", "van"]
    assert lines == [
        "reviewed (accepted): 4 instances in 5 images; 1 relabelled, 1 added",
        "left out: instances below a threshold 2, rejected 3, undecided 2",
        "left out: undecided 2 images",
        "1 image with accepted instances also had undecided ones, which look like background now; decide on them first "
        "where that matters",
    ]


def test_those_not_rejected_and_all_images(run: Path) -> None:
    document, lines = left(run, Reviewed.NOT_REJECTED)
    assert found(document) == {
        "added.jpg": [(11, "dog")],
        "empty.jpg": [],
        "mixed.jpg": [(1, "cat"), (3, "van")],
        "partly.jpg": [(5, "cat"), (6, "cat")],
        "rejected.jpg": [],
        "sub/unseen.jpg": [(9, "cat")],
        "unseen_empty.jpg": [],
    }
    assert lines == [
        "reviewed (not-rejected): 6 instances in 7 images; 1 relabelled, 1 added",
        "left out: instances below a threshold 2, rejected 3",
    ]


def test_those_undecided_and_the_images_that_somebody_has_to_look_at(run: Path) -> None:
    document, lines = left(run, Reviewed.UNDECIDED)
    assert found(document) == {"partly.jpg": [(5, "cat")], "sub/unseen.jpg": [(9, "cat")], "unseen_empty.jpg": []}
    assert lines == [
        "reviewed (undecided): 2 instances in 3 images",
        "left out: instances accepted 4, below a threshold 2, rejected 3",
        "left out: settled 4 images",
    ]


def test_ids_and_keys_are_those_of_the_run(run: Path) -> None:
    own = json.loads((run / "annotations.json").read_text())
    document, _ = left(run, Reviewed.NOT_REJECTED)
    by_id = {one["id"]: one for one in own["annotations"]}
    for one in document["annotations"]:
        if one["id"] in by_id:
            assert one.keys() == by_id[one["id"]].keys()
            assert {**one, "category_id": 0} == {**by_id[one["id"]], "category_id": 0}
    assert [one for one in own["images"] if one in document["images"]] == document["images"]
    assert document["categories"][:2] == own["categories"]


def test_a_run_whose_every_instance_is_accepted_is_its_own_file(tmp_path: Path) -> None:
    run = write_run(tmp_path)
    with Review(run, write=True) as review:
        for one in LINES:
            if one is not SKIPPED:
                review.decide(What.ACCEPT, one, range(len(one["instances"])))
    with reviewed_file(run, Reviewed.ACCEPTED) as (path, _):
        assert path.read_bytes() == (run / "annotations.json").read_bytes()


def test_an_unfinished_run_is_read_as_far_as_it_goes(run: Path) -> None:
    (run / "annotations.json").unlink()
    whole, _ = left(run, Reviewed.ACCEPTED)
    with (run / "results.jsonl").open("a") as journal:
        journal.write(text_of(line("z.jpg", instance(3)))[:-20])
    assert left(run, Reviewed.ACCEPTED)[0] == whole


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([one for one in LINES if one is not MIXED], r"review.jsonl:2: the run has no image 'mixed.jpg'"),
        (
            [line("mixed.jpg", instance(1)) if one is MIXED else one for one in LINES],
            r"review.jsonl:3: 'mixed.jpg' has no instance 1",
        ),
    ],
)
def test_decisions_about_another_run_are_refused(run: Path, lines: list[Any], message: str) -> None:
    (run / "results.jsonl").write_text("".join(f"{text_of(one)}\n" for one in lines))
    with pytest.raises(InputError, match=message), reviewed_file(run, Reviewed.ACCEPTED):
        pass


def test_a_prompt_that_the_manifest_lacks_is_told(run: Path) -> None:
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace('"red car"', '"blue car"'))
    with pytest.raises(InputError, match="the journal has the prompt 'red car'"), reviewed_file(run, Reviewed.ACCEPTED):
        pass


def test_only_the_folder_of_a_run_can_be_reviewed(run: Path) -> None:
    check_reviewable(run)
    with pytest.raises(UsageError, match="is no folder"):
        check_reviewable(run / "annotations.json")
    with pytest.raises(UsageError, match="no run is at"):
        check_reviewable(run / "nowhere")
    (run / "review.jsonl").unlink()
    with pytest.raises(InputError, match="nothing was decided"), reviewed_file(run, Reviewed.ACCEPTED):
        pass


def test_a_full_disk_is_told(run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="TMPDIR"), reviewed_file(run, Reviewed.ACCEPTED):
        pass
