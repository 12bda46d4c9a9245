"""Read with torchvision's CocoDetection, whose targets are COCO's annotations."""

import sys
from pathlib import Path

from pycocotools import mask as coco_mask
from reader_output import ReaderOutput
from torchvision.datasets import CocoDetection

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
data = CocoDetection(str(root / "images"), str(root / "annotations.json"))
output = ReaderOutput()
for index, number in enumerate(data.ids):
    _, target = data[index]
    name = data.coco.loadImgs(number)[0]["file_name"]
    for one in target:
        x, y, width, height = one["bbox"]
        mask = None
        if one["segmentation"]:
            mask = coco_mask.decode(data.coco.annToRLE(one)) > 0
        label = data.coco.cats[one["category_id"]]["name"]
        output.add(name, label, (x, y, x + width, y + height), mask, one.get("score"), attributes=one.get("attributes"))
output.write(destination)
