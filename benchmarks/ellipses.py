"""Made-up instances for benchmarks in which only their number counts: ellipses on images of 640 x 480 px."""

from typing import Any

import numpy as np

from grounded_seg.geometry.masks import area_px, coco_from_run_length, run_length_from_mask, tight_box_xyxy

WIDTH, HEIGHT = 640, 480
N_SHAPES = 50


def ellipses() -> list[dict[str, Any]]:
    """Make N_SHAPES instances as a COCO file holds them, without ids: `bbox`, `area`, `segmentation`, `iscrowd`."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    made = []
    for _ in range(N_SHAPES):
        radius_x, radius_y = rng.uniform(10, 120, 2)
        x, y = rng.uniform(130, WIDTH - 130), rng.uniform(130, HEIGHT - 130)
        mask = run_length_from_mask(((columns - x) / radius_x) ** 2 + ((rows - y) / radius_y) ** 2 < 1)
        x0, y0, x1, y1 = tight_box_xyxy(mask)
        box = [x0, y0, x1 - x0, y1 - y0]
        made.append({"bbox": box, "area": area_px(mask), "segmentation": coco_from_run_length(mask), "iscrowd": 0})
    return made
