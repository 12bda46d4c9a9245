"""Polygons: corners by hand, and the very mask again from either convention's reader."""

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grounded_seg.geometry.masks import mask_from_run_length, mask_iou, run_length_from_mask, run_length_from_polygons
from grounded_seg.geometry.polygons import Ring, centre_polygons_from_mask, edge_polygons_from_mask, joined_parts
from grounded_seg.records import ImageSize, RunLength
from grounded_seg.scenes.render import Split, render_scene

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def mask_of(*rows: str) -> RunLength:
    return run_length_from_mask(np.array([[letter == "#" for letter in row] for row in rows]))


def corners(ring: Ring) -> set[tuple[float, float]]:
    return {(float(x), float(y)) for x, y in ring}


def rasterised(rings: list[Ring], size: ImageSize) -> RunLength:
    return run_length_from_polygons([ring.ravel().tolist() for ring in rings], size)


def drawn(ring: Ring, size: ImageSize) -> npt.NDArray[np.bool_]:
    canvas = np.zeros((size.height, size.width), np.uint8)
    cv2.fillPoly(canvas, [np.floor(ring).astype(np.int32)], 1)
    return canvas.astype(np.bool_)


def test_one_pixel() -> None:
    mask = mask_of("...", ".#.")
    [edges] = edge_polygons_from_mask(mask)
    assert corners(edges) == {(1, 1), (2, 1), (2, 2), (1, 2)}
    [centres] = centre_polygons_from_mask(mask)
    assert centres.tolist() == [[1.5, 1.5]] * 3


def test_a_step_has_no_corners_but_its_own() -> None:
    [ring] = edge_polygons_from_mask(mask_of("##..", "####"))
    assert corners(ring) == {(0, 0), (2, 0), (2, 1), (4, 1), (4, 2), (0, 2)}
    assert len(ring) == 6


def test_a_hole_is_joined_by_a_cut() -> None:
    [ring] = edge_polygons_from_mask(mask_of("####", "#.##", "####"))
    assert corners(ring) == {(0, 0), (4, 0), (4, 3), (0, 3), (0, 1), (1, 1), (2, 1), (2, 2), (1, 2)}
    x, y = ring.T
    area = abs(float(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))) / 2
    assert area == 11


def test_parts_and_corners_that_touch() -> None:
    assert len(edge_polygons_from_mask(mask_of("#.", ".#"))) == 2
    assert len(centre_polygons_from_mask(mask_of("#.", ".#"))) == 1
    assert len(centre_polygons_from_mask(mask_of("#.#"))) == 2


def test_an_empty_mask() -> None:
    empty = mask_of("..", "..")
    assert edge_polygons_from_mask(empty) == []
    assert joined_parts(centre_polygons_from_mask(empty)).shape == (0, 2)


def test_parts_are_joined_from_near_to_far() -> None:
    mask = mask_of("###.#.#")
    joined = joined_parts(centre_polygons_from_mask(mask))
    assert drawn(joined, mask.size).all()


@given(MASKS)
def test_pycocotools_gives_the_very_mask_back(mask: npt.NDArray[np.bool_]) -> None:
    run_length = run_length_from_mask(mask)
    assert rasterised(edge_polygons_from_mask(run_length), run_length.size) == run_length


@given(MASKS)
def test_opencv_gives_every_part_back(mask: npt.NDArray[np.bool_]) -> None:
    run_length = run_length_from_mask(mask)
    parts = [drawn(ring, run_length.size) for ring in centre_polygons_from_mask(run_length)]
    assert np.array_equal(np.logical_or.reduce([np.zeros_like(mask), *parts]), mask)


@given(MASKS)
def test_joining_parts_loses_no_pixel(mask: npt.NDArray[np.bool_]) -> None:
    run_length = run_length_from_mask(mask)
    ring = joined_parts(centre_polygons_from_mask(run_length))
    if mask.any():
        assert drawn(ring, run_length.size)[mask].all()


@given(MASKS, st.floats(0.1, 3))
def test_any_tolerance_gives_polygons(mask: npt.NDArray[np.bool_], tolerance_px: float) -> None:
    run_length = run_length_from_mask(mask)
    traced = (edge_polygons_from_mask, centre_polygons_from_mask)
    for ring in [ring for trace in traced for ring in trace(run_length, tolerance_px)]:
        assert len(ring) >= 3
        assert ring.min() >= 0


def test_a_simpler_hole_does_not_cross_its_outline() -> None:
    rows, columns = np.mgrid[:120, :160]
    distance = np.hypot(rows - 60, columns - 80)
    mask = run_length_from_mask((distance < 50) & (distance >= 48))
    # A ring two pixels thin, both of whose circles may stray by five.
    simpler = rasterised(edge_polygons_from_mask(mask, 5), mask.size)
    assert mask_iou([mask], [simpler])[0, 0] > 0.4


def test_simpler_polygons_stay_near() -> None:
    [first, *_] = render_scene(Split.TEST, 0, short_side=160).objects
    mask = run_length_from_mask(first.mask)
    exact, simpler = edge_polygons_from_mask(mask), edge_polygons_from_mask(mask, 1.0)
    assert sum(map(len, simpler)) < sum(map(len, exact)) / 2
    assert mask_iou([mask], [rasterised(simpler, mask.size)])[0, 0] > 0.95


@pytest.mark.parametrize("index", range(3))
def test_occluded_objects_of_scenes(index: int) -> None:
    for shown in render_scene(Split.TEST, index, short_side=160).objects:
        mask = run_length_from_mask(shown.mask)
        assert np.array_equal(mask_from_run_length(rasterised(edge_polygons_from_mask(mask), mask.size)), shown.mask)
