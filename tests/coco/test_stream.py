"""A COCO file image by image: what is given, and what is refused with the way to repair it."""

from pathlib import Path
from typing import Any

import pytest
from coco_cases import Box, truth, written

from grounded_seg.coco.stream import CocoReader
from grounded_seg.errors import InputError
from grounded_seg.geometry.masks import area_px

HERE: Box = (10, 10, 40, 40)
FAR: Box = (60, 60, 30, 30)


def test_images_come_with_their_annotations_in_the_order_of_the_file(tmp_path: Path) -> None:
    document = truth((2, 1, HERE), (1, 2, FAR), (2, 2, FAR), n_images=2)
    document["annotations"][0] |= {"iscrowd": 1, "score": 0.5}
    document["annotations"][2]["segmentation"] = []
    with CocoReader(written(tmp_path / "a.json", document | {"more": {"x": 1}})) as reader:
        second, first = reader.labelled_image(2), reader.labelled_image(1)
        assert reader.has_masks
        assert reader.sections["more"] == {"x": 1}
    assert [(one.category, one.box_xyxy) for one in second.labels] == [
        ("car", (10.0, 10.0, 50.0, 50.0)),
        ("dog", (60.0, 60.0, 90.0, 90.0)),
    ]
    assert [(one.is_crowd, one.score, one.mask and area_px(one.mask)) for one in second.labels] == [
        (True, 0.5, 1600),
        (False, None, None),
    ]
    assert [one.record["id"] for one in first.labels] == [2]


def changed(section: str, **change: Any) -> dict[str, Any]:
    document = truth((1, 1, HERE), (1, 2, FAR))
    document[section][0] |= change
    return document


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("[", "it is no JSON"),
        (truth() | {"images": []}, "it lists no images"),
        (changed("annotations", image_id=7), "an annotation names image 7, category 1, not both are listed"),
        (changed("annotations", id="1"), "one of its annotations has id '1', which is no whole number from 1"),
        (changed("categories", id=2), "two categories have the id 2"),
        (changed("images", width=None), "it has no width and height"),
        (changed("annotations", bbox=None), "it has no bbox"),
        (changed("annotations", bbox="[1, 2, 3, 4]"), "isn't x, y, width, height"),
        (changed("annotations", segmentation=[[1, 2, 3, 4]]), "at least three x, y pairs"),
        (changed("annotations", segmentation={"size": [50, 50], "counts": [2500]}), "the mask is 50 x 50 px"),
        (changed("annotations", score="high"), "'high' is no number"),
    ],
)
def test_what_is_not_as_coco_says_is_refused_with_the_way_to_repair_it(
    tmp_path: Path, document: Any, says: str
) -> None:
    path = written(tmp_path / "a.json", document)

    def read() -> None:
        with CocoReader(path) as reader:
            reader.labelled_image(1)

    with pytest.raises(InputError, match=f"validate {path} --fix OUT") as raised:
        read()
    assert says in str(raised.value)
