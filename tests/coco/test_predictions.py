"""Predictions as a run or another tool writes them: matched with a data set, or refused by file, place and remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, results, truth, written

from grounded_seg.coco.data_set import read_data_set
from grounded_seg.coco.predictions import PredictionFile, read_predictions
from grounded_seg.errors import InputError
from grounded_seg.evaluation.evaluate import EvaluationSettings, evaluate
from grounded_seg.scoring.json_report import report_of

HERE: Box = (10, 10, 40, 40)


def read_found(folder: Path, document: Any, name: str = "found.json", **options: Any) -> PredictionFile:
    return read_predictions(
        written(folder / name, document),
        read_data_set(written(folder / "truth.json", truth((1, 1, HERE), n_images=2))),
        **options,
    )


def run_file(**change: Any) -> dict[str, Any]:
    """What a run writes: its own ids, names that lead to ours."""
    annotation = {
        "id": 1,
        "image_id": 5,
        "category_id": 9,
        "bbox": [11, 11, 38, 38],
        "detector_bbox": list(HERE),
        "segmentation": [],
        "score": 0.5,
        "attributes": {"prompt": "car"},
    }
    images = [{"id": 5, "file_name": "1.png"}, {"id": 6, "file_name": "2.png"}]
    return {"images": images, "categories": [{"id": 9, "name": "car"}], "annotations": [annotation | change]}


def test_a_run_is_matched_by_names(tmp_path: Path) -> None:
    file = read_found(tmp_path, run_file())
    [one] = file.predictions
    assert (one.image_id, one.category_id, one.box_xywh, one.prompt) == (1, 1, HERE, "car")
    assert file.asked == {"car"}
    assert file.notes == ()


def test_a_journal_is_matched_by_names(tmp_path: Path) -> None:
    instance = run_file()["annotations"][0] | {"attributes": {"prompt": "red one"}}
    lines = [
        {"file_name": "sub/1.png", "status": "done", "instances": [instance]},
        {"file_name": "2.png", "status": "skipped", "instances": []},
    ]
    text = "\n".join(map(json.dumps, lines))
    file = read_found(tmp_path, text, "results.jsonl", class_by_prompt={"red one": "car"})
    [one] = file.predictions
    assert (one.image_id, one.category_id, one.prompt) == (1, 1, "red one")
    assert "1 of 2 images has no results, such as '2.png'" in file.notes[0]
    with pytest.raises(InputError, match=r"results.jsonl:1: this is no line of a run's journal"):
        read_found(tmp_path, "{}", "results.jsonl")
    with pytest.raises(InputError, match=r"results.jsonl:1: .*its instances are no list of objects"):
        read_found(tmp_path, '{"file_name": "1.png", "status": "done", "instances": [7]}', "results.jsonl")
    with pytest.raises(InputError, match="isn't among the --prompts"):
        read_found(tmp_path, text, "results.jsonl", class_by_prompt={"other": "car"})


def test_a_journal_whose_run_was_killed_is_read_up_to_there(tmp_path: Path) -> None:
    lines = [{"file_name": f"{number}.png", "status": "done", "instances": []} for number in (1, 2)]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    file = read_found(tmp_path, text[:-9], "results.jsonl")
    assert "the last line is cut off and was left out" in file.notes[0]
    assert "1 of 2 images has no results, such as '2.png'" in file.notes[1]
    assert read_found(tmp_path, text[:-1], "results.jsonl").notes == ()


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "holds no predictions; name a run's annotations.json"),
        (
            [{"image_id": 9, "category_id": 1, "bbox": list(HERE), "score": 1}],
            "[0]: image_id 9 is not among the images of truth.json; correct it",
        ),
        ([{"image_id": 1, "category_id": 1, "bbox": list(HERE)}], "[0]: it has no score"),
        ([{"image_id": 1, "category_id": 1, "score": 1}], "[0]: it has neither bbox nor segmentation"),
        ([7], "[0]: it is no object"),
        (run_file(image_id=99), 'annotations[0]: image_id 99 is not among the file\'s "images"'),
        (run_file(category_id=99), 'annotations[0]: category_id 99 is not among the file\'s "categories"'),
        (run_file(category_id=None), "annotations[0]: it has no category_id; correct it or export"),
        ([{"image_id": 1, "bbox": list(HERE), "score": 1}], "[0]: it has no category_id; correct it or export"),
        (run_file() | {"images": [{"id": 5, "file_name": "other.png"}]}, "is about none of the images of"),
        (
            run_file() | {"images": [{"id": 5, "file_name": "a/1.png"}, {"id": 6, "file_name": "b/1.png"}]},
            "'a/1.png' and 'b/1.png' could both be the data set's '1.png'",
        ),
        (run_file() | {"images": [{"id": 5}]}, "images[0]: it has no file_name"),
    ],
)
def test_predictions_that_mean_nothing_are_refused(tmp_path: Path, document: Any, says: str) -> None:
    with pytest.raises(InputError) as raised:
        read_found(tmp_path, document)
    assert says in str(raised.value)
    assert str(tmp_path / "found.json") in str(raised.value)


def test_predictions_of_unknown_classes_are_left_out_and_said(tmp_path: Path) -> None:
    file = read_found(tmp_path, results((1, 7, HERE, 0.9), (1, 1, HERE, 0.9)))
    assert len(file.predictions) == 1
    assert "classes that truth.json lacks were left out (once, first in [0])" in file.notes[0]


def test_a_class_of_which_nothing_was_found_is_no_root_of_the_predictions(tmp_path: Path) -> None:
    document = truth((1, 1, HERE), (1, 2, HERE), classes=("vehicles", "car"))
    for category, above in zip(document["categories"], ("none", "vehicles"), strict=True):
        category["supercategory"] = above
    path = written(tmp_path / "truth.json", document)
    found = results((1, 2, HERE, 0.9))
    for predictions in (found, document | {"annotations": found}):
        file = written(tmp_path / "found.json", predictions)
        evaluation = evaluate(EvaluationSettings(path, file, 0.3), lambda *_: None)
        assert report_of(evaluation.scores, None, (), {})["boxes"]["AP"] == pytest.approx(0.5)
        assert not any("asked" in note or "parent" in note for note in evaluation.notes)
