"""Boxes: hand-computed numbers, laws, and parity with pycocotools and OpenCV."""

from random import Random

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as reference

from grounded_seg.geometry.boxes import (
    areas_px,
    array_from_boxes,
    clip,
    is_usable,
    kept_after_suppression,
    kept_by_group,
    pairwise_containment,
    pairwise_iou,
    rounded_box_holds,
)
from grounded_seg.records import BoxXyxy, ImageSize

SIZE = ImageSize(640, 480)
coordinates = st.floats(-100, 800, width=32)
corners = st.tuples(coordinates, coordinates, coordinates, coordinates)


@st.composite
def box_arrays(draw: st.DrawFn, min_size: int = 0) -> npt.NDArray[np.float64]:
    """Proper boxes (some of them empty), some partly outside the image."""
    corners = draw(
        st.lists(st.tuples(coordinates, coordinates, coordinates, coordinates), min_size=min_size, max_size=9)
    )
    raw = array_from_boxes(corners)
    return np.concatenate([np.minimum(raw[:, :2], raw[:, 2:]), np.maximum(raw[:, :2], raw[:, 2:])], axis=1)


def test_no_boxes_still_have_four_columns() -> None:
    none = array_from_boxes([])
    assert none.shape == (0, 4)
    assert areas_px(none).shape == (0,)
    assert clip(none, SIZE).shape == (0, 4)
    assert pairwise_iou(none, array_from_boxes([(0, 0, 1, 1)])).shape == (0, 1)
    assert kept_after_suppression(none, np.zeros(0), 0.5).shape == (0,)


def test_the_full_image_has_the_area_of_its_pixels() -> None:
    assert areas_px(array_from_boxes([(0, 0, 640, 480)])).tolist() == [640 * 480]


@pytest.mark.parametrize(
    ("box_xyxy", "usable"),
    [
        ((0.0, 0.0, 40.0, 30.0), True),
        ((-9.0, -9.0, 0.1, 0.1), True),
        ((39.9, 29.9, 99.0, 99.0), True),
        ((-9.0, 0.0, 0.0, 9.0), False),
        ((0.0, 30.0, 9.0, 31.0), False),
        ((40.0, 0.0, 41.0, 9.0), False),
        ((5.0, 5.0, 5.0, 9.0), False),
        ((5.0, 9.0, 6.0, 5.0), False),
        ((5.0, float("nan"), 6.0, 9.0), False),
        ((5.0, 5.0, float("inf"), 9.0), False),
    ],
)
def test_a_usable_box_shows_a_part_of_the_image(box_xyxy: tuple[float, float, float, float], usable: bool) -> None:
    assert is_usable(box_xyxy, ImageSize(40, 30)) is usable


def test_an_inside_out_box_is_empty_and_overlaps_nothing() -> None:
    inside_out = array_from_boxes([(10, 0, 0, 10), (10, 10, 0, 0), (5, 5, 5, 9)])
    plain = array_from_boxes([(0, 0, 20, 20)])
    assert areas_px(inside_out).tolist() == [0, 0, 0]
    assert pairwise_iou(inside_out, plain).tolist() == [[0], [0], [0]]
    assert pairwise_containment(inside_out, plain).tolist() == [[0], [0], [0]]
    assert pairwise_iou(inside_out, inside_out).max() == 0


def test_overlaps_by_hand() -> None:
    square = array_from_boxes([(0, 0, 10, 10)])
    others = array_from_boxes([(0, 0, 10, 10), (5, 5, 15, 15), (2, 2, 4, 4), (10, 0, 20, 10)])
    assert pairwise_iou(square, others)[0] == pytest.approx([1, 25 / 175, 4 / 100, 0])
    assert pairwise_containment(square, others)[0] == pytest.approx([1, 0.25, 1, 0])


