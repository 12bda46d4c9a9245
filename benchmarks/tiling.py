"""What tiles do for small objects: AP of the demo on rendered 4000 x 3000 scenes, with and without `--tile`.

    python benchmarks/tiling.py [--images 3] [--tile auto 1000] [--overlap 0.2] [--boxes-only] [--output tiling.json]

A scene is a mosaic of 8 x 8 rendered ones, so that objects are 20 to 230 pixels large: a detector that sees the image
at 256 x 256 gets them at a sixteenth of that. It is asked for every kind that is there.

What merging loses is measured with the true boxes in the detector's place: each tile gives what it shows of them. Once
the whole image gives them too, and once tiles alone do.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from must_hold import MustHold

from grounded_seg import GroundedSegmenter
from grounded_seg.coco.data_set import data_set_from
from grounded_seg.coco.predictions import predictions_from
from grounded_seg.coco.schema import Kind
from grounded_seg.coco.write import annotation_from_instance
from grounded_seg.detect.prompts import prompts_from
from grounded_seg.geometry.masks import coco_from_run_length, run_length_from_region
from grounded_seg.pipeline.tiling import tile_sides, tiles
from grounded_seg.records import Detection, Image, ImageSize
from grounded_seg.scenes import Scene, Split, render_scene
from grounded_seg.scoring.average_precision import evaluate
from grounded_seg.settings import DetectSettings, TileSettings

CELL, N_CELLS = ImageSize(500, 375), 8
SIZE = ImageSize(CELL.width * N_CELLS, CELL.height * N_CELLS)
VIEW_PX = 256
"""What the demo's detector sees of an image."""
_LEAST_SHARE, _LEAST_PX = 0.25, 2
"""Of a true object that a tile has to show."""


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


class TrueBoxes:
    """Stands in for a detector: finds what a tile shows of the true boxes, all alike sure."""

    view_px = VIEW_PX

    def __init__(self, images: Sequence[Image], annotations: Sequence[dict[str, Any]], *, whole: bool) -> None:
        self._images, self._whole = images, whole
        self._boxes = {
            number: [(one["prompt"], one["bbox"]) for one in annotations if one["image_id"] == number]
            for number in range(1, len(images) + 1)
        }

    def detect(self, images: Sequence[Image], prompts: Sequence[str], *_: Any, **__: Any) -> list[Any]:
        """Give the boxes of each image or tile, in its pixels."""
        return [tuple(self._shown(image, prompts)) for image in images]

    def _shown(self, image: Image, prompts: Sequence[str]) -> Iterator[Detection]:
        number, left, top = self._place(image)
        if not self._whole and image.size == SIZE:
            return
        for prompt, (x, y, width, height) in self._boxes[number]:
            x0, y0 = max(x - left, 0.0), max(y - top, 0.0)
            x1, y1 = min(x - left + width, image.size.width), min(y - top + height, image.size.height)
            is_shown = (x1 - x0) * (y1 - y0) >= _LEAST_SHARE * width * height
            if prompt in prompts and min(x1 - x0, y1 - y0) >= _LEAST_PX and is_shown:
                yield Detection(prompt, prompt, (x0, y0, x1, y1), 0.9)

    def _place(self, image: Image) -> tuple[int, int, int]:
        """Tell which image this is a part of, and where it begins there: a tile shares the image's memory."""
        start = image.pixels.__array_interface__["data"][0]
        for number, whole in enumerate(self._images, 1):
            offset = start - whole.pixels.__array_interface__["data"][0]
            if 0 <= offset < whole.pixels.nbytes:
                top, rest = divmod(offset, whole.pixels.strides[0])
                return number, rest // whole.pixels.strides[1], top
        raise ValueError("a tile is of none of the images")


