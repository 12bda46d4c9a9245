"""Matching and figures against pycocotools itself, figure by figure, on files and on made-up hard cases."""

import contextlib
import copy
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import columns, records
from hypothesis import given, settings
from hypothesis import strategies as st
from paths import unpacked
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from grounded_seg.coco.data_set import DataSet
from grounded_seg.coco.schema import Kind
from grounded_seg.scoring.average_precision import FIGURES, SizeRanges, evaluate, precision_recall, twelve_figures
from grounded_seg.scoring.matching import match


def loaded(name: str) -> Any:
    return json.loads(unpacked(name).read_text())


def directly(truth: dict[str, Any], answers: list[dict[str, Any]], kind: Kind) -> list[float | None]:
    """The twelve figures of pycocotools alone; None for its -1."""
    with contextlib.redirect_stdout(io.StringIO()):
        index = COCO()
        index.dataset = copy.deepcopy(truth)
        index.createIndex()
        evaluation = COCOeval(index, index.loadRes(copy.deepcopy(answers)), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [None if value == -1 else value for value in evaluation.stats.tolist()]


def ours(truth: dict[str, Any], answers: list[dict[str, Any]], kind: Kind) -> list[float | None]:
    summary = evaluate(*records(truth, answers), kind)
    return [getattr(summary, name) for name in FIGURES]


def assert_equal(truth: dict[str, Any], answers: list[dict[str, Any]], kind: Kind) -> None:
    for name, one, other in zip(FIGURES, ours(truth, answers, kind), directly(truth, answers, kind), strict=True):
        assert (one is None) == (other is None), name
        if one is not None and other is not None:
            assert one == pytest.approx(other, abs=1e-12), name


def perturbed(truth: dict[str, Any], kind: Kind) -> list[dict[str, Any]]:
    """Predictions from the truth: some missing, some of another class, some twice, boxes moved; crowds too."""
    rng = np.random.default_rng(0)
    category_ids = [category["id"] for category in truth["categories"]]
    answers = []
    for one in truth["annotations"]:
        for _ in range(int(rng.integers(0, 3))):
            answer = {
                "image_id": one["image_id"],
                "category_id": int(rng.choice(category_ids)) if rng.random() < 0.2 else one["category_id"],
                # Few distinct scores, so that there are ties.
                "score": round(float(rng.random()), 1),
            }
            if kind == "bbox":
                answer["bbox"] = (np.array(one["bbox"]) * rng.uniform(0.85, 1.15, 4)).tolist()
            else:
                other = truth["annotations"][int(rng.integers(len(truth["annotations"])))]
                same = other["image_id"] == one["image_id"] and rng.random() < 0.5
                answer["segmentation"] = (other if same else one)["segmentation"]
            answers.append(answer)
    return answers


def test_the_official_example_equals_pycocotools() -> None:
    assert_equal(
        loaded("coco/instances_val2014_100.json"),
        loaded("coco/instances_val2014_fakebbox100_results.json"),
        "bbox",
    )


def test_the_official_boxes_equal_pycocotools_as_masks() -> None:
    truth = loaded("coco/instances_val2014_100.json")
    answers = loaded("coco/instances_val2014_fakebbox100_results.json")
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    for one in answers:
        [one["segmentation"]] = coco_mask.frPyObjects(np.array([one.pop("bbox")]), *sizes[one["image_id"]])
    # Objects are polygons and crowds plain run lengths, of images of many sizes.
    assert_equal(truth, answers, "segm")


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("file", ["photos/instances.json", "nuts/trainval.json"])
def test_real_annotations_equal_pycocotools(file: str, kind: Kind) -> None:
    truth = loaded(file)
    # pycocotools takes the id 0 for "not matched"; evaluate() has to be right there, so number from 1 for both.
    truth["annotations"] = [one | {"id": number} for number, one in enumerate(truth["annotations"], start=1)]
    index = COCO()
    index.dataset = copy.deepcopy(truth)
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    if kind == "segm":
        for one in truth["annotations"]:
            one["segmentation"] = index.annToRLE(one)
    assert_equal(truth, perturbed(truth, kind), kind)


def boxes() -> st.SearchStrategy[list[int]]:
    # On a coarse grid, so that equal overlaps, and overlaps that are a threshold exactly, are common.
    place, side = st.integers(0, 3).map(lambda n: 20 * n), st.sampled_from([20, 30, 40, 100])
    return st.tuples(place, place, side, side).map(list)


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    truths = draw(st.lists(st.tuples(boxes(), st.integers(1, 2), st.integers(1, 2), st.booleans()), max_size=8))
    answers = draw(
        st.lists(st.tuples(boxes(), st.integers(1, 2), st.integers(1, 2), st.sampled_from([0.2, 0.5, 0.9])), min_size=1)
    )
    truth = {
        "images": [{"id": number, "file_name": f"{number}.png", "width": 200, "height": 200} for number in (1, 2)],
        "categories": [{"id": number, "name": f"class {number}"} for number in (1, 2)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": box[2] * box[3],
                "iscrowd": int(is_crowd),
            }
            for number, (box, image, category, is_crowd) in enumerate(truths, start=1)
        ],
    }
    return truth, [
        {"image_id": image, "category_id": category, "bbox": box, "score": score}
        for box, image, category, score in answers
    ]


