"""How much memory an export of many instances takes, and how long.

    python benchmarks/export_memory.py [--instances 100000] [--output export_memory.json]

Writes a COCO file of that many instances, run-length masks of ellipses on images of 640 x 480 px with ten on each,
and exports it to every format in a process of its own. Memory is the process's peak, the libraries it imports included.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from grounded_seg.masks import area_px, coco_from_run_length, run_length_from_mask, tight_box_xyxy

PER_IMAGE = 10
WIDTH, HEIGHT = 640, 480
LIMIT_MB = 300
FORMATS = {
    "coco": ["--to", "coco"],
    "coco polygons": ["--to", "coco", "--seg", "polygon"],
    "fiftyone": ["--to", "fiftyone"],
    "yolo": ["--to", "yolo"],
    "voc": ["--to", "voc"],
    "labelme": ["--to", "labelme"],
    "labelstudio": ["--to", "labelstudio"],
    "cvat": ["--to", "cvat"],
    "masks": ["--to", "masks"],
}
# The peak that Linux keeps for a process, in kB.
MEASURED = (
    "import resource, sys\n"
    "from grounded_seg.cli import main\n"
    "try:\n"
    "    main(sys.argv[1:])\n"
    "finally:\n"
    "    print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)\n"
)


def shapes() -> list[dict[str, Any]]:
    """Make a few masks, which all instances share: what counts is how many there are."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    made = []
    for _ in range(50):
        radius_x, radius_y = rng.uniform(10, 120, 2)
        x, y = rng.uniform(130, WIDTH - 130), rng.uniform(130, HEIGHT - 130)
        inside = ((columns - x) / radius_x) ** 2 + ((rows - y) / radius_y) ** 2 < 1
        mask = run_length_from_mask(inside)
        x0, y0, x1, y1 = tight_box_xyxy(mask)
        box = [x0, y0, x1 - x0, y1 - y0]
        made.append({"bbox": box, "area": area_px(mask), "segmentation": coco_from_run_length(mask), "iscrowd": 0})
    return made


def write_source(path: Path, n_instances: int) -> None:
    """Write the file to export, line by line."""
    made = shapes()
    n_images = -(-n_instances // PER_IMAGE)
    with path.open("w") as file:
        file.write('{"info": {}, "licenses": [], "categories": [{"id": 1, "name": "car"}],\n"images": [')
        for number in range(1, n_images + 1):
            image = {"id": number, "file_name": f"{number:07}.jpg", "width": WIDTH, "height": HEIGHT}
            file.write((",\n" if number > 1 else "\n") + json.dumps(image))
        file.write('],\n"annotations": [')
        for number in range(1, n_instances + 1):
            ids = {"id": number, "image_id": (number - 1) // PER_IMAGE + 1, "category_id": 1}
            attributes = {"label": "car", "prompt": "red car", "detector_score": 0.9, "mask_score": 0.9}
            rest = {"score": 0.9, "detector_bbox": [1.5, 2.5, 3.5, 4.5], "attributes": attributes}
            file.write((",\n" if number > 1 else "\n") + json.dumps({**ids, **made[number % len(made)], **rest}))
        file.write("]}\n")


def measure(source: Path, output: Path, options: list[str]) -> dict[str, float]:
    """Export once, and give the seconds and the peak memory in MB."""
    start = time.perf_counter()
    command = [sys.executable, "-c", MEASURED, "export", str(source), "-o", str(output), *options]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    peak_kb = int(done.stderr.rpartition("peak ")[2])
    return {"seconds": round(time.perf_counter() - start, 1), "peak_mb": round(peak_kb / 1024, 1)}


def main() -> int:
    """Measure and print; 1 if a format takes more than the limit."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--instances", type=int, default=100_000)
    options.add_argument("--formats", nargs="+", default=list(FORMATS), choices=list(FORMATS))
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    figures: dict[str, Any] = {"instances": chosen.instances, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "annotations.json")
        write_source(source, chosen.instances)
        figures["file_mb"] = round(source.stat().st_size / 2**20, 1)
        print(f"{chosen.instances} instances, {figures['file_mb']} MB of COCO")
        for name in chosen.formats:
            figures[name] = measure(source, Path(folder, name), FORMATS[name])
            print(f"{name:14} {figures[name]['seconds']:8.1f} s {figures[name]['peak_mb']:8.1f} MB", flush=True)
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(figures[name]["peak_mb"] > LIMIT_MB for name in chosen.formats))


if __name__ == "__main__":
    sys.exit(main())
