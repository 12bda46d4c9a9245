"""Overlays: what is painted where, in which colour, and that nothing else changes."""

import errno
import os
import resource
from pathlib import Path

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grounded_seg.geometry.masks import run_length_from_mask
from grounded_seg.images.draw import PALETTE, draw, save_picture
from grounded_seg.records import BoxXyxy, Detection, Image, ImageResult, Instance

GREY = 128


def grey_image(width: int = 400, height: int = 300) -> Image:
    return Image(path=Path("grey.png"), pixels=np.full((height, width, 3), GREY, dtype=np.uint8))


def instance(
    box_xyxy: BoxXyxy,
    prompt: str = "car",
    label: str = "car",
    score: float = 0.5,
    mask: npt.NDArray[np.bool_] | None = None,
) -> Instance:
    detection = Detection(label=label, prompt=prompt, box_xyxy=box_xyxy, score=score)
    return Instance(
        detection=detection,
        mask=None if mask is None else run_length_from_mask(mask),
        mask_score=None if mask is None else 0.9,
    )


def drawn(image: Image, *instances: Instance, prompts: tuple[str, ...] = ()) -> npt.NDArray[np.uint8]:
    return draw(image, ImageResult(path=image.path, size=image.size, instances=instances), prompts)


def has_colour(pixels: npt.NDArray[np.uint8], colour: tuple[int, int, int]) -> bool:
    return bool((pixels == np.array(colour)).all(axis=-1).any())


def test_nothing_found_gives_an_equal_copy() -> None:
    image = grey_image()
    pixels = drawn(image)
    assert np.array_equal(pixels, image.pixels)
    assert not np.shares_memory(pixels, image.pixels)


def test_the_image_is_not_changed() -> None:
    image = grey_image()
    image.pixels.flags.writeable = False
    mask = np.zeros((300, 400), dtype=np.bool_)
    mask[50:100, 50:100] = True
    pixels = drawn(image, instance((50, 50, 100, 100), mask=mask))
    assert (image.pixels == GREY).all()
    assert pixels.shape == (300, 400, 3)
    assert pixels.dtype == np.uint8
    assert not np.array_equal(pixels, image.pixels)


def test_a_mask_is_tinted_inside_only() -> None:
    mask = np.zeros((300, 400), dtype=np.bool_)
    mask[100:200, 100:200] = True
    pixels = drawn(grey_image(), instance((100, 100, 200, 200), mask=mask))
    # 85 % grey and 15 % of the first colour, by hand: an object keeps its own.
    assert pixels[150, 150].tolist() == [143, 133, 109]
    assert pixels[150, 50].tolist() == [GREY] * 3
    assert pixels[250, 150].tolist() == [GREY] * 3


def test_the_outline_lies_around_the_mask_between_dark_lines() -> None:
    """So it shows on an object of its own colour, and hides nothing of it."""
    mask = np.zeros((300, 400), dtype=np.bool_)
    mask[100:200, 100:200] = True
    image = Image(path=Path("a.png"), pixels=np.full((300, 400, 3), PALETTE[0], dtype=np.uint8))
    # Its box is elsewhere.
    pixels = drawn(image, instance((300, 250, 380, 290), mask=mask))
    assert (pixels[100:200, 100:200] == PALETTE[0]).all()
    outwards = pixels[150, 200:210].astype(int).sum(axis=1).tolist()
    dark, bright = sum(PALETTE[0]) // 2, sum(PALETTE[0])
    assert outwards[0] < dark
    line = next(index for index, value in enumerate(outwards) if value == bright)
    assert min(outwards[line:]) < dark
    assert outwards[-1] == bright


