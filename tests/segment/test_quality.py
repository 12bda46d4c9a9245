"""What is done to masks once they are there: cleaned, measured against their box, and compared with each other."""

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from grounded_seg.errors import UsageError
from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.records import Detection, Instance
from grounded_seg.segment.resize import Region
from grounded_seg.segment.segmenter import cleaned, share_outside, without_duplicates
from grounded_seg.settings import SegmentSettings

sides = st.integers(1, 12)
any_mask = st_numpy.arrays(np.bool_, st.tuples(sides, sides))


def mask_of(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_the_largest_part_stays_and_its_holes_are_filled() -> None:
    given_mask = mask_of("####.#", "#..#.#", "####..", "......", "##.#..")
    assert np.array_equal(cleaned(given_mask), mask_of("####..", "####..", "####..", "......", "......"))


def test_a_part_within_a_hole_goes_with_the_hole() -> None:
    assert cleaned(mask_of("#####", "#...#", "#.#.#", "#...#", "#####")).all()


def test_a_bay_is_no_hole_but_a_gap_that_opens_only_at_a_corner_is() -> None:
    bay = mask_of("###", "#.#", "#.#")
    assert np.array_equal(cleaned(bay), bay)
    # The middle can be left only over the corner at the bottom right, between two parts that touch there.
    assert np.array_equal(cleaned(mask_of("###", "#.#", "##.")), mask_of("###", "###", "##."))


def test_slanted_parts_hang_together() -> None:
    slanted = mask_of("#..", ".#.", "..#")
    assert np.array_equal(cleaned(slanted), slanted)


@given(any_mask)
def test_cleaning_twice_is_cleaning_once(mask: npt.NDArray[np.bool_]) -> None:
    once = cleaned(mask)
    assert np.array_equal(cleaned(once), once)
    assert once.any() == mask.any()
    assert once.shape == mask.shape


@pytest.mark.parametrize(
    ("box_xyxy", "share"),
    [
        ((0.0, 0.0, 100.0, 100.0), 0.0),
        ((10.0, 20.0, 12.0, 23.0), 0.0),
        ((10.0, 20.0, 11.0, 23.0), 0.5),
        # Pixels that the box cuts are inside.
        ((10.9, 20.9, 11.1, 21.1), 1 / 3),
        ((0.0, 0.0, 5.0, 5.0), 1.0),
        ((-7.0, -7.0, 11.0, 21.0), 5 / 6),
    ],
)
def test_share_outside_by_hand(box_xyxy: tuple[float, float, float, float], share: float) -> None:
    region = Region(left=10, top=20, mask=np.ones((3, 2), dtype=np.bool_))
    assert share_outside(region, box_xyxy) == pytest.approx(share)


LARGE = mask_of("####", "####", "....")
NEARLY = mask_of("####", "###.", "....")
OTHER = mask_of("....", "...#", "####")


def test_duplicates_are_looked_for_within_a_prompt_and_the_better_scored_stays() -> None:
    def instance(prompt: str, score: float, mask: npt.NDArray[np.bool_]) -> Instance:
        detection = Detection(label="x", prompt=prompt, box_xyxy=(0.0, 0.0, 4.0, 3.0), score=score)
        return Instance(detection, mask=run_length_from_mask(mask), mask_score=0.5)

    instances = [
        instance("car", 0.3, LARGE),
        instance("dog", 0.2, LARGE),
        instance("car", 0.9, NEARLY),
        instance("car", 0.1, OTHER),
    ]
    assert without_duplicates(instances, 0.8, 1.0) == tuple(instances[1:])
    assert without_duplicates([], 0.8, 1.0) == ()


def test_all_settings_out_of_range_are_named_at_once() -> None:
    with pytest.raises(UsageError, match=r"min-area is 0, .*; outside-share is 2, .*; mask-iou-threshold is -1"):
        SegmentSettings(outside_share=2, mask_iou_threshold=-1, min_area=0)
