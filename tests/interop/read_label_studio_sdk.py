"""Read with the converter of Label Studio's SDK: its brush decoder."""

import json
import sys
from pathlib import Path
from urllib.parse import unquote

import numpy as np
from label_studio_sdk.converter.brush import decode_rle
from reader_output import ReaderOutput

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
output = ReaderOutput()
for task in json.loads((root / "tasks.json").read_text()):
    name = unquote(task["data"]["image"]).removeprefix("/data/local-files/?d=images/")
    for region in task["predictions"][0]["result"]:
        shape_hw = (region["original_height"], region["original_width"])
        value = region["value"]
        if region["type"] == "brushlabels":
            mask = decode_rle(value["rle"]).reshape(*shape_hw, 4)[:, :, 3] > 0
            rows, columns = np.nonzero(mask)
            box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            output.add(name, value["brushlabels"][0], box, mask, region.get("score"))
output.write(destination)
