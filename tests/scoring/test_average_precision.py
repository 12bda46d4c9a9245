"""COCO metrics: the published figures, hand-computed ones, and what pycocotools alone gets wrong."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_cases import records
from paths import unpacked

from grounded_seg.coco.data_set import DataSet
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_mask
from grounded_seg.scoring.average_precision import EvaluationSummary, SizeRanges, evaluate

FIGURES = (
    *("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large"),
    *("AR1", "AR10", "AR100", "AR_small", "AR_medium", "AR_large"),
)

# pycocotools adds a last bit to each denominator.
PERFECT: Any = pytest.approx(1.0, abs=1e-12)


def figures(summary: EvaluationSummary, *names: str) -> list[Any]:
    return [getattr(summary, name) for name in names]


def loaded(name: str) -> Any:
    return json.loads(unpacked(name).read_text())


def ground_truth(*boxes_xywh: tuple[float, float, float, float], n_images: int = 1, side: int = 100) -> dict[str, Any]:
    """One class; the boxes go to the images in turn."""
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": side, "height": side} for number in range(n_images)
        ],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [
            {
                "id": number,
                "image_id": number % n_images,
                "category_id": 1,
                "bbox": list(box),
                "area": box[2] * box[3],
                "iscrowd": 0,
            }
            for number, box in enumerate(boxes_xywh)
        ],
    }


def predicted(
    *boxes_xywh: tuple[float, float, float, float], image_id: int = 0, score: float = 0.9
) -> list[dict[str, Any]]:
    return [
        {"image_id": image_id, "category_id": 1, "bbox": list(box), "score": score - number / 100}
        for number, box in enumerate(boxes_xywh)
    ]


def test_the_published_figures_come_out() -> None:
    truth = loaded("coco/instances_val2014_100.json")
    answers = loaded("coco/instances_val2014_fakebbox100_results.json")
    summary = evaluate(*records(truth, answers), "bbox")
    published = [
        *(0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398),
        *(0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291),
    ]
    assert figures(summary, *FIGURES) == pytest.approx(published, abs=5e-7)
    assert len(summary.per_class) == len(truth["categories"])
    measured = [one.AP for one in summary.per_class if one.AP is not None]
    assert figures(summary, "AP") == [pytest.approx(np.mean(measured))]


def test_ground_truth_matches_itself_as_masks() -> None:
    # Polygons of several parts and crowds as run lengths.
    truth = loaded("photos/instances.json")
    answers = [{**one, "score": 0.5} for one in truth["annotations"] if not one["iscrowd"]]
    summary = evaluate(*records(truth, answers), "segm")
    assert figures(summary, "AP", "AR100") == [PERFECT, PERFECT]


def test_the_input_is_not_changed() -> None:
    truth, answers = ground_truth((0, 0, 50, 50)), predicted((0, 0, 50, 50))
    before = copy.deepcopy((truth, answers))
    evaluate(*records(truth, answers), "bbox", SizeRanges(0.1, 0.2, relative=True))
    assert (truth, answers) == before


def test_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    evaluate(*records(ground_truth((0, 0, 50, 50)), predicted((0, 0, 50, 50))), "bbox")
    assert capsys.readouterr() == ("", "")


def test_precision_by_hand() -> None:
    # Best to worst: a hit, a miss, a hit, of three objects. Recall 1/3 at precision 1, recall 2/3 at precision 2/3.
    truth = ground_truth((0, 0, 40, 40), (50, 0, 40, 40), (0, 50, 40, 40))
    answers = predicted((0, 0, 40, 40), (60, 60, 40, 40), (50, 0, 40, 40))
    summary = evaluate(*records(truth, answers), "bbox")
    # Of the recall thresholds 0, .01 ... 1, 34 are up to 1/3 and 33 more up to 2/3.
    assert figures(summary, "AP") == [pytest.approx((34 * 1 + 33 * 2 / 3) / 101)]
    assert figures(summary, "AR100") == [pytest.approx(2 / 3)]
    assert figures(summary, "AR1") == [pytest.approx(1 / 3)]
    assert summary.per_class[0].name == "car"
    assert summary.per_class[0].AP == summary.AP


def test_iou_thresholds_by_hand() -> None:
    # 40 x 40 in 40 x 50 is IoU 0.8: found at .50 to .80, missed at .85, .90, .95.
    summary = evaluate(*records(ground_truth((0, 0, 40, 50)), predicted((0, 0, 40, 40))), "bbox")
    assert figures(summary, "AP50", "AP75") == [PERFECT, PERFECT]
    assert figures(summary, "AP") == [pytest.approx(0.7)]


def test_an_object_with_id_0_counts_as_found() -> None:
    truth = ground_truth((0, 0, 50, 50))
    assert truth["annotations"][0]["id"] == 0
    assert figures(evaluate(*records(truth, predicted((0, 0, 50, 50))), "bbox"), "AP") == [PERFECT]


def test_no_predictions_at_all_is_an_answer() -> None:
    summary = evaluate(*records(ground_truth((0, 0, 50, 50)), []), "bbox")
    assert figures(summary, "AP", "AR100", "AP_medium") == [0.0, 0.0, 0.0]
    assert summary.AP_small is None
    assert evaluate(*records(ground_truth(), []), "segm").AP is None


def test_no_ground_truth_gives_none_not_zero() -> None:
    summary = evaluate(*records(ground_truth(), predicted((0, 0, 50, 50))), "bbox")
    assert figures(summary, *FIGURES) == [None] * 12
    assert summary.per_class[0].AP50 is None
    nothing = evaluate(DataSet(Path(), (), {}, ()), [], "bbox")
    assert nothing.AP is None
    assert nothing.per_class == ()


def test_a_false_box_on_an_image_without_objects_costs_precision() -> None:
    truth = ground_truth((0, 0, 50, 50), n_images=2)
    answers = predicted((0, 0, 50, 50), image_id=0, score=0.8) + predicted((0, 0, 50, 50), image_id=1, score=0.9)
    assert figures(evaluate(*records(truth, answers), "bbox"), "AP") == [pytest.approx(0.5)]


def test_classes_are_kept_apart() -> None:
    truth = ground_truth((0, 0, 50, 50))
    truth["categories"].append({"id": 7, "name": "dog"})
    truth["annotations"].append({"id": 5, "image_id": 0, "category_id": 7, "bbox": [50, 50, 40, 40]})
    summary = evaluate(*records(truth, predicted((0, 0, 50, 50))), "bbox")
    assert [(one.category_id, one.name, one.AP) for one in summary.per_class] == [(1, "car", PERFECT), (7, "dog", 0.0)]
    assert figures(summary, "AP") == [pytest.approx(0.5)]


def test_size_ranges_may_be_shares_of_the_image() -> None:
    # The same 20 x 20 box: 4 % of a 100 x 100 image, 0.04 % of a 1000 x 1000 one.
    shares = SizeRanges(small_up_to=0.01, large_from=0.09, relative=True)
    in_small_image = evaluate(*records(ground_truth((0, 0, 20, 20)), predicted((0, 0, 20, 20))), "bbox", shares)
    assert figures(in_small_image, "AP_small", "AP_medium") == [None, PERFECT]
    in_large_image = evaluate(
        *records(ground_truth((0, 0, 20, 20), side=1000), predicted((0, 0, 20, 20))), "bbox", shares
    )
    assert figures(in_large_image, "AP_small", "AP_medium") == [PERFECT, None]


def test_size_ranges_in_pixels() -> None:
    summary = evaluate(
        *records(ground_truth((0, 0, 20, 20)), predicted((0, 0, 20, 20))),
        "bbox",
        SizeRanges(small_up_to=100, large_from=300),
    )
    assert figures(summary, "AP_small", "AP_medium", "AP_large") == [None, None, PERFECT]


def mask_case() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A thin diagonal whose box is large: 90 pixels of mask in a box of 90 x 90."""
    mask = np.eye(100, dtype=np.bool_)
    mask[90:] = False
    form = coco_from_run_length(run_length_from_mask(mask))
    truth = ground_truth((0, 0, 90, 90))
    truth["annotations"][0] |= {"segmentation": form, "area": 90}
    return truth, [{"image_id": 0, "category_id": 1, "score": 0.9, "bbox": [0, 0, 90, 90], "segmentation": form}]


