"""Masks: run lengths by hand, lossless round trips, and measures against plain numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from pycocotools import mask as reference

from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import (
    area_px,
    coco_from_run_length,
    mask_containment,
    mask_from_run_length,
    mask_iou,
    masks_kept_by_group,
    placed_run_length,
    run_length_from_coco,
    run_length_from_mask,
    run_length_from_region,
    tight_box_xyxy,
)
from grounded_seg.records import ImageSize, RunLength

sides = st.integers(1, 40)
masks = st_numpy.arrays(np.bool_, st.tuples(sides, sides))
two_masks = st.tuples(sides, sides).flatmap(
    lambda shape: st.tuples(st_numpy.arrays(np.bool_, shape), st_numpy.arrays(np.bool_, shape))
)


def blob(height: int, width: int, rows: slice, columns: slice) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[rows, columns] = True
    return mask


def runs_of(mask: npt.NDArray[np.bool_]) -> list[int]:
    """Uncompressed COCO counts, counted one pixel at a time."""
    runs, current = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel != current:
            runs.append(0)
            current = pixel
        runs[-1] += 1
    return runs


def test_counts_go_down_the_columns() -> None:
    # 2 rows, 3 columns, the upper right corner: four pixels of background, one of the mask, one of background.
    run_length = run_length_from_mask(blob(2, 3, slice(0, 1), slice(2, 3)))
    assert run_length == RunLength(size=ImageSize(width=3, height=2), counts=b"411")


def test_one_pixel() -> None:
    run_length = run_length_from_mask(blob(4, 9, slice(2, 3), slice(5, 6)))
    assert area_px(run_length) == 1
    assert tight_box_xyxy(run_length) == (5.0, 2.0, 6.0, 3.0)


def test_an_empty_mask_has_no_area_and_an_empty_box() -> None:
    empty = run_length_from_mask(np.zeros((7, 5), dtype=np.bool_))
    assert area_px(empty) == 0
    assert tight_box_xyxy(empty) == (0.0, 0.0, 0.0, 0.0)
    assert not mask_from_run_length(empty).any()
    assert mask_iou([empty], [empty]).tolist() == [[0.0]]


def test_a_record_whose_runs_end_early_is_not_decoded() -> None:
    with pytest.raises(ValueError, match="reshape"):
        mask_from_run_length(RunLength(size=ImageSize(3, 3), counts=b"411"))


def test_the_full_mask_is_the_full_image() -> None:
    full = run_length_from_mask(np.ones((7, 5), dtype=np.bool_))
    assert tight_box_xyxy(full) == (0.0, 0.0, 5.0, 7.0)
    assert area_px(full) == 35


@given(masks)
def test_measures_equal_numpy(mask: npt.NDArray[np.bool_]) -> None:
    run_length = run_length_from_mask(mask)
    decoded = mask_from_run_length(run_length)
    assert decoded.dtype == np.bool_
    assert np.array_equal(decoded, mask)
    assert area_px(run_length) == mask.sum()
    rows, columns = np.nonzero(mask)
    if rows.size:
        expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert tight_box_xyxy(run_length) == expected


@given(masks)
def test_memory_order_does_not_matter(mask: npt.NDArray[np.bool_]) -> None:
    assert run_length_from_mask(np.asfortranarray(mask)) == run_length_from_mask(np.ascontiguousarray(mask))
    assert run_length_from_mask(mask[::-1, ::-1]) == run_length_from_mask(mask[::-1, ::-1].copy())


@given(two_masks)
def test_iou_equals_numpy(pair: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]) -> None:
    first, second = (run_length_from_mask(mask) for mask in pair)
    union = (pair[0] | pair[1]).sum()
    expected = (pair[0] & pair[1]).sum() / union if union else 0.0
    assert mask_iou([first], [second])[0, 0] == pytest.approx(expected)


def test_iou_is_first_by_second() -> None:
    left = run_length_from_mask(blob(10, 10, slice(0, 10), slice(0, 4)))
    middle = run_length_from_mask(blob(10, 10, slice(0, 10), slice(2, 6)))
    right = run_length_from_mask(blob(10, 10, slice(0, 10), slice(6, 10)))
    assert mask_iou([left], [left, middle, right]).tolist() == [[1.0, pytest.approx(20 / 60), 0.0]]
    assert mask_iou([], [left, right]).shape == (0, 2)
    assert mask_iou([left], []).shape == (1, 0)


def test_masks_of_different_sizes_are_not_compared() -> None:
    small, large = (run_length_from_mask(np.ones((side, side), dtype=np.bool_)) for side in (3, 4))
    with pytest.raises(ValueError, match=r"\(3, 3\), \(4, 4\)"):
        mask_iou([small], [large])


@given(masks)
def test_coco_form_round_trips_compressed_and_plain(mask: npt.NDArray[np.bool_]) -> None:
    run_length = run_length_from_mask(mask)
    form = coco_from_run_length(run_length)
    assert form["size"] == [mask.shape[0], mask.shape[1]]
    assert isinstance(form["counts"], str)
    assert run_length_from_coco(form) == run_length
    assert run_length_from_coco({"size": form["size"], "counts": runs_of(mask)}) == run_length


def test_long_runs_round_trip() -> None:
    # Runs of more than 2^15 px take several characters each, and shrinking ones are negative differences.
    mask = np.zeros((2000, 1500), dtype=np.bool_)
    mask[:, 100:700] = True
    mask[5:7, 900] = True
    run_length = run_length_from_mask(mask)
    assert run_length_from_coco(coco_from_run_length(run_length)) == run_length


def test_a_run_of_no_length_is_written_out() -> None:
    # Both say: three of background, two of the mask, four of background.
    odd = run_length_from_coco({"size": [3, 3], "counts": [3, 1, 0, 1, 2, 0, 2]})
    assert odd == run_length_from_coco({"size": [3, 3], "counts": [3, 2, 4]})
    assert tight_box_xyxy(odd) == (1.0, 0.0, 2.0, 2.0)


@pytest.mark.parametrize(
    "segmentation",
    [
        {},
        {"size": [4, 4]},
        {"size": [4], "counts": "`0"},
        {"size": [4, 4], "counts": ""},
        {"size": [4, 4], "counts": "é"},
        {"size": [4, 4], "counts": "\x00~~"},
        {"size": [4, 4], "counts": "oooooooooo0"},
        {"size": [4, 4], "counts": "P"},
        {"size": [4, 4], "counts": None},
        {"size": [4, 4], "counts": [-1, 17]},
        {"size": [4, 4], "counts": [3, 4]},
        {"size": [4, 4], "counts": [[3, 4], [5]]},
        {"size": ["a", 4], "counts": [16]},
        {
            "size": [8, 8],
            "counts": coco_from_run_length(run_length_from_mask(np.ones((4, 4), dtype=np.bool_)))["counts"],
        },
    ],
)
def test_damaged_forms_are_refused(segmentation: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="export the file again"):
        run_length_from_coco(segmentation)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0.11 on numpy 2
@given(masks)
def test_what_we_write_is_what_pycocotools_reads(mask: npt.NDArray[np.bool_]) -> None:
    assert np.array_equal(reference.decode(coco_from_run_length(run_length_from_mask(mask))), mask)


@given(masks, st.data())
def test_a_region_is_encoded_as_the_whole_mask(region: npt.NDArray[np.bool_], data: st.DataObject) -> None:
    left, right, top, bottom = (data.draw(st.integers(0, 3)) for _ in range(4))
    whole = np.pad(region, ((top, bottom), (left, right)))
    size = ImageSize(width=whole.shape[1], height=whole.shape[0])
    assert run_length_from_region(region, left, top, size) == run_length_from_mask(whole)


@pytest.mark.parametrize(("left", "top"), [(-1, 0), (0, -1), (3, 0), (0, 4)])
def test_a_region_beyond_the_image_is_refused(left: int, top: int) -> None:
    with pytest.raises(ValueError, match=r"2 x 1 px at .* leave the image of 4 x 4 px"):
        run_length_from_region(np.ones((1, 2), dtype=np.bool_), left, top, ImageSize(4, 4))


def test_containment_by_hand() -> None:
    small, large, none = (np.zeros((2, 4), dtype=np.bool_) for _ in range(3))
    small[0, :2] = True
    large[:, 1:] = True
    encoded = [run_length_from_mask(mask) for mask in (small, large, none)]
    # One of the smaller one's two pixels.
    assert mask_containment(encoded, encoded).tolist() == [[1, 0.5, 0], [0.5, 1, 0], [0, 0, 0]]
    with pytest.raises(ValueError, match="different sizes"):
        mask_containment(encoded, [run_length_from_mask(np.ones((1, 1), dtype=np.bool_))])


@given(masks, st.integers(0, 3), st.integers(0, 3))
def test_a_placed_mask_is_the_mask_in_its_place(mask: npt.NDArray[np.bool_], left: int, top: int) -> None:
    whole = np.pad(mask, ((top, 1), (left, 2)))
    size = ImageSize(width=whole.shape[1], height=whole.shape[0])
    assert placed_run_length(run_length_from_mask(mask), left, top, size) == run_length_from_mask(whole)


def drawn(*rows: str) -> RunLength:
    return run_length_from_mask(np.array([[pixel == "#" for pixel in row] for row in rows]))


LARGE = drawn("####", "####", "....")
NEARLY = drawn("####", "###.", "....")
PART = drawn("##..", "....", "....")
OTHER = drawn("....", "...#", "####")


@pytest.mark.parametrize(
    ("iou", "containment", "kept"),
    [
        (1.0, 1.0, [0, 1, 2, 3]),
        # 7 of 8 pixels, 2 of 8, and 1 of 12.
        (0.8, 1.0, [0, 2, 3]),
        (0.2, 1.0, [0, 3]),
        (0.05, 1.0, [0]),
        # The second and third lie within the first altogether, the fourth with one pixel of five.
        (1.0, 0.99, [0, 3]),
        (1.0, 0.1, [0]),
    ],
)
def test_repeated_masks_by_hand(iou: float, containment: float, kept: list[int]) -> None:
    found = [LARGE, NEARLY, PART, OTHER]
    # Equal scores go by input order.
    for scores in ([0.9, 0.8, 0.7, 0.6], [0.5] * 4):
        assert masks_kept_by_group(found, scores, ["all"] * 4, iou, containment) == kept


def test_masks_go_by_score_and_group() -> None:
    assert masks_kept_by_group([PART, LARGE], [0.9, 0.8], ["", ""], 1.0, 0.5) == [0]
    found, scores = [LARGE, LARGE, NEARLY, OTHER], [0.3, 0.2, 0.9, 0.1]
    assert masks_kept_by_group(found, scores, ["car", "dog", "car", "car"], 0.8, 1.0) == [2, 3, 1]
    assert masks_kept_by_group(found, scores, range(4), 0.0, 0.0) == [0, 1, 2, 3]
    assert masks_kept_by_group([], [], [], 0.5, 0.5) == []
