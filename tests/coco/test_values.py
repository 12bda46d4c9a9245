"""Each kind of COCO value: what is read, what is read with a note, and what is refused."""

from typing import Any

import numpy as np
import pytest

from grounded_seg.coco.objects import Shape, shape_of
from grounded_seg.coco.values import (
    Notes,
    box_xywh,
    id_text,
    image_size,
    is_crowd,
    is_plain_id,
    list_from_text,
    mask_of,
    number,
    number_or_none,
    plain_numbers,
    plain_size,
)
from grounded_seg.geometry.masks import area_px, coco_from_run_length, run_length_from_mask
from grounded_seg.records import ImageSize

SIZE = ImageSize(20, 10)
MASK = np.zeros((10, 20), np.bool_)
MASK[3:8, 2:6] = True
RLE = coco_from_run_length(run_length_from_mask(MASK))
SQUARE = [2, 3, 6, 3, 6, 8, 2, 8]


@pytest.mark.parametrize(
    ("raw", "text"), [(7, "7"), (7.0, "7"), ("7", "7"), (" 07 ", "7"), ("7.0", "7"), ("a1", "a1"), (1.5, "1.5")]
)
def test_one_id_has_one_text(raw: Any, text: str) -> None:
    assert id_text(raw) == text


@pytest.mark.parametrize("raw", [None, True, "", [], {}])
def test_what_is_no_id(raw: Any) -> None:
    with pytest.raises(ValueError, match="is no id"):
        id_text(raw)


def test_plain_ids_are_whole_numbers_from_1_of_64_bits() -> None:
    assert [one for one in (1, 0, True, 1.0, "1", 2**63 - 1, 2**63) if is_plain_id(one)] == [1, 2**63 - 1]


@pytest.mark.parametrize(("raw", "value"), [(1, 1.0), ("1.5", 1.5), (-2.0, -2.0)])
def test_numbers_may_be_text(raw: Any, value: float) -> None:
    assert number(raw) == number_or_none(raw) == value


@pytest.mark.parametrize("raw", [None, True, "x", "nan", float("inf"), 10**400, [1]])
def test_what_is_no_number(raw: Any) -> None:
    with pytest.raises(ValueError, match="is no number"):
        number(raw)
    assert number_or_none(raw) is None


def test_plain_numbers_are_neither_text_nor_beyond_64_bits() -> None:
    assert plain_numbers([1, 2.5]) == [1.0, 2.5]
    assert [plain_numbers(raw) for raw in (None, "1 2", ["1"], [True], [float("nan")], [2**63], (1, 2))] == [None] * 7


def test_sizes_are_whole_numbers_from_1() -> None:
    assert image_size({"width": "20", "height": 10.0}) == SIZE
    assert image_size({"width": 20}) is None
    for width, says in ((0, "its size is 0 x 10 px"), (1.5, "its size is 1.5 x 10 px"), ("w", "width or height 'w'")):
        with pytest.raises(ValueError, match=says):
            image_size({"width": width, "height": 10})
    assert plain_size({"width": 20, "height": 10}) == SIZE
    assert [plain_size({"width": width, "height": 10}) for width in ("20", 20.0, 0, True, 10**10)] == [None] * 5


def test_crowds() -> None:
    notes = Notes()
    said = [{}, {"iscrowd": 0}, {"iscrowd": 1}, {"iscrowd": "0"}, {"iscrowd": None}, {"iscrowd": True}]
    assert [is_crowd(one, "here", notes) for one in said] == [False, False, True, False, False, True]
    assert notes.lines() == (
        "numbers written as text were read (once, first in here)",
        "iscrowd written as true or false was read as 1 or 0 (once, first in here)",
    )
    with pytest.raises(ValueError, match="iscrowd 'so' is no number"):
        is_crowd({"iscrowd": "so"})


def test_boxes_as_text_need_notes() -> None:
    notes = Notes()
    assert box_xywh("[2, 3, 4, 5]", "here", notes) == box_xywh(["2", 3, 4, 5.0]) == (2.0, 3.0, 4.0, 5.0)
    assert notes.lines() == ("boxes written as text were read as numbers (once, first in here)",)
    assert box_xywh(None) is None
    for raw in ("[2, 3, 4, 5]", [2, 3, 4], {"x": 2}):
        with pytest.raises(ValueError, match="isn't x, y, width, height"):
            box_xywh(raw)


@pytest.mark.parametrize("raw", [RLE, {**RLE, "counts": RLE["counts"].encode()}, [SQUARE]])
def test_all_forms_of_a_mask_are_one(raw: Any) -> None:
    assert mask_of(raw, SIZE) == run_length_from_mask(MASK)


@pytest.mark.parametrize(
    ("raw", "note"),
    [
        (SQUARE, "polygons that are not in a list of parts were read as one part"),
        (str([SQUARE]), "segmentations written as text were read"),
        ([SQUARE, [1, 2, 3, 4]], "polygon parts with fewer than three corners were left out"),
    ],
)
def test_unusual_masks_need_notes(raw: Any, note: str) -> None:
    notes = Notes()
    assert mask_of(raw, SIZE, "here", notes) == run_length_from_mask(MASK)
    assert notes.lines() == (f"{note} (once, first in here)",)
    with pytest.raises(ValueError, match=r"polygon|segmentation"):
        mask_of(raw, SIZE)


@pytest.mark.parametrize(
    ("raw", "size", "says"),
    [
        (RLE, ImageSize(10, 20), "the mask is 20 x 10 px, its image 10 x 20 px"),
        ({**RLE, "counts": "zz~"}, SIZE, "a segmentation is no run-length mask"),
        ([SQUARE], None, "its image has no width and height"),
        (7, SIZE, "neither polygons nor run lengths"),
        ([[0, 0, 1e9, 0, 1e9, 1e9]], SIZE, "far beyond its image"),
    ],
)
def test_what_is_no_mask(raw: Any, size: ImageSize | None, says: str) -> None:
    for notes in (None, Notes()):
        with pytest.raises(ValueError, match=says):
            mask_of(raw, size, "here", notes)


def test_a_shape_may_lack_its_box_or_its_mask() -> None:
    notes = Notes()
    shape = shape_of(None, RLE, SIZE, "here", notes, "objects")
    assert shape is not None
    assert (shape.box_xywh, shape.mask and area_px(shape.mask)) == ((2.0, 3.0, 4.0, 5.0), 20)
    assert notes.lines() == ("objects without a bbox got their mask's (once, first in here)",)
    assert shape_of([1, 2, 3, 4], [], SIZE, "here", notes, "objects") == Shape((1.0, 2.0, 3.0, 4.0), None, [])
    with pytest.raises(ValueError, match="neither bbox nor segmentation"):
        shape_of(None, [[]], SIZE, "here", notes, "objects")
    with pytest.raises(ValueError, match="has a negative side"):
        shape_of([1, 2, -3, 4], None, SIZE, "here", notes, "objects")


def test_lists_from_text() -> None:
    assert list_from_text("[1, [2]]") == [1, [2]]
    assert list_from_text(" 1, 2  3") == ["1", "2", "3"]
    with pytest.raises(ValueError, match="no list of numbers"):
        list_from_text("[1")
