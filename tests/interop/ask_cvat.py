"""Run the function file with the driver of CVAT's SDK: masks, polygons, a threshold, and a task with fewer labels."""

import json
import logging
import sys
from types import SimpleNamespace

import cvat_sdk.auto_annotation as cvat
from cvat_sdk import models
from cvat_sdk.auto_annotation import driver
from cvat_sdk.masks import decode_mask
from PIL import Image

from grounded_seg.serve import cvat_function

_, *scenes = sys.argv[1:]
IMAGES = [Image.open(path) for path in scenes]


class Dataset:
    """What the driver needs of a task; the images are on this disk instead of a server."""

    labels: list = []  # type: ignore[type-arg]  # noqa: RUF012

    def __init__(self, *_, **__):  # type: ignore[no-untyped-def]
        self.samples = [
            SimpleNamespace(
                frame_name=path, frame_index=index, media=SimpleNamespace(load_image=lambda image=image: image)
            )
            for index, (path, image) in enumerate(zip(scenes, IMAGES, strict=True))
        ]


def annotated(function, names, kind="any", **options):  # type: ignore[no-untyped-def]
    """Annotate a task with these labels, and give what the driver uploads."""
    Dataset.labels = [
        models.Label._from_openapi_data(id=100 + number, name=name, type=kind, attributes=[], sublabels=[])
        for number, name in enumerate(names)
    ]
    uploaded = []

    def upload(_, *, labeled_data_request):  # type: ignore[no-untyped-def]
        uploaded.append(labeled_data_request)

    api = SimpleNamespace(update_annotations=upload)
    client = SimpleNamespace(logger=logging.getLogger("cvat"), tasks=SimpleNamespace(api=api))
    driver.TaskDataset = Dataset
    cvat.annotate_task(client, 1, function, clear_existing=True, **options)
    [sent] = uploaded
    return list(sent.shapes)


report = []
function = cvat_function.create("car; ball; tree", "demo", device="cpu", score_threshold=0.3)
names = ["tree", "car", "ball"]
masks = annotated(function, names)
assert masks, "nothing was found: that says nothing"
assert {str(one.type) for one in masks} == {"mask"}
assert {one.label_id for one in masks} <= {100, 101, 102}
for one in masks:
    image = IMAGES[one.frame]
    width, height = (image.height, image.width) if image.getexif().get(0x0112) == 6 else image.size
    assert decode_mask(one.points, image_width=width, image_height=height).any()
    assert 0.3 <= one.score <= 1
report.append(f"{len(masks)} masks on {len(scenes)} frames, with scores")
polygons = annotated(function, names, conv_mask_to_poly=True)
assert {str(one.type) for one in polygons} == {"polygon"}
assert len(polygons) >= len(masks)
report.append(f"{len(polygons)} polygons where CVAT asks for them")
sure = annotated(function, names, conf_threshold=0.9)
assert len(sure) < len(annotated(function, names, conf_threshold=0.05))
assert all(one.score >= 0.9 for one in sure)
report.append(f"{len(sure)} masks of a confidence of .9")
assert {one.label_id for one in annotated(function, ["car"], allow_unmatched_labels=True)} <= {100}
boxes = annotated(cvat_function.create("car", "demo", device="cpu", boxes_only=True), ["car"])
assert {str(one.type) for one in boxes} == {"rectangle"}
report.append(f"{len(boxes)} rectangles of a function without masks")
print(json.dumps(report))
