"""Read with LabelMe's file loader and its own rasteriser; shapes of one group are one label."""

import sys
from pathlib import Path

import labelme
import numpy as np
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
output = ReaderOutput()
for path in sorted(root.rglob("*.json")):
    if path.name == "read.json":
        continue
    file = labelme.LabelFile(str(path))
    shape_hw = labelme.utils.img_data_to_arr(file.imageData).shape[:2]
    groups: dict[object, list[dict]] = {}
    for place, shape in enumerate(file.shapes):
        key = ("group", shape["group_id"]) if shape["group_id"] is not None else ("single", place)
        groups.setdefault(key, []).append(shape)
    for shapes in groups.values():
        mask = np.zeros(shape_hw, bool)
        for shape in shapes:
            if shape["shape_type"] == "mask":
                (x0, y0), (x1, y1) = np.asarray(shape["points"]).astype(int)
                mask[y0 : y1 + 1, x0 : x1 + 1] |= shape["mask"]
            else:
                mask |= labelme.utils.shape_to_mask(shape_hw, shape["points"], shape["shape_type"])
        rows, columns = np.nonzero(mask)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        other = shapes[0].get("other_data", {})
        name = (path.parent / file.imagePath).relative_to(root).as_posix()
        output.add(name, shapes[0]["label"], box, mask, other.get("score"), attributes=other.get("attributes"))
output.write(destination)
