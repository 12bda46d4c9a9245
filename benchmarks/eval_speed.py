"""How long COCO scoring takes beside pycocotools, and how much memory, on made-up data; the figures are compared too.

    python benchmarks/eval_speed.py [--images 5000] [--objects 36000] [--predictions 100000] [--repeats 3]
                                    [--output eval_speed.json]

Each scorer runs in a process of its own, after a warm-up on a few images, from dictionaries in memory to COCO's twelve
figures. Seconds are processor time, the median of the repeats; memory is the largest of them, with the data.
faster-coco-eval takes part where it is installed. The script fails if figures differ by more than 1e-12.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import multiprocessing
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE_PX = 640
N_CLASSES = 80
N_SHAPES = 100
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def made_up(n_images: int, n_objects: int, n_predictions: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Ellipses of all sizes, some crowds; predictions are objects of the image, moved, or anything anywhere."""
    from pycocotools import mask as coco_mask

    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE_PX, :SIDE_PX]

    def ellipse(centre: Any, radii: Any) -> dict[str, Any]:
        inside = ((columns - centre[0]) / radii[0]) ** 2 + ((rows - centre[1]) / radii[1]) ** 2 <= 1
        encoded = coco_mask.encode(np.asfortranarray(inside, dtype=np.uint8))
        box, area = coco_mask.toBbox(encoded).tolist(), int(coco_mask.area(encoded))
        encoded["counts"] = encoded["counts"].decode()
        return {"segmentation": encoded, "bbox": box, "area": area}

    # A pool of shapes: what takes time here is scoring, not drawing.
    pool = []
    for _ in range(N_SHAPES):
        centre, radii = rng.uniform(60, SIDE_PX - 60, 2), np.exp(rng.uniform(np.log(6), np.log(150), 2))
        pool.append(
            [ellipse(centre + rng.normal(0, 0.12, 2) * radii, radii * rng.uniform(0.85, 1.15, 2)) for _ in range(4)]
        )
    truth: dict[str, Any] = {
        "images": [
            {"id": n, "file_name": f"{n}.jpg", "width": SIDE_PX, "height": SIDE_PX} for n in range(1, n_images + 1)
        ],
        "categories": [{"id": n, "name": f"class {n}"} for n in range(1, N_CLASSES + 1)],
        "annotations": [],
    }
    by_image: dict[int, list[tuple[int, int]]] = {}
    for n in range(1, n_objects + 1):
        image, category, place = (
            int(rng.integers(1, n_images + 1)),
            int(rng.integers(1, N_CLASSES + 1)),
            int(rng.integers(N_SHAPES)),
        )
        by_image.setdefault(image, []).append((category, place))
        truth["annotations"].append(
            {"id": n, "image_id": image, "category_id": category, "iscrowd": int(rng.random() < 0.01), **pool[place][0]}
        )
    predictions = []
    for _ in range(n_predictions):
        image = int(rng.integers(1, n_images + 1))
        here = by_image.get(image)
        if here and rng.random() < 0.6:
            category, place = here[int(rng.integers(len(here)))]
        else:
            category, place = int(rng.integers(1, N_CLASSES + 1)), int(rng.integers(N_SHAPES))
        shape = {key: value for key, value in pool[place][int(rng.integers(4))].items() if key != "area"}
        score = round(float(rng.beta(1, 2)), 4)
        predictions.append({"image_id": image, "category_id": category, "score": score, **shape})
    return truth, predictions


def ours(truth: dict[str, Any], predictions: list[dict[str, Any]], kind: Any) -> list[float]:
    """grounded-seg."""
    from grounded_seg.coco.data_set import data_set_from
    from grounded_seg.coco.predictions import predictions_from
    from grounded_seg.scoring.average_precision import FIGURES as NAMES
    from grounded_seg.scoring.average_precision import evaluate

    if kind == "bbox":
        # The reader would take the masks too, which pycocotools leaves alone here.
        annotations, predictions = (
            [{key: value for key, value in one.items() if key != "segmentation"} for one in records]
            for records in (truth["annotations"], predictions)
        )
        truth = truth | {"annotations": annotations}
    data_set = data_set_from(truth, Path("truth.json"))
    file = predictions_from(predictions, Path("predictions.json"), data_set)
    summary = evaluate(data_set, file.predictions, kind)
    return [-1.0 if getattr(summary, name) is None else getattr(summary, name) for name in NAMES]


