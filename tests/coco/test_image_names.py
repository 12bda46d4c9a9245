"""Whose images are meant: names of predictions against names of a data set."""

import pytest

from grounded_seg.coco.data_set import DataSetImage
from grounded_seg.coco.image_names import images_by_name


def images(*names: str) -> list[DataSetImage]:
    return [DataSetImage(number, name, None) for number, name in enumerate(names)]


@pytest.mark.parametrize(
    ("named", "listed", "found"),
    [
        (["a.png", "b.png"], ["b.png", "a.png"], {"a.png": 1, "b.png": 0}),
        # A run on a sub-folder, and one on a parent folder.
        (["1.png"], ["val/1.png", "val/2.png"], {"1.png": 0}),
        (["val/1.png"], ["1.png"], {"val/1.png": 0}),
        # A last part that two images share says nothing.
        (["1.png"], ["a/1.png", "b/1.png"], {}),
        (["a/1.png", "b/1.png"], ["a/1.png", "b/1.png"], {"a/1.png": 0, "b/1.png": 1}),
        # The whole name fits better than the last part.
        (["1.png", "other/1.png"], ["1.png"], {"1.png": 0}),
        (["unknown.png"], ["1.png"], {}),
        # As many last parts decide as there are in common.
        (
            ["val/a/0.png", "val/b/0.png", "val/c/9.png"],
            ["a/0.png", "b/0.png", "c/9.png"],
            {"val/a/0.png": 0, "val/b/0.png": 1, "val/c/9.png": 2},
        ),
        (["a/0.png", "b/0.png"], ["val/a/0.png", "val/b/0.png"], {"a/0.png": 0, "b/0.png": 1}),
        (["x/val/a/0.png"], ["old/a/0.png", "val/a/0.png", "a/0.png"], {"x/val/a/0.png": 1}),
        # Three parts in common fit better than two, and two that fit alike say nothing.
        (["x/a/0.png", "y/0.png"], ["a/0.png"], {"x/a/0.png": 0}),
        (["x/a/0.png"], ["one/a/0.png", "two/a/0.png"], {}),
        ([], [], {}),
    ],
)
def test_names_lead_to_images(named: list[str], listed: list[str], found: dict[str, int]) -> None:
    assert {name: image.id for name, image in images_by_name(named, images(*listed)).items()} == found


def test_two_names_for_one_image_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'a/1.png' and 'b/1.png' could both be the data set's '1.png'"):
        images_by_name(["b/1.png", "a/1.png"], images("1.png"))


def test_names_that_fit_one_image_alike_are_refused() -> None:
    with pytest.raises(ValueError, match=r"'x/a/0.png' and 'y/a/0.png' could both be the data set's 'a/0.png'"):
        images_by_name(["y/a/0.png", "x/a/0.png"], images("a/0.png", "b/0.png"))


def test_an_image_that_is_listed_twice_is_meant_by_no_name() -> None:
    with pytest.raises(ValueError, match=r"the data set lists '1.png' 2 times"):
        images_by_name(["1.png"], images("1.png", "1.png"))
    with pytest.raises(ValueError, match=r"the data set lists '1.png' 2 times"):
        images_by_name(["val/1.png"], images("1.png", "1.png"))
    assert images_by_name(["2.png"], images("1.png", "1.png", "2.png")).keys() == {"2.png"}