@given(cases())
@settings(max_examples=60, deadline=None)
def test_made_up_cases_equal_pycocotools(case: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
    assert_equal(*case, "bbox")


def test_more_than_a_hundred_of_a_class_are_cut_as_pycocotools_does() -> None:
    side = 10
    grid = [[side * column, side * row, side, side] for row in range(12) for column in range(10)]
    truth = {
        "images": [{"id": 1, "file_name": "1.png", "width": 200, "height": 200}],
        "categories": [{"id": 1, "name": "cell"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": side**2, "iscrowd": 0}
            for number, box in enumerate(grid, start=1)
        ],
    }
    answers = [
        {"image_id": 1, "category_id": 1, "bbox": box, "score": 1 - number / 1000} for number, box in enumerate(grid)
    ]
    assert_equal(truth, answers, "bbox")
    assert ours(truth, answers, "bbox")[FIGURES.index("AR100")] == pytest.approx(100 / 120)


@given(cases(), st.lists(st.integers(0, 3), min_size=2, max_size=2))
@settings(max_examples=20, deadline=None)
def test_a_weight_is_as_good_as_so_many_copies_of_an_image(
    case: tuple[dict[str, Any], list[dict[str, Any]]], weights: list[int]
) -> None:
    truth, answers = case
    for number, answer in enumerate(answers):
        # Copies would be told apart by ties, weights aren't.
        answer["score"] = 1 - number / 100
    copies: dict[str, Any] = {"images": [], "categories": truth["categories"], "annotations": []}
    copied_answers = []
    for image, weight in zip(truth["images"], weights, strict=True):
        for number in range(weight):
            image_id = image["id"] * 10 + number
            copies["images"].append(image | {"id": image_id})
            copies["annotations"] += [
                one | {"image_id": image_id} for one in truth["annotations"] if one["image_id"] == image["id"]
            ]
            copied_answers += [one | {"image_id": image_id} for one in answers if one["image_id"] == image["id"]]
    matches = match(*columns(truth, answers), SizeRanges().as_array())
    weighted = twelve_figures(precision_recall(matches, np.array(weights, dtype=float)))
    nothing = (DataSet(Path(), (), {1: "class 1", 2: "class 2"}, ()), ())
    expected = evaluate(*(records(copies, copied_answers) if copies["images"] else nothing), "bbox")
    for name in FIGURES:
        value = getattr(expected, name)
        assert weighted[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name


def test_a_match_names_its_object() -> None:
    truth, answers = (
        {
            "images": [{"id": 1, "file_name": "1.png", "width": 200, "height": 200}],
            "categories": [{"id": 1, "name": "car"}],
            "annotations": [
                {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10]},
                {"id": 2, "image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 10]},
            ],
        },
        [
            {"image_id": 1, "category_id": 1, "bbox": [100, 100, 10, 10], "score": 0.9},
            {"image_id": 1, "category_id": 1, "bbox": [50, 50, 10, 10], "score": 0.8},
        ],
    )
    matches = match(*columns(truth, answers), SizeRanges().as_array())
    assert matches.truth.tolist() == [-1, 1]
    assert matches.prediction.tolist() == [0, 1]


def test_equal_probabilities_go_by_the_detectors_own_score() -> None:
    truth: dict[str, Any] = {
        "images": [{"id": one, "file_name": f"{one}.png", "width": 200, "height": 200} for one in (1, 2)],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {"id": one, "image_id": one, "category_id": 1, "bbox": [0, 0, 10, 10], "area": 100, "iscrowd": 0}
            for one in (1, 2)
        ],
    }
    raw = {(1, 0): 0.3, (1, 100): 0.9, (2, 100): 0.2, (2, 0): 0.8}
    answers = [
        {"image_id": image, "category_id": 1, "bbox": [x, x, 10, 10], "score": score}
        for (image, x), score in raw.items()
    ]
    alike = [one | {"score": 0.5, "attributes": {"detector_score": one["score"]}} for one in answers]
    of_scores, of_probabilities = (match(*columns(truth, one), SizeRanges().as_array()) for one in (answers, alike))
    assert of_probabilities.prediction.tolist() == of_scores.prediction.tolist() == [1, 3, 0, 2]
    assert of_probabilities.score.tolist() == [0.5] * 4
    for name in ("rank", "truth", "matched"):
        assert np.array_equal(getattr(of_probabilities, name), getattr(of_scores, name))
    # A probability that is higher comes first, whatever the score, and what is no number says nothing.
    alike[2]["score"] = 0.6
    alike[0]["attributes"]["detector_score"] = "high"
    changed = match(*columns(truth, alike), SizeRanges().as_array())
    assert changed.prediction.tolist() == [2, 1, 3, 0]