def test_the_lines_around_a_small_object_are_thin() -> None:
    mask = np.zeros((1200, 1600), dtype=np.bool_)
    mask[600:610, 800:810] = True
    image = grey_image(1600, 1200)
    pixels = drawn(image, instance((100, 100, 300, 300), mask=mask))
    rows, columns = np.nonzero((pixels[500:700, 700:900] != GREY).any(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (97, 112, 97, 112)


def test_a_label_stands_where_no_small_object_is() -> None:
    """Nor on its own one: above the first are two others, below it is room."""
    small = [instance((left, 80, left + 12, 92), prompt="b", score=0.9) for left in (150, 170)]
    own = instance((150, 100, 162, 112), prompt="a", score=0.5)
    pixels = drawn(grey_image(), *small, own, prompts=("a", "b"))
    rows = np.nonzero((pixels == np.array(PALETTE[0])).all(axis=-1))[0]
    chip = rows[np.bincount(rows, minlength=300)[rows] > 20]
    assert chip.min() >= 112
    for left in (150, 170):
        assert (pixels[83:89, left + 3 : left + 9] == GREY).all()
    assert (pixels[103:109, 153:159] == GREY).all()


def test_a_hole_in_a_mask_stays_clear_and_has_an_outline() -> None:
    mask = np.zeros((300, 400), dtype=np.bool_)
    mask[60:240, 60:240] = True
    mask[120:180, 120:180] = False
    pixels = drawn(grey_image(), instance((60, 60, 240, 240), mask=mask))
    assert pixels[150, 150].tolist() == [GREY] * 3
    assert has_colour(pixels[115:125, 140:160], PALETTE[0])


def test_the_box_lies_on_its_edges() -> None:
    pixels = drawn(grey_image(), instance((100, 100, 300, 200)))
    for row, column in ((150, 100), (150, 299), (199, 200)):
        assert has_colour(pixels[row - 1 : row + 2, column - 1 : column + 2], PALETTE[0])
    assert pixels[150, 200].tolist() == [GREY] * 3


def test_a_full_image_box_is_visible_on_all_four_sides() -> None:
    pixels = drawn(grey_image(), instance((0, 0, 400, 300)))
    for side in (pixels[150, :2], pixels[150, -2:], pixels[-2:, 300]):
        assert has_colour(side, PALETTE[0])


def test_each_prompt_has_its_colour() -> None:
    car, dog = instance((20, 50, 120, 150), prompt="car"), instance((220, 50, 320, 150), prompt="dog")
    pixels = drawn(grey_image(), car, dog)
    assert has_colour(pixels[:, :200], PALETTE[0])
    assert not has_colour(pixels[:, :200], PALETTE[1])
    assert has_colour(pixels[:, 200:], PALETTE[1])


def test_colours_follow_the_run_s_prompts() -> None:
    dog = instance((220, 50, 320, 150), prompt="dog")
    assert has_colour(drawn(grey_image(), dog), PALETTE[0])
    assert has_colour(drawn(grey_image(), dog, prompts=("car", "dog")), PALETTE[1])


def test_more_prompts_than_colours() -> None:
    many = [instance((20, 50, 120, 150), prompt=f"thing {number}") for number in range(len(PALETTE) + 1)]
    assert has_colour(drawn(grey_image(), many[-1], prompts=tuple(one.detection.prompt for one in many)), PALETTE[0])


def test_the_best_lies_on_top_whatever_the_order() -> None:
    good, bad = instance((50, 50, 200, 200), prompt="a", score=0.9), instance((50, 50, 200, 200), prompt="b", score=0.1)
    one, other = (drawn(grey_image(), *order, prompts=("a", "b")) for order in ((good, bad), (bad, good)))
    assert np.array_equal(one, other)
    assert has_colour(one[150, 45:55], PALETTE[0])
    assert not has_colour(one[150, 45:55], PALETTE[1])


def test_labels_of_one_place_do_not_hide_each_other() -> None:
    same = [instance((50, 100, 250, 250), prompt=prompt, score=score) for prompt, score in (("a", 0.9), ("b", 0.8))]
    pixels = drawn(grey_image(), *same)
    # A chip is a field of its colour; lines are at most a few pixels wide.
    for colour in PALETTE[:2]:
        assert (pixels == np.array(colour)).all(axis=-1).sum(axis=1).max() >= 20
    top = pixels[:100, 50:80].reshape(-1, 3)
    assert has_colour(top, PALETTE[0])
    assert not has_colour(top, PALETTE[1])


@pytest.mark.parametrize("label", ["voiture écarlate", "красная машина", "红色汽车", "赤い車", "빨간 차", "κόκκινο"])
def test_letters_of_other_alphabets_are_not_question_marks(label: str) -> None:
    box = (20, 50, 380, 250)
    marks = drawn(grey_image(), instance(box, label="?" * len(label)))
    assert not np.array_equal(drawn(grey_image(), instance(box, label=label)), marks)
    # Any two letters look different, which the same sign for all would not.
    first, second = (drawn(grey_image(), instance(box, label=letter)) for letter in (label[0], label[-1]))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("label", ["", "half \udcff character", "two\nlines\tand tabs", "🚗", "\x00"])
def test_odd_labels_are_drawn(label: str) -> None:
    assert has_colour(drawn(grey_image(), instance((20, 50, 380, 250), label=label)), PALETTE[0])


@pytest.mark.parametrize("label", ["car", ""])
def test_the_truth_is_drawn_without_scores(label: str) -> None:
    image = grey_image()
    results = [
        ImageResult(image.path, image.size, (instance((50, 50, 200, 200), label=label, score=score),))
        for score in (1.0, 0.5)
    ]
    plain, other = (draw(image, result, with_scores=False) for result in results)
    assert np.array_equal(plain, other)
    assert not np.array_equal(plain, draw(image, results[0]))


def test_lines_and_letters_grow_with_the_image() -> None:
    small = drawn(grey_image(1600, 1200), instance((160, 360, 1440, 1080)))
    large = drawn(grey_image(4800, 3600), instance((480, 1080, 4320, 3240)))
    painted_small, painted_large = ((pixels != GREY).any(axis=-1).mean() for pixels in (small, large))
    assert 0.5 < painted_large / painted_small < 1.5


edges = st.floats(-60, 120)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 64), st.integers(1, 64), st.tuples(edges, edges, edges, edges), st.text(max_size=8))
def test_any_box_and_label_on_any_image(width: int, height: int, box_xyxy: BoxXyxy, label: str) -> None:
    pixels = drawn(grey_image(width, height), instance(box_xyxy, label=label))
    assert pixels.shape == (height, width, 3)