def test_a_predicted_mask_is_measured_by_its_pixels_even_where_it_has_a_box() -> None:
    truth, answers = mask_case()
    # A second, wrong answer of the same small size has to count as a false one among the small.
    elsewhere = coco_from_run_length(run_length_from_mask(np.eye(100, dtype=np.bool_)[::-1]))
    answers.append({**answers[0], "score": 0.95, "segmentation": elsewhere})
    summary = evaluate(*records(truth, answers), "segm")
    assert figures(summary, "AP_small") == [pytest.approx(0.5)]
    assert summary.AP_medium is None


def test_all_forms_of_a_mask_are_one() -> None:
    square = np.zeros((100, 100), dtype=np.bool_)
    square[10:30, 20:60] = True
    truth = ground_truth((20, 10, 40, 20))
    truth["annotations"][0]["segmentation"] = [[20, 10, 60, 10, 60, 30, 20, 30]]
    compressed = coco_from_run_length(run_length_from_mask(square))
    plain = {"size": [100, 100], "counts": [2010, *[20, 80] * 39, 20, 4070]}
    for form in (compressed, plain, {**compressed, "counts": compressed["counts"].encode()}):
        answers = [{"image_id": 0, "category_id": 1, "score": 0.9, "segmentation": form}]
        assert figures(evaluate(*records(truth, answers), "segm"), "AP") == [PERFECT]