def measure(
    segmenter: GroundedSegmenter, images: list[Image], annotations: list[dict[str, Any]], n_passes: int
) -> dict[str, Any]:
    """Run models over the images and compare with the truth; each image goes through them so many times."""
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
    started = time.perf_counter()
    found = [result for image in images for result in segmenter.batch([image], prompts_from(prompts))]
    seconds = (time.perf_counter() - started) / len(images)
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
    figures: dict[str, Any] = {
        "passes": n_passes,
        "seconds_per_image": seconds,
        "seconds_per_pass": seconds / n_passes,
        "instances": len(predictions),
    }
    kinds: dict[str, Kind] = {"boxes": "bbox", "masks": "segm"}
    if any(instance.mask is None for result in found for instance in result.instances):
        del kinds["masks"]
    data_set = data_set_from(truth, Path("truth.json"))
    file = predictions_from(predictions, Path("predictions.json"), data_set)
    for kind, compared in kinds.items():
        summary = evaluate(data_set, file.predictions, compared)
        figures[kind] = {"AP": summary.AP, "AP50": summary.AP50, "AP_small": summary.AP_small}
    return figures


def passes(asked: TileSettings | None) -> int:
    """Count how often a scene goes through the models: as a whole, and each of its tiles."""
    sides = () if asked is None else tile_sides(SIZE, asked, VIEW_PX)
    return 1 + sum(len(tiles(SIZE, side, asked.overlap)) for side in sides if asked is not None)


def tile_side(text: str) -> Any:
    """Read pixels, or auto."""
    return text if text == "auto" else int(text)


def main() -> int:
    """Measure and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=3)
    options.add_argument("--tile", type=tile_side, nargs="+", default=["auto", 1000], help="sides in pixels, or auto")
    options.add_argument("--overlap", type=float, default=TileSettings.overlap)
    options.add_argument("--boxes-only", action="store_true", help="take the detector's boxes, and make no masks")
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scenes = fitting_scenes()
    pairs = [mosaic(scenes, number) for number in range(1, chosen.images + 1)]
    images, annotations = [image for image, _ in pairs], [one for _, some in pairs for one in some]
    everything = DetectSettings(score_threshold=0, max_detections=1000)
    figures = {}
    for side in (None, *chosen.tile):
        asked = None if side is None else TileSettings(side, chosen.overlap)
        segmenter = GroundedSegmenter.from_preset("demo", detect=everything, tiles=asked, boxes_only=chosen.boxes_only)
        name = "whole image only" if side is None else f"tiles of {side}"
        figures[name] = measure(segmenter, images, annotations, passes(asked))
    auto = TileSettings("auto", chosen.overlap)
    for whole, name in ((True, "true boxes, whole image and tiles"), (False, "true boxes, tiles alone")):
        segmenter = GroundedSegmenter(TrueBoxes(images, annotations, whole=whole), tiles=auto, detect=everything)
        figures[name] = measure(segmenter, images, annotations, passes(auto))
    print(f"{len(images)} scenes of {SIZE.width} x {SIZE.height} px, {len(annotations)} objects")
    for name, one in figures.items():
        print(f"{name}: {one['instances']} found, {one['passes']} passes, {one['seconds_per_image']:.1f} s an image")
        for kind in {"boxes", "masks"} & one.keys():
            shown = "  ".join(f"{key} {'-' if value is None else f'{value:.3f}'}" for key, value in one[kind].items())
            print(f"  {kind}: {shown}")
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return bounds(figures)


def bounds(figures: dict[str, Any]) -> int:
    """Hold the figures against what they must be."""
    holds = MustHold()
    by_auto = figures.get("tiles of auto")
    holds.at_least("box AP50 of the demo with --tile auto", by_auto and by_auto["boxes"]["AP50"], 0.75)
    for name in figures:
        if name.startswith("true boxes"):
            holds.at_least(f"box AP50 of {name}", figures[name]["boxes"]["AP50"], 0.98)
    others = [one for name, one in figures.items() if name.startswith("tiles of ") and one is not by_auto]
    if by_auto and others:
        ratio = by_auto["seconds_per_pass"] / others[0]["seconds_per_pass"]
        holds.at_most("time of a tile with --tile auto, beside one of the other side", ratio, 1.25)
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
