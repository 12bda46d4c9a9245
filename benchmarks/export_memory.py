"""How much memory an export of many instances takes, and how long.

    python benchmarks/export_memory.py [--instances 100000] [--output export_memory.json]

Writes a COCO file of that many instances, run-length masks of ellipses on images of 640 x 480 px with ten on each,
and exports it to every format in a process of its own. Memory is the process's peak, the libraries it imports included.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from ellipses import HEIGHT, WIDTH, ellipses
from own_process import run_command_line

PER_IMAGE = 10
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


def write_source(path: Path, n_instances: int) -> None:
    """Write the file to export, line by line."""
    made = ellipses()
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
    seconds, peak_mb = run_command_line("export", str(source), "-o", str(output), *options)
    return {"seconds": round(seconds, 1), "peak_mb": round(peak_mb, 1)}


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
