"""Read with the converter of Label Studio's SDK: its brush decoder, and its way from polygons and boxes to COCO.

The converter takes accepted annotations only, so the predictions are accepted as Label Studio does it: their regions
are copied. It drops scores, which are read from the regions; each region comes out as an annotation of its own.
"""

import json
import sys
import tempfile
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from label_studio_sdk.converter import Converter
from label_studio_sdk.converter.brush import decode_rle
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
tasks = json.loads((root / "tasks.json").read_text())
output = ReaderOutput()


def name_of(task):  # type: ignore[no-untyped-def]
    """Give the image's name as it was before the export."""
    return unquote(task["data"]["image"]).removeprefix("/data/local-files/?d=images/")


for number, task in enumerate(tasks, 1):
    # What the database adds.
    task["id"] = number
    task["annotations"] = [{"id": number, "result": task["predictions"][0]["result"]}]
    for region in task["annotations"][0]["result"]:
        value = region["value"]
        if region["type"] == "brushlabels":
            shape_hw = (region["original_height"], region["original_width"])
            mask = decode_rle(value["rle"]).reshape(*shape_hw, 4)[:, :, 3] > 0
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            output.add(name_of(task), value["brushlabels"][0], box, mask, region.get("score"))

with tempfile.TemporaryDirectory() as work:
    accepted = Path(work, "accepted.json")
    accepted.write_text(json.dumps(tasks))
    converter = Converter(str(root / "config.xml"), str(root), local_files_resolver=lambda path: str(root / path))
    converter.convert(str(accepted), work, "COCO", is_dir=False)
    found = json.loads(Path(work, "result.json").read_text())
classes = {category["id"]: category["name"] for category in found["categories"]}
annotations = {}
for annotation in found["annotations"]:
    annotations.setdefault(annotation["image_id"], []).append(annotation)
# It numbers the images in the order of the tasks, and an image's regions in their order, one kind after the other.
for number, task in enumerate(tasks):
    regions = [one for one in task["annotations"][0]["result"] if one["type"] != "brushlabels"]
    kinds = list(dict.fromkeys(region["from_name"] for region in regions))
    regions.sort(key=lambda region: kinds.index(region["from_name"]))
    for region, annotation in zip(regions, annotations.get(number, []), strict=True):
        x, y, width, height = annotation["bbox"]
        output.add(
            name_of(task),
            classes[annotation["category_id"]],
            (x, y, x + width, y + height),
            score=region.get("score"),
            polygons=annotation["segmentation"] or None,
            size_hw=(region["original_height"], region["original_width"]),
        )
output.write(destination)
