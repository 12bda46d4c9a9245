"""A reviewed run as a data set: answers, negatives, what stays out, and what is told."""

from pathlib import Path

import PIL.Image
import pytest
from review_cases import MIXED, PARTLY, decide, write_run

from grounded_seg.errors import InputError, UsageError
from grounded_seg.review.decisions import What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.settings import Reviewed
from grounded_seg.train import TrainSettings
from grounded_seg.train.data.data_set import read_training_data
from grounded_seg.train.data.questions import training_plan
from grounded_seg.train.data.records import BoxExample, TrainingData


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Give the folder of a run that was decided on."""
    folder = write_run(tmp_path)
    decide(folder)
    return folder


def settings(run: Path, **more: bool) -> TrainSettings:
    return TrainSettings(dataset=run, output=run / "tuned", reviewed=Reviewed.ACCEPTED, split=(40, 30, 30), **more)


def examples(data: TrainingData) -> dict[str, tuple[list[tuple[str, float]], set[str]]]:
    """Labels and left edges, and what was rejected, by the image's name; of all splits."""
    found = [one for split in data.splits.values() for one in split.examples]
    return {
        one.image.name: ([(box.label, box.box_xyxy[0]) for box in one.boxes], set(one.rejected))
        for one in found
        if isinstance(one, BoxExample)
    }


def test_accepted_boxes_are_answers_and_what_was_rejected_alone_is_a_negative(run: Path) -> None:
    data = read_training_data(settings(run))
    # The only prompt of its class is what a class is asked for by; the relabelled one has a class of its own.
    assert examples(data) == {
        "added.jpg": ([("dog", 33.0)], set()),
        "empty.jpg": ([], set()),
        "mixed.jpg": ([("a cat", 1.0), ("van", 40.0)], set()),
        "rejected.jpg": ([], {"a cat"}),
    }
    assert data.classes == ("a cat", "dog", "van")
    assert data.notes == (
        "reviewed: 3 accepted boxes (1 relabelled, 1 added) and 3 rejected ones of 4 images, 2 of these without "
        "objects; 1 negatives that only rejected boxes answered; 3 images on which something is left to decide stay "
        "out",
    )
    assert data.faults == ()


def test_the_detectors_boxes_are_learnt_and_not_those_of_the_masks(run: Path) -> None:
    """The mask may lack a part of the object."""
    journal = run / "results.jsonl"
    journal.write_text(journal.read_text().replace('"detector_bbox": [1,', '"detector_bbox": [3,'))
    assert examples(read_training_data(settings(run)))["mixed.jpg"][0] == [("a cat", 3.0), ("van", 40.0)]


def test_a_rejected_prompt_is_asked_in_every_epoch(run: Path) -> None:
    data = read_training_data(settings(run))
    rejected = [one for split in data.splits.values() for one in split.examples if one.image.name == "rejected.jpg"]
    plan = training_plan(TrainingData(*[type(data.train)(tuple(rejected))] * 3, data.classes), settings(run))
    for epoch in range(3):
        assert ("a cat", "") in [(one.prompt, one.answer) for one in plan.epoch(epoch)]


def test_a_prompt_is_its_class_where_the_class_has_several(run: Path) -> None:
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace('"red car": "car"', '"red car": "car", "blue car": "car"'))
    with Review(run, write=True) as review:
        review.decide(What.REJECT, MIXED, [0])
        review.decide(What.ACCEPT, MIXED, [2, 3])
        review.decide(What.REJECT, PARTLY, [0])
    found = examples(read_training_data(settings(run)))
    assert found["mixed.jpg"] == ([("car", 40.0), ("car", 60.0)], {"a cat"})
    assert found["partly.jpg"] == ([("a cat", 20.0)], set())


def test_an_image_that_is_gone_or_changed_is_left_out(run: Path) -> None:
    images = run.parent / "images"
    (images / "rejected.jpg").unlink()
    PIL.Image.new("RGB", (80, 100)).save(images / "mixed.jpg")
    (images / "extra.jpg").touch()
    with Review(run, write=True) as review:
        review.decide(What.REJECT, PARTLY, [0])
    data = read_training_data(settings(run))
    assert set(examples(data)) == {"added.jpg", "empty.jpg", "partly.jpg"}
    first, second = sorted(map(str, data.faults))
    assert first.startswith(f"{run / 'review.jsonl'} (mixed.jpg): ")
    assert second.startswith(f"{run / 'review.jsonl'} (rejected.jpg): ")
    with pytest.raises(InputError, match=r"\(mixed.jpg\)"):
        read_training_data(settings(run, strict=True))


def test_what_is_no_reviewed_run_is_refused(run: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        read_training_data(settings(run / "annotations.json"))
    with pytest.raises(UsageError, match="reviewed is undecided"):
        TrainSettings(dataset=run, output=run, reviewed=Reviewed.UNDECIDED)
    (run / "review.jsonl").write_text("")
    with pytest.raises(InputError, match="something to decide on every image"):
        read_training_data(settings(run))
    (run / "review.jsonl").unlink()
    with pytest.raises(InputError, match="nothing was decided"):
        read_training_data(settings(run))
    manifest = run / "run.json"
    manifest.write_text(manifest.read_text().replace(str(run.parent / "images"), "s3://bucket/images"))
    with pytest.raises(UsageError, match="s3://bucket/images"):
        read_training_data(settings(run))
