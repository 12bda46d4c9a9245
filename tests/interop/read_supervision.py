"""Read with supervision's data set loaders."""

import sys
from pathlib import Path

import supervision as sv
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
if form == "coco":
    images = root / "images"
    dataset = sv.DetectionDataset.from_coco(str(images), str(root / "annotations.json"), force_masks=seg != "none")
elif form == "yolo":
    images = root / "images" / "train"
    labels = root / "labels" / "train"
    dataset = sv.DetectionDataset.from_yolo(str(images), str(labels), str(root / "data.yaml"))
else:
    images = root / "JPEGImages"
    dataset = sv.DetectionDataset.from_pascal_voc(str(images), str(root / "Annotations"))
output = ReaderOutput()
for path, found in dataset.annotations.items():
    name = Path(path).resolve().relative_to(images.resolve()).as_posix()
    for place in range(len(found)):
        mask = None if found.mask is None else found.mask[place]
        output.add(name, dataset.classes[found.class_id[place]], found.xyxy[place], mask)
output.write(destination)