def test_a_prediction_without_a_mask_is_left_out_of_masks() -> None:
    truth, answers = mask_case()
    answers.append({**answers[0], "score": 0.95, "segmentation": []})
    assert figures(evaluate(*records(truth, answers), "segm"), "AP") == [PERFECT]
    assert figures(evaluate(*records(truth, answers[1:]), "segm"), "AP") == [0.0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_id": 9}, r"found.json: \[0\]: image_id 9 is not among the images of truth.json"),
        ({"bbox": [1, 2, 3]}, r"found.json: \[0\]: bbox"),
        ({"score": None}, r"found.json: \[0\]: it has no score"),
        ({"segmentation": coco_from_run_length(run_length_from_mask(np.eye(50, dtype=np.bool_)))}, "50 x 50"),
        (
            {"segmentation": {"size": [100, 100], "counts": "1"}, "bbox": None},
            "a run-length mask of 100 x 100 px holds",
        ),
    ],
)
def test_unusable_predictions_are_errors(change: dict[str, Any], says: str) -> None:
    truth, answers = mask_case()
    with pytest.raises(InputError, match=says) as raised:
        records(truth, [answers[0] | change])
    assert "\n" not in str(raised.value)


def test_a_prediction_whose_mask_cannot_be_read_counts_as_a_box() -> None:
    truth, answers = mask_case()
    damaged = answers[0] | {"segmentation": {"size": [100, 100], "counts": "1"}}
    _, [one] = records(truth, [damaged])
    assert (one.mask, one.box_xywh) == (None, tuple(answers[0]["bbox"]))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"image_id": 9}, "image 9 isn't listed in truth.json"),
        ({"score": math.nan}, "is not a finite number"),
        ({"box_xywh": (0.0, 0.0, math.inf, 1.0)}, "is not a finite number"),
    ],
)
def test_unusable_records_are_errors(change: dict[str, Any], says: str) -> None:
    data_set, [prediction] = records(ground_truth((0, 0, 50, 50)), predicted((0, 0, 50, 50)))
    with pytest.raises(InputError, match=says):
        evaluate(data_set, [replace(prediction, **change)], "bbox")