def pycocotools(truth: dict[str, Any], predictions: list[dict[str, Any]], kind: Any) -> list[float]:
    """The reference."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    return _scored(COCO, COCOeval, truth, predictions, kind)


def faster_coco_eval(truth: dict[str, Any], predictions: list[dict[str, Any]], kind: Any) -> list[float]:
    """A well-known faster one, in C++."""
    from faster_coco_eval import COCO, COCOeval_faster

    return _scored(COCO, COCOeval_faster, truth, predictions, kind)


def _scored(
    index: Any, evaluator: Any, truth: dict[str, Any], predictions: list[dict[str, Any]], kind: str
) -> list[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        truths = index()
        truths.dataset = truth
        truths.createIndex()
        if kind == "segm":
            # With a box beside its mask, a prediction's size would be its box's.
            predictions = [{key: value for key, value in one.items() if key != "bbox"} for one in predictions]
        evaluation = evaluator(truths, truths.loadRes(predictions), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return [float(value) for value in np.asarray(evaluation.stats)[:12]]


def measure(scorer: str, sizes: tuple[int, int, int], kind: str, queue: Any) -> None:
    """Run one scorer, and tell its seconds, memory and figures."""
    truth, predictions = made_up(*sizes)
    # Imports, and what libraries make on first use.
    globals()[scorer](*made_up(2, 4, 4), kind)
    before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # All scorers use one thread, and processor time means the same on a busy machine.
    started = time.process_time()
    figures = globals()[scorer](truth, predictions, kind)
    seconds = time.process_time() - started
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    queue.put(
        {"seconds": round(seconds, 2), "data_mb": round(before_mb), "peak_mb": round(peak_mb), "figures": figures}
    )


def measured_apart(scorer: str, sizes: tuple[int, int, int], kind: str) -> dict[str, Any]:
    """Run one scorer in a process of its own."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(scorer, sizes, kind, queue))
    process.start()
    measured: dict[str, Any] = queue.get()
    process.join()
    return measured


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--images", type=int, default=5_000)
    options.add_argument("--objects", type=int, default=36_000)
    options.add_argument("--predictions", type=int, default=100_000)
    options.add_argument("--repeats", type=int, default=3)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    scorers = ["pycocotools", "ours"]
    if importlib.util.find_spec("faster_coco_eval"):
        scorers.append("faster_coco_eval")
    sizes = (chosen.images, chosen.objects, chosen.predictions)
    report: dict[str, Any] = {}
    print(f"{'kind':6}{'scorer':20}{'seconds':>9}{'x pycocotools':>15}{'peak MB':>9}")
    for kind in ("bbox", "segm"):
        for scorer in scorers:
            runs = [measured_apart(scorer, sizes, kind) for _ in range(chosen.repeats)]
            measured = runs[0] | {
                "seconds": statistics.median(run["seconds"] for run in runs),
                "peak_mb": max(run["peak_mb"] for run in runs),
            }
            report[f"{kind} {scorer}"] = measured
            ratio = measured["seconds"] / report[f"{kind} pycocotools"]["seconds"]
            print(f"{kind:6}{scorer:20}{measured['seconds']:9.2f}{ratio:15.2f}{measured['peak_mb']:9}", flush=True)
            difference = np.abs(np.subtract(measured["figures"], report[f"{kind} pycocotools"]["figures"])).max()
            if difference > 1e-12:
                raise SystemExit(f"{scorer}'s figures differ from pycocotools' by {difference:g}")
    print("all figures agree to 1e-12")
    if chosen.output:
        chosen.output.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
