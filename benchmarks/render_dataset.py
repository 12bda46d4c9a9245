"""Render scenes with exact masks as a COCO data set, to run `grounded-seg eval` on.

    python benchmarks/render_dataset.py FOLDER [--scenes 300] [--classes kind|colour-kind] [--first 0]

Writes FOLDER/images/*.png and FOLDER/instances.json. The scenes are of the test split, which no training sees; the same
numbers give the same files. Every kind is a class, there or not, so that absent ones are asked about too.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from PIL import Image

from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.geometry.masks import area_px, coco_from_run_length, run_length_from_mask
from grounded_seg.scenes import COLOURS, KINDS, SceneObject, Split, render_scene


def main() -> None:
    """Render and write."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--scenes", type=int, default=300)
    options.add_argument("--first", type=int, default=0, help="index of the first scene")
    options.add_argument("--classes", choices=("kind", "colour-kind"), default="kind")
    chosen = options.parse_args()
    n_objects, n_classes = render(chosen.folder, chosen.scenes, chosen.first, by_colour=chosen.classes == "colour-kind")
    print(f"{chosen.scenes} images, {n_objects} objects, {n_classes} classes in {chosen.folder}")


def render(folder: Path, n_scenes: int, first: int = 0, *, by_colour: bool = False) -> tuple[int, int]:
    """Write so many scenes, from the first index on, into a folder; gives the number of objects and of classes."""
    names = list(KINDS)
    if by_colour:
        names = [f"{colour} {kind}" for kind in KINDS for colour in COLOURS]
    ids = {name: number for number, name in enumerate(names, start=1)}
    document: dict[str, Any] = {
        "info": {"description": "rendered scenes of grounded-seg"},
        "images": [],
        "annotations": [],
        "categories": [{"id": number, "name": name} for name, number in ids.items()],
    }
    (folder / "images").mkdir(parents=True, exist_ok=True)
    for number, index in enumerate(range(first, first + n_scenes), start=1):
        scene = render_scene(Split.TEST, index)
        file_name = f"{index:05}.png"
        Image.fromarray(scene.pixels).save(folder / "images" / file_name)
        size = {"width": scene.size.width, "height": scene.size.height}
        document["images"].append({"id": number, "file_name": file_name, **size})
        for one in scene.objects:
            name = f"{one.colour} {one.kind}" if by_colour else one.kind
            annotation = {"id": len(document["annotations"]) + 1, "image_id": number, "category_id": ids[name]}
            document["annotations"].append(annotation | shape_of(one))
    (folder / "instances.json").write_text(json.dumps(document) + "\n")
    return len(document["annotations"]), len(ids)


def shape_of(one: SceneObject) -> dict[str, Any]:
    """The mask, its box and its area, as COCO has them."""
    mask = run_length_from_mask(one.mask)
    return {
        "bbox": list(xywh_from_xyxy(one.box_xyxy)),
        "area": area_px(mask),
        "segmentation": coco_from_run_length(mask),
        "iscrowd": 0,
    }


if __name__ == "__main__":
    main()
