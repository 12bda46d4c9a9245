"""Read with Datumaro's COCO importer, which is CVAT's too; annotations of one group are one label."""

import shutil
import sys
from pathlib import Path

import numpy as np
from datumaro import Dataset
from datumaro.components.annotation import AnnotationType
from pycocotools import mask as coco_mask
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
# The layout that its importer looks for.
layout = root / "datumaro"
(layout / "annotations").mkdir(parents=True)
shutil.copy(root / "annotations.json", layout / "annotations" / "instances_default.json")
shutil.move(root / "images", layout / "images")
(layout / "images" / "default").mkdir()
for path in list((layout / "images").iterdir()):
    if path.name != "default":
        shutil.move(path, layout / "images" / "default")
dataset = Dataset.import_from(str(layout), "coco_instances")
names = [label.name for label in dataset.categories()[AnnotationType.label]]
output = ReaderOutput()
for item in dataset:
    height, width = item.media.size
    groups = {}
    for annotation in item.annotations:
        groups.setdefault((annotation.group, annotation.label), []).append(annotation)
    for (_, label), annotations in groups.items():
        mask = np.zeros((height, width), bool)
        for annotation in annotations:
            if annotation.type == AnnotationType.polygon:
                # It rounds corners to two decimals and keeps them as 32-bit numbers, 239.9 as 239.89999: what they
                # stand for are the two decimals. It rasterises none itself.
                corners = [round(float(value), 2) for value in annotation.points]
                mask |= coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([corners], height, width))) > 0
            elif annotation.type == AnnotationType.mask:
                mask |= annotation.image > 0
        shapes = [one for one in annotations if one.type in (AnnotationType.polygon, AnnotationType.mask)]
        if shapes:
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        else:
            x, y, width_px, height_px = annotations[0].get_bbox()
            box = (x, y, x + width_px, y + height_px)
        score = annotations[0].attributes.get("score")
        name = Path(item.media.path).relative_to(layout / "images" / "default").as_posix()
        attributes = dict(annotations[0].attributes)
        output.add(name, names[label], box, mask if shapes else None, score, attributes=attributes)
output.write(destination)
