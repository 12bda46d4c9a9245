"""Read with Ultralytics: its own check of YOLO's rows, or its converter for the COCO forms, and then that check."""

import sys
import tempfile
from pathlib import Path

import yaml
from reader_output import ReaderOutput
from ultralytics.data.converter import convert_coco
from ultralytics.data.utils import verify_image_label

form, seg, folder, destination = sys.argv[1:]
root = Path(folder)
output = ReaderOutput()


def read(images: Path, labels: Path, names: dict[int, str]) -> None:
    """Read the rows of each image as the trainer does before its first epoch."""
    for image in sorted(images.rglob("*.*")):
        rows = labels / image.relative_to(images).with_suffix(".txt")
        if not rows.exists():
            continue
        n_classes = max(names) + 1
        _, found, shape, *_, message = verify_image_label((str(image), str(rows), "", False, n_classes, 0, 0, False))
        if found is None:
            raise ValueError(f"the trainer leaves {image.name} out: {message}")
        height, width = shape
        for number, x, y, w, h in found.tolist():
            edges = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            output.add(image.relative_to(images).as_posix(), names[int(number)], edges)


if form == "yolo":
    document = yaml.safe_load((root / "data.yaml").read_text(encoding="utf-8"))
    names = document["names"]
    classes = dict(names if isinstance(names, dict) else enumerate(names))
    for split in ("train", "valid", "test"):
        read(root / "images" / split, root / "labels" / split, classes)
else:
    import json

    document = json.loads((root / "annotations.json").read_text(encoding="utf-8"))
    # Its classes count from 0, one below the category's id.
    classes = {one["id"] - 1: one["name"] for one in document["categories"]}
    with tempfile.TemporaryDirectory() as work:
        source, target = Path(work, "source"), Path(work, "converted")
        source.mkdir()
        (source / "instances_all.json").write_bytes((root / "annotations.json").read_bytes())
        convert_coco(str(source), str(target), use_segments=seg != "none", cls91to80=False)
        read(root / "images", target / "labels" / "all", classes)
output.write(destination)