def test_float32_boxes_are_measured_in_float64() -> None:
    # 16777217 = 2^24 + 1 is no float32; the difference of the edges is.
    boxes = np.array([[1.0, 0.0, 16777216.0, 1.0]], dtype=np.float32)
    assert areas_px(boxes).tolist() == [16777215.0]
    assert pairwise_iou(boxes, boxes).dtype == np.float64


@given(box_arrays())
def test_clip_is_idempotent_and_stays_inside(boxes: npt.NDArray[np.float64]) -> None:
    clipped = clip(boxes, SIZE)
    assert clipped.shape == boxes.shape
    assert np.array_equal(clip(clipped, SIZE), clipped)
    assert (clipped >= 0).all()
    assert (clipped[:, [0, 2]] <= SIZE.width).all()
    assert (clipped[:, [1, 3]] <= SIZE.height).all()
    assert (areas_px(clipped) <= areas_px(boxes)).all()


@given(box_arrays())
def test_clip_leaves_inner_boxes_alone(boxes: npt.NDArray[np.float64]) -> None:
    inner = (boxes >= 0).all(axis=1) & (boxes[:, 2] <= SIZE.width) & (boxes[:, 3] <= SIZE.height)
    assert np.array_equal(clip(boxes, SIZE)[inner], boxes[inner])


@given(box_arrays(), box_arrays())
def test_overlap_is_symmetric_bounded_and_iou_is_the_smaller(
    first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]
) -> None:
    for measure in (pairwise_iou, pairwise_containment):
        overlap = measure(first, second)
        assert overlap.shape == (len(first), len(second))
        assert ((overlap >= 0) & (overlap <= 1)).all()
        assert np.array_equal(overlap, measure(second, first).T)
    assert (pairwise_iou(first, second) <= pairwise_containment(first, second) + 1e-12).all()


@given(box_arrays())
def test_a_solid_box_is_itself(boxes: npt.NDArray[np.float64]) -> None:
    solid = (areas_px(boxes) > 0).astype(float)
    assert np.diagonal(pairwise_iou(boxes, boxes)) == pytest.approx(solid)


