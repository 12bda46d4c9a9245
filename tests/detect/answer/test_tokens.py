import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import unpacked

from grounded_seg.detect.answer.tokens import bins_from_boxes, boxes_from_bins, points_from_bins, text_from_bins
from grounded_seg.records import ImageSize

sizes = st.builds(ImageSize, st.integers(1, 20_000), st.integers(1, 20_000))
bins = st.lists(st.tuples(*[st.integers(0, 999)] * 4), max_size=5)


def test_the_first_code_gives_the_same_bins_and_centres() -> None:
    for case in json.loads(unpacked("florence2-parses.json").read_text(encoding="utf-8"))["quantizer"]:
        size = ImageSize(*case["size"])
        found = bins_from_boxes(np.array(case["boxes"]), size)
        assert found.tolist() == case["bins"]
        np.testing.assert_allclose(boxes_from_bins(found, size), case["back"], atol=0.01)


def test_a_bin_holds_its_lower_edge_and_not_its_upper_one() -> None:
    assert bins_from_boxes(np.array([[0.64, 0.48, 1.27, 0.95]]), ImageSize(640, 480)).tolist() == [[1, 1, 1, 1]]


def test_the_far_edge_and_all_beyond_the_image_go_into_the_last_and_first_bin() -> None:
    assert bins_from_boxes(np.array([[-3.0, 0.0, 640.0, 1e9]]), ImageSize(640, 480)).tolist() == [[0, 0, 999, 999]]


def test_centres() -> None:
    assert boxes_from_bins(np.array([[0, 0, 999, 999]]), ImageSize(1000, 500)).tolist() == [[0.5, 0.25, 999.5, 499.75]]
    assert points_from_bins(np.array([10, 20, 30, 40]), ImageSize(1000, 2000)).tolist() == [[10.5, 41.0], [30.5, 81.0]]


@given(bins, sizes)
def test_a_bin_survives_the_way_to_pixels_and_back(rows: list[tuple[int, ...]], size: ImageSize) -> None:
    array = np.array(rows, dtype=np.int64).reshape(-1, 4)
    assert np.array_equal(bins_from_boxes(boxes_from_bins(array, size), size), array)


@given(st.tuples(*[st.floats(0, 1, exclude_max=True)] * 4), sizes)
def test_a_pixel_is_off_by_half_a_bin_at_most(box: tuple[float, ...], size: ImageSize) -> None:
    sides = np.array([size.width, size.height] * 2)
    pixels = np.array([box]) * sides
    assert (np.abs(boxes_from_bins(bins_from_boxes(pixels, size), size) - pixels) <= sides * 0.0005 * (1 + 1e-9)).all()


def test_nothing_in_nothing_out() -> None:
    assert bins_from_boxes(np.zeros((0, 4)), ImageSize(4, 4)).shape == (0, 4)
    assert boxes_from_bins(np.zeros((0, 4), dtype=np.int64), ImageSize(4, 4)).shape == (0, 4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_coordinate_that_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        bins_from_boxes(np.array([[0.0, 0.0, value, 1.0]]), ImageSize(4, 4))


@pytest.mark.parametrize("value", [-1, 1000])
def test_a_bin_that_has_no_token_is_refused(value: int) -> None:
    with pytest.raises(ValueError, match="outside 0 to 999"):
        boxes_from_bins(np.array([[0, 0, value, 1]]), ImageSize(4, 4))


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match="0 x 5"):
        boxes_from_bins(np.array([[0, 0, 1, 1]]), ImageSize(0, 5))


def test_text() -> None:
    assert text_from_bins(np.array([[52, 333, 932, 774]])) == "<loc_52><loc_333><loc_932><loc_774>"
