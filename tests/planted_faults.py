"""A right COCO document and faults to plant in it, each with the rule and the place that `validate` has to name."""

from collections.abc import Callable
from typing import Any

import numpy as np

from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_mask

MASK = np.zeros((10, 20), np.bool_)
MASK[3:8, 2:6] = True
RLE = dict(coco_from_run_length(run_length_from_mask(MASK)))
RLE_OF_ANOTHER_SIZE = dict(coco_from_run_length(run_length_from_mask(np.ones((12, 20), np.bool_))))


def good() -> Any:
    """Two images, two categories, a polygon, a run-length mask and a box."""
    common = {"bbox": [2, 3, 4, 5], "area": 20, "iscrowd": 0}
    return {
        "images": [
            {"id": 1, "file_name": "a.jpg", "width": 20, "height": 10},
            {"id": 2, "file_name": "sub/b.jpg", "width": 20, "height": 10},
        ],
        "categories": [{"id": 1, "name": "car"}, {"id": 2, "name": "Vögel"}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, **common, "segmentation": [[2, 3, 6, 3, 6, 8, 2, 8]]},
            {"id": 2, "image_id": 2, "category_id": 2, **common, "segmentation": RLE, "score": 0.5},
            {"id": 3, "image_id": 2, "category_id": 1, **common, "segmentation": []},
        ],
    }


def setting(section: str, place: int, **values: Any) -> Callable[[Any], None]:
    """A fault that is a value of one record; None takes the key out."""

    def plant(document: Any) -> None:
        for key, value in values.items():
            document[section][place][key] = value
            if value is None:
                del document[section][place][key]

    return plant


def dropping(section: str) -> Callable[[Any], None]:
    return lambda document: document.pop(section)


def appending(section: str, **record: Any) -> Callable[[Any], None]:
    return lambda document: document[section].append(record)


def categories_from_zero(document: Any) -> None:
    for category in document["categories"]:
        category["id"] -= 1
    for annotation in document["annotations"]:
        annotation["category_id"] -= 1


def text_ids(document: Any) -> None:
    for image in document["images"]:
        image["id"] = str(image["id"])
    for annotation in document["annotations"]:
        annotation["image_id"] = str(annotation["image_id"])


def text_categories(document: Any) -> None:
    for category in document["categories"]:
        category["id"] = str(category["id"])
    for annotation in document["annotations"]:
        annotation["category_id"] = str(annotation["category_id"])


def root_category(document: Any) -> None:
    """Plant the parent class of Roboflow's exports, which has no objects."""
    document["categories"].insert(0, {"id": 0, "name": "things", "supercategory": "none"})


def images_from_zero(document: Any) -> None:
    for image in document["images"]:
        image["id"] -= 1
    for annotation in document["annotations"]:
        annotation["image_id"] -= 1


def normalized_boxes(document: Any) -> None:
    for annotation in document["annotations"]:
        annotation.update(bbox=[0.1, 0.3, 0.2, 0.5], area=0.1, segmentation=[])


def captions(document: Any) -> None:
    document["annotations"] = [{"id": 1, "image_id": 1, "caption": "a car"}, {"id": 2, "image_id": 2, "caption": "b"}]


def null(key: str) -> Callable[[Any], None]:
    return lambda document: document["annotations"][2].update({key: None})


def twice(document: Any) -> None:
    document["annotations"].append({**document["annotations"][0], "id": 4})


