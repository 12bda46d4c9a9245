"""Objects and predictions as columns: numbered as pycocotools does, and what takes the place of a missing mask."""

from typing import Any

import numpy as np
from coco_cases import Box, records, results, truth

from grounded_seg.geometry.masks import area_px, coco_overlaps
from grounded_seg.scoring.columns import measurable, predictions_from, truths_from

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def without_mask(**change: Any) -> dict[str, Any]:
    """Two objects, the first with a box only."""
    document = truth((1, 1, HERE), (1, 2, FAR))
    document["annotations"][0] |= {"segmentation": [], **change}
    return document


def test_a_box_without_mask_becomes_a_crowd_filled_within_its_image() -> None:
    data_set, _ = records(without_mask(bbox=[60, 50, 1e12, 1e12], area=1), [])
    truths = truths_from(data_set, "segm")
    assert [area_px(mask) for mask in truths.masks] == [40 * 50, 900]
    assert truths.is_crowd.tolist() == [True, False]
    # Its size is what its annotator says.
    assert truths.area.tolist() == [1, 900]
    assert not truths_from(data_set, "bbox").is_crowd.any()


def test_a_box_without_mask_on_an_image_of_unknown_size_is_no_mask() -> None:
    document = truth((1, 1, HERE))
    document["annotations"][0]["segmentation"] = []
    del document["images"][0]["width"]
    data_set, _ = records(document, [])
    assert len(truths_from(data_set, "segm")) == 0


def test_images_and_classes_are_numbered_by_their_sorted_ids() -> None:
    document = truth((2, 1, HERE), n_images=2)
    for one, number in ((document["images"][0], 30), (document["images"][1], 4)):
        one["id"] = number
    document["annotations"][0]["image_id"] = 4
    data_set, predictions = records(document, [results((1, 2, FAR, 0.5))[0] | {"image_id": 30}])
    truths = truths_from(data_set, "bbox")
    index = truths.index
    assert (index.image_ids, index.category_ids, index.names) == ((4, 30), (1, 2), ("car", "dog"))
    assert truths.image.tolist() == [0]
    found = predictions_from(predictions, data_set, "bbox")
    assert (found.image.tolist(), found.category.tolist(), found.score.tolist()) == ([1], [1], [0.5])


def test_what_cannot_be_measured_is_left_out() -> None:
    data_set, predictions = records(truth((1, 1, HERE)), results((1, 1, HERE, 0.9), (1, 2, FAR, 0.8), masks=False))
    assert measurable(predictions, data_set, "segm") == []
    only_cars = data_set.only_classes(frozenset({"car"}))
    assert measurable(predictions, only_cars, "bbox") == [predictions[0]]


def test_columns_of_both_kinds_can_be_chosen_from() -> None:
    data_set, _ = records(truth((1, 1, HERE), (1, 2, FAR)), [])
    for kind in ("bbox", "segm"):
        truths = truths_from(data_set, kind)
        chosen = truths.chosen(np.array([False, True]))
        assert (len(chosen), chosen.category.tolist(), chosen.area.tolist()) == (1, [1], [900])
        both, last = np.arange(2), np.zeros(1, dtype=np.int64)
        ious = coco_overlaps(truths.shapes_at(both), chosen.shapes_at(last), np.zeros(1, dtype=np.bool_))
        assert ious.tolist() == [[0.0], [1.0]]
