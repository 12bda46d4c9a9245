"""What tiles do for small objects: AP of the demo on rendered 4000 x 3000 scenes, with and without `--tile`.

    python benchmarks/tiling.py [--images 3] [--tile 1000] [--overlap 0.2] [--output tiling.json]

A scene is a mosaic of 8 x 8 rendered ones, so that objects are 20 to 230 pixels large: a detector that sees the image
at 768 x 768 gets them at a fifth of that. It is asked for every kind that is there.
"""

import argparse
import json
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg import GroundedSegmenter
from grounded_seg.coco.data_set import data_set_from
from grounded_seg.coco.predictions import predictions_from
from grounded_seg.coco.schema import Kind
from grounded_seg.coco.write import annotation_from_instance
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_region
from grounded_seg.records import Image, ImageSize
from grounded_seg.scenes import Scene, Split, render_scene
from grounded_seg.scoring.average_precision import evaluate
from grounded_seg.settings import DetectSettings, TileSettings

CELL, N_CELLS = ImageSize(500, 375), 8
SIZE = ImageSize(CELL.width * N_CELLS, CELL.height * N_CELLS)


def fitting_scenes() -> Iterator[Scene]:
    """Give the test scenes of the mosaic's aspect ratio, at its cells' size."""
    for index in count():
        # The aspect ratio doesn't depend on the size; a small one tells it cheaply.
        small = render_scene(Split.TEST, index, short_side=48).size
        if (small.width, small.height) == (64, 48):
            yield render_scene(Split.TEST, index, short_side=CELL.height)


def mosaic(scenes: Iterator[Scene], image_id: int) -> tuple[Image, list[dict[str, Any]]]:
    """Put scenes side by side; give the picture, and what is on it as COCO annotations named by `prompt`."""
    pixels = np.empty((SIZE.height, SIZE.width, 3), dtype=np.uint8)
    annotations: list[dict[str, Any]] = []
    for cell in range(N_CELLS**2):
        scene = next(scenes)
        top, left = cell // N_CELLS * CELL.height, cell % N_CELLS * CELL.width
        pixels[top : top + CELL.height, left : left + CELL.width] = scene.pixels
        for one in scene.objects:
            x0, y0, x1, y1 = one.box_xyxy
            annotations.append(
                {
                    "image_id": image_id,
                    "prompt": one.kind,
                    "bbox": [x0 + left, y0 + top, x1 - x0, y1 - y0],
                    "area": int(one.mask.sum()),
                    "segmentation": coco_from_run_length(run_length_from_region(one.mask, left, top, SIZE)),
                    "iscrowd": 0,
                }
            )
    return Image(Path(f"mosaic-{image_id}.png"), pixels), annotations


def measure(images: list[Image], annotations: list[dict[str, Any]], tiles: TileSettings | None) -> dict[str, Any]:
    """Run the demo over the images and compare with the truth."""
    prompts = sorted({annotation["prompt"] for annotation in annotations})
    ids = {prompt: number for number, prompt in enumerate(prompts, 1)}
    truth = {
        "images": [
            {"id": number, "file_name": image.path.name, "width": image.width, "height": image.height}
            for number, image in enumerate(images, 1)
        ],
        "categories": [{"id": number, "name": prompt} for prompt, number in ids.items()],
        "annotations": [
            {**annotation, "id": number, "category_id": ids[annotation["prompt"]]}
            for number, annotation in enumerate(annotations, 1)
        ],
    }
    segmenter = GroundedSegmenter.from_preset("demo", detect=DetectSettings(score_threshold=0), tiles=tiles)
    started = time.perf_counter()
    found = [result for image in images for result in segmenter.batch([image], prompts_from(prompts))]
    seconds = time.perf_counter() - started
    # Boxes are those of the masks, as the file's `bbox` has them.
    predictions = [
        {
            **annotation_from_instance(instance),
            "image_id": number,
            "category_id": ids[instance.detection.prompt],
            "detector_bbox": None,
        }
        for number, result in enumerate(found, 1)
        for instance in result.instances
    ]
    figures: dict[str, Any] = {"seconds_per_image": seconds / len(images), "instances": len(predictions)}
    kinds: dict[str, Kind] = {"boxes": "bbox", "masks": "segm"}
    data_set = data_set_from(truth, Path("truth.json"))
    file = predictions_from(predictions, Path("predictions.json"), data_set)
    for kind, compared in kinds.items():
        summary = evaluate(data_set, file.predictions, compared)
        figures[kind] = {"AP": summary.AP, "AP50": summary.AP50, "AP_small": summary.AP_small}
    return figures


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=3)
    options.add_argument("--tile", type=int, default=1000, help="side of a tile in pixels")
    options.add_argument("--overlap", type=float, default=TileSettings.overlap)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scenes = fitting_scenes()
    pairs = [mosaic(scenes, number) for number in range(1, chosen.images + 1)]
    images, annotations = [image for image, _ in pairs], [one for _, some in pairs for one in some]
    figures = {
        "whole image only": measure(images, annotations, None),
        f"with tiles of {chosen.tile} px": measure(images, annotations, TileSettings(chosen.tile, chosen.overlap)),
    }
    print(f"{len(images)} scenes of {SIZE.width} x {SIZE.height} px, {len(annotations)} objects")
    for name, one in figures.items():
        print(f"{name}: {one['instances']} found, {one['seconds_per_image']:.1f} s an image")
        for kind in ("boxes", "masks"):
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.3f}'}" for key, value in one[kind].items())
            print(f"  {kind}: {shown}")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
