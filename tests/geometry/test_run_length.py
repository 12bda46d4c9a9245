"""A mask's own forms: array and polygons, both exact."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from grounded_seg.geometry.masks import run_length_from_mask, run_length_from_polygons, tight_box_xyxy

MASKS = arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)))


@given(MASKS)
def test_an_array_comes_back(mask: np.ndarray) -> None:  # type: ignore[type-arg]
    assert np.array_equal(run_length_from_mask(mask).to_array(), mask)


@given(MASKS)
def test_the_tight_region_is_that_of_the_tight_box(mask: np.ndarray) -> None:  # type: ignore[type-arg]
    run_length = run_length_from_mask(mask)
    region, left, top = run_length.tight_region()
    assert (left, top, left + region.shape[1], top + region.shape[0]) == tight_box_xyxy(run_length)
    assert region.sum() == mask.sum()


@given(MASKS)
def test_polygons_enclose_exactly_the_mask(mask: np.ndarray) -> None:  # type: ignore[type-arg]
    run_length = run_length_from_mask(mask)
    rings = [ring.ravel().tolist() for ring in run_length.polygons()]
    assert run_length_from_polygons(rings, run_length.size) == run_length


def test_a_square_has_four_corners() -> None:
    mask = np.zeros((6, 8), np.bool_)
    mask[1:3, 2:5] = True
    [ring] = run_length_from_mask(mask).polygons()
    assert {tuple(corner) for corner in ring.tolist()} == {(2, 1), (5, 1), (5, 3), (2, 3)}
    assert run_length_from_mask(np.zeros((6, 8), np.bool_)).polygons() == []