@given(box_arrays(min_size=1), box_arrays(min_size=1))
def test_iou_equals_pycocotools(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> None:
    def xywh(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)

    # The reference divides 0 by 0 for two empty boxes; ours are 0 there.
    expected = np.nan_to_num(reference.iou(xywh(first), xywh(second), [0] * len(second)))
    assert pairwise_iou(first, second) == pytest.approx(expected, abs=1e-9)


def test_suppression_by_hand() -> None:
    boxes = array_from_boxes([(0, 0, 10, 10), (0, 0, 10, 9), (20, 0, 30, 10), (21, 1, 23, 3)])
    scores = np.array([0.5, 0.9, 0.4, 0.95])
    assert kept_after_suppression(boxes, scores, 0.7).tolist() == [3, 1, 2]
    assert kept_after_suppression(boxes, scores, 0.7, containment_threshold=0.8).tolist() == [3, 1]


def test_the_threshold_itself_is_not_a_duplicate() -> None:
    boxes = array_from_boxes([(0, 0, 2, 1), (0, 0, 1, 1)])  # IoU is 0.5
    scores = np.array([0.9, 0.8])
    assert kept_after_suppression(boxes, scores, 0.5).tolist() == [0, 1]
    assert kept_after_suppression(boxes, scores, 0.499).tolist() == [0]


def test_a_box_suppressed_by_nobody_kept_stays() -> None:
    # The middle box goes; what only it overlapped stays.
    boxes = array_from_boxes([(0, 0, 10, 10), (4, 0, 14, 10), (8, 0, 18, 10)])
    assert kept_after_suppression(boxes, np.array([0.9, 0.8, 0.7]), 0.4).tolist() == [0, 2]


def test_equal_scores_go_by_input_order() -> None:
    boxes = array_from_boxes([(0, 0, 10, 10)] * 40)
    assert kept_after_suppression(boxes, np.full(40, 0.5), 0.9).tolist() == [0]
    assert kept_after_suppression(boxes, np.full(40, 0.5), 1.0).tolist() == list(range(40))


def test_scores_must_match_boxes() -> None:
    with pytest.raises(ValueError, match="2 boxes have 1 scores"):
        kept_after_suppression(np.zeros((2, 4)), np.zeros(1), 0.5)


@given(box_arrays(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_suppression_laws(boxes: npt.NDArray[np.float64], threshold: float, random: Random) -> None:
    scores = np.array([random.choice([0.1, 0.5, 0.9]) for _ in boxes])
    kept = kept_after_suppression(boxes, scores, threshold)
    assert (np.diff(scores[kept]) <= 0).all()
    overlaps = pairwise_iou(boxes[kept], boxes[kept])
    assert (overlaps[~np.eye(len(kept), dtype=bool)] <= threshold).all()
    dropped = np.setdiff1d(np.arange(len(boxes)), kept)
    assert all((pairwise_iou(boxes[[one]], boxes[kept]) > threshold).any() for one in dropped)
    # What was kept is kept again.
    assert kept_after_suppression(boxes[kept], scores[kept], threshold).tolist() == list(range(len(kept)))


@given(box_arrays(min_size=1))
def test_suppression_equals_opencv(boxes: npt.NDArray[np.float64]) -> None:
    boxes = boxes[areas_px(boxes) > 1e-3]
    scores = np.linspace(0.1, 0.9, len(boxes))
    xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    # An odd threshold: OpenCV compares in float32, and simple boxes hit simple thresholds exactly.
    expected = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), score_threshold=0.0, nms_threshold=0.41237)
    assert kept_after_suppression(boxes, scores, 0.41237).tolist() == list(expected)


def test_groups_are_suppressed_apart() -> None:
    boxes = array_from_boxes([(0, 0, 10, 10), (0, 0, 10, 9), (0, 0, 9, 10), (0, 0, 10, 10), (1, 1, 3, 3)])
    scores = np.array([0.5, 0.9, 0.6, 0.7, 0.8])
    classes = ["dog", "car", "dog", "car", "dog"]
    # Groups as they first appear, each from high to low score.
    assert kept_by_group(boxes, scores, classes, 0.7).tolist() == [4, 2, 1]
    assert kept_by_group(boxes, scores, classes, 0.7, containment_threshold=0.9).tolist() == [4, 1]
    assert kept_by_group(boxes, scores, [""] * 5, 0.7, containment_threshold=0.9).tolist() == [1]
    assert kept_by_group(boxes, scores, range(5), 0.0).tolist() == [0, 1, 2, 3, 4]
    assert kept_by_group(array_from_boxes([]), np.zeros(0), [], 0.5).shape == (0,)


@given(box_arrays(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_one_group_is_plain_suppression(boxes: npt.NDArray[np.float64], threshold: float, random: Random) -> None:
    scores = np.array([random.choice([0.1, 0.5, 0.9]) for _ in boxes])
    expected = kept_after_suppression(boxes, scores, threshold)
    assert kept_by_group(boxes, scores, ["all"] * len(boxes), threshold).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("box", "holds"),
    [
        ((3.0, 2.0, 9.0, 7.0), True),
        ((3.4, 1.6, 8.6, 7.4), True),
        ((3.6, 2.0, 9.0, 7.0), False),
        ((3.0, 2.0, 8.4, 7.0), False),
        ((3.0, 2.0, 9.0, 6.4), False),
        ((-0.4, 0.0, 9.0, 7.0), True),
        ((-1.0, 0.0, 9.0, 7.0), False),
    ],
)
def test_a_rounded_box_holds_a_shape_or_cuts_it(box: BoxXyxy, holds: bool) -> None:
    assert rounded_box_holds(box, (3.0, 2.0, 9.0, 7.0)) is holds