FAULTS: list[tuple[str, str, Callable[[Any], None]]] = [
    ("missing-section", "$", dropping("categories")),
    ("section-not-a-list", "annotations", lambda document: document.update(annotations={"1": {}})),
    ("record-not-an-object", "images[2]", lambda document: document["images"].append("c.jpg")),
    ("id-missing", "images[1]", setting("images", 1, id=None)),
    ("id-not-an-integer", "images[0].id", text_ids),
    ("id-not-an-integer", "annotations[0].id", setting("annotations", 0, id=1.5)),
    ("id-below-one", "annotations[0].id", setting("annotations", 0, id=-1)),
    ("annotation-zero", "annotations[0].id", setting("annotations", 0, id=0)),
    ("id-too-large", "annotations[0].id", setting("annotations", 0, id=2**63)),
    ("duplicate-id", "annotations[1].id", setting("annotations", 1, id=1)),
    ("duplicate-id", "images[2].id", appending("images", id=2, file_name="c.jpg", width=20, height=10)),
    ("unknown-image", "annotations[0].image_id", setting("annotations", 0, image_id=77)),
    ("unknown-category", "annotations[1].category_id", setting("annotations", 1, category_id=77)),
    ("file-name-missing", "images[0]", setting("images", 0, file_name=None)),
    ("file-name-not-relative", "images[1].file_name", setting("images", 1, file_name="C:\\photos\\b.jpg")),
    ("file-name-not-relative", "images[1].file_name", setting("images", 1, file_name="/photos/../b.jpg")),
    ("file-name-not-relative", "images[1].file_name", setting("images", 1, file_name="b\0.jpg")),
    ("duplicate-file-name", "images[1].file_name", setting("images", 1, file_name="a.jpg")),
    ("same-base-name", "images[1].file_name", setting("images", 1, file_name="sub/a.jpg")),
    ("size-missing", "images[1]", setting("images", 1, width=None, height=None)),
    ("size-missing", "images[0]", setting("images", 0, width="20")),
    ("size-missing", "images[1]", setting("images", 1, width=10**10)),
    ("category-name-missing", "categories[1]", setting("categories", 1, name=None)),
    ("duplicate-category-name", "categories[1].name", setting("categories", 1, name="car")),
    ("bbox-as-text", "annotations[0].bbox", setting("annotations", 0, bbox="[2, 3, 4, 5]")),
    ("bbox-malformed", "annotations[0].bbox", setting("annotations", 0, bbox=[2, 3, 4])),
    ("bbox-malformed", "annotations[2].bbox", setting("annotations", 2, bbox=None)),
    ("bbox-empty", "annotations[1].bbox", setting("annotations", 1, bbox=[2, 3, 0, 5])),
    ("bbox-outside", "annotations[2].bbox", setting("annotations", 2, bbox=[12, 3, 14, 5])),
    ("bbox-off", "annotations[0].bbox", setting("annotations", 0, bbox=[10, 3, 4, 5])),
    ("segmentation-as-text", "annotations[0].segmentation", setting("annotations", 0, segmentation="[[2,3,6,3,6,8]]")),
    ("segmentation-malformed", "annotations[0].segmentation", setting("annotations", 0, segmentation=7)),
    ("polygon-malformed", "annotations[0].segmentation", setting("annotations", 0, segmentation=[2, 3, 6, 3, 6, 8])),
    ("polygon-malformed", "annotations[0].segmentation[0]", setting("annotations", 0, segmentation=[[2, 3, 6, 3]])),
    (
        "polygon-outside",
        "annotations[0].segmentation[0]",
        setting("annotations", 0, segmentation=[[2, 3, 26, 3, 6, 8]]),
    ),
    (
        "polygon-malformed",
        "annotations[0].segmentation",
        setting("annotations", 0, segmentation=[[2, 3, 1e30, 3, 6, 8]]),
    ),
    (
        "rle-size-wrong",
        "annotations[1].segmentation",
        setting("annotations", 1, segmentation={**RLE, "size": [20, 10]}),
    ),
    ("rle-size-wrong", "annotations[1].segmentation", setting("annotations", 1, segmentation=RLE_OF_ANOTHER_SIZE)),
    ("rle-damaged", "annotations[1].segmentation", setting("annotations", 1, segmentation={**RLE, "counts": "zz~"})),
    ("mask-empty", "annotations[1].segmentation", setting("annotations", 1, segmentation={**RLE, "counts": [200]})),
    ("area-malformed", "annotations[0].area", setting("annotations", 0, area=None)),
    ("area-odd", "annotations[2].area", setting("annotations", 2, area=10**29)),
    ("area-off", "annotations[0].area", setting("annotations", 0, area=200)),
    ("iscrowd-missing", "annotations[2]", setting("annotations", 2, iscrowd=None)),
    ("crowd-with-polygons", "annotations[0].iscrowd", setting("annotations", 0, iscrowd=1)),
    ("score-odd", "annotations[1].score", setting("annotations", 1, score=87)),
    ("category-zero", "categories[0].id", categories_from_zero),
    ("id-below-one", "categories[0].id", root_category),
    ("id-below-one", "images[0].id", images_from_zero),
    ("duplicate-id", "categories[1].id", setting("categories", 1, id=1)),
    ("bbox-negative", "annotations[2].bbox", setting("annotations", 2, bbox=[6, 3, -4, 5])),
    ("bbox-beyond-image", "annotations[2].bbox", setting("annotations", 2, bbox=[25, 3, 4, 5])),
    ("bbox-normalized", "annotations", normalized_boxes),
    ("bbox-malformed", "annotations[2].bbox", setting("annotations", 2, bbox=[2, 3, "4", "5"])),
    ("segmentation-missing", "annotations[2]", setting("annotations", 2, segmentation=None)),
    ("segmentation-malformed", "annotations[2].segmentation", null("segmentation")),
    ("bbox-malformed", "annotations[2].bbox", null("bbox")),
    ("area-malformed", "annotations[2].area", setting("annotations", 2, area="20")),
    ("area-odd", "annotations[2].area", setting("annotations", 2, area=-20)),
    ("iscrowd-odd", "annotations[2].iscrowd", setting("annotations", 2, iscrowd=False)),
    ("iscrowd-wrong", "annotations[2].iscrowd", setting("annotations", 2, iscrowd="0")),
    ("iscrowd-odd", "annotations[2].iscrowd", setting("annotations", 2, iscrowd=2)),
    ("score-wrong", "annotations[1].score", setting("annotations", 1, score="0.5")),
    ("half-surrogate", "categories[0].name", setting("categories", 0, name="a\ud83d")),
    ("half-surrogate", "images[0].file_name", setting("images", 0, file_name="a\ud83d.jpg")),
    ("key-missing", "annotations[2]", setting("annotations", 2, category_id=None)),
    ("key-missing", "annotations[2]", setting("annotations", 2, image_id=None)),
    ("captions", "annotations", captions),
    ("id-not-an-integer", "categories[0].id", text_categories),
    ("duplicate-annotation", "annotations[3]", twice),
]
