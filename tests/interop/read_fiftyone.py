"""Read with FiftyOne's COCO importer as it comes, without its database: it hands out the labels image by image."""

import os
import sys
from pathlib import Path

# Importing the package starts the database otherwise, and sends a note of it.
os.environ.update(FIFTYONE_DISABLE_SERVICES="1", FIFTYONE_DO_NOT_TRACK="true")

import numpy as np
from fiftyone.utils.coco import COCODetectionDatasetImporter
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
images = Path(folder, "images").resolve()
kind = "detections" if seg == "none" else "segmentations"
labels_path = str(Path(folder, "annotations.json").resolve())
output = ReaderOutput()
with COCODetectionDatasetImporter(data_path=str(images), labels_path=labels_path, label_types=kind) as importer:
    for path, metadata, found in importer:
        sides = (metadata.width, metadata.height)
        for label in found.detections if found else ():
            x0, y0, width, height = np.multiply(label.bounding_box, (*sides, *sides))
            mask = None
            if label.mask is not None:
                # It keeps what lies in the box, from the nearest whole pixel on.
                mask = np.zeros(sides[::-1], dtype=bool)
                left, top = round(x0), round(y0)
                mask[top : top + label.mask.shape[0], left : left + label.mask.shape[1]] = label.mask
            name = Path(path).resolve().relative_to(images).as_posix()
            output.add(name, label.label, (x0, y0, x0 + width, y0 + height), mask, label.confidence)
output.write(destination)