def test_saved_pictures_read_back(tmp_path: Path) -> None:
    pixels = drawn(grey_image(), instance((20, 50, 380, 250)))
    path = tmp_path / "new" / "füße.png"
    save_picture(path, pixels)
    assert np.array_equal(np.asarray(PIL.Image.open(path)), pixels)
    mask = np.zeros((5, 7), dtype=np.uint8)
    mask[2, 3] = 255
    save_picture(path, mask)
    assert np.array_equal(np.asarray(PIL.Image.open(path)), mask)


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    pixels = drawn(grey_image(), instance((20, 50, 380, 250)))
    for name in ("a.png", "b.png"):
        save_picture(tmp_path / name, pixels)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_that_the_disk_has_no_room_for_is_an_error(tmp_path: Path, name: str) -> None:
    path, pixels = tmp_path / name, drawn(grey_image(), instance((20, 50, 380, 250)))
    save_picture(path, pixels)
    n_bytes = path.stat().st_size
    path.unlink()
    # The system takes all but the last bytes, and says so instead of failing.
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes - 10, before[1]))
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)):
            save_picture(path, pixels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    # Neither a part of it, nor a hidden one.
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_no_known_format_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ending"):
        save_picture(tmp_path / "a.xyz", np.zeros((5, 7), dtype=np.uint8))
