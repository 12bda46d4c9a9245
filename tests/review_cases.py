"""A run with decisions, made by hand; and what decisions leave of it."""

import json
from pathlib import Path

import PIL.Image

from grounded_seg.coco.schema import JournalInstance, JournalLine
from grounded_seg.coco.write import write_annotations
from grounded_seg.review.decisions import What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.journal import text_of

PROMPTS = {"a cat": "cat", "red car": "car"}


def instance(left: float, prompt: str = "a cat", score: float = 0.5) -> JournalInstance:
    """Give an instance without a mask, 10 x 20 px, on an image of 100 x 80."""
    return {
        "bbox": [left, 1.5, 10.0, 20.0],
        "area": 200.0,
        "segmentation": [],
        "iscrowd": 0,
        "score": score,
        "detector_bbox": [left, 1.5, 10.0, 20.0],
        "attributes": {"label": prompt, "prompt": prompt, "detector_score": score, "mask_score": None},
    }


def line(name: str, *instances: JournalInstance) -> JournalLine:
    """Give the line of an image."""
    return {
        "file_name": name,
        "status": "done",
        "width": 100,
        "height": 80,
        "instances": list(instances),
        "reason": None,
        "error": None,
    }


SKIPPED: JournalLine = {
    "file_name": "broken.jpg",
    "status": "skipped",
    "width": None,
    "height": None,
    "instances": [],
    "reason": "not an image",
    "error": "ImageError",
}
MIXED = line("mixed.jpg", instance(1), instance(20), instance(40, "red car"), instance(60, "red car", 0.3))
REJECTED = line("rejected.jpg", instance(1), instance(20))
UNSEEN = line("sub/unseen.jpg", instance(1), instance(20, "red car", 0.2))
EMPTY = line("empty.jpg")
UNSEEN_EMPTY = line("unseen_empty.jpg")
ADDED = line("added.jpg")
PARTLY = line("partly.jpg", instance(1), instance(20))
LINES = (ADDED, SKIPPED, EMPTY, MIXED, PARTLY, REJECTED, UNSEEN, UNSEEN_EMPTY)
"""In the order of the journal; instances have the ids 1 to 10, the added one 11."""


def write_run(folder: Path) -> Path:
    """Write a finished run and its images, and give its folder."""
    images = folder / "images"
    for one in LINES:
        path = images / one["file_name"]
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("RGB", (100, 80), "grey").save(path)
    run = folder / "run"
    run.mkdir()
    manifest = {"prompts": PROMPTS, "images": {"root": str(images), "count": len(LINES)}, "exit_code": 1}
    (run / "run.json").write_text(json.dumps(manifest))
    (run / "results.jsonl").write_text("".join(f"{text_of(one)}\n" for one in LINES))
    write_annotations(LINES, list(dict.fromkeys(PROMPTS.values())), run / "annotations.json", PROMPTS)
    return run


def decide(run: Path) -> None:
    """Decide on what the names of the images say; cars below .4 are left out by a threshold."""
    with Review(run, write=True, reviewer="Ann") as review:
        review.set_threshold("car", 0.4)
        review.decide(What.ACCEPT, MIXED, [0])
        review.decide(What.REJECT, MIXED, [1])
        review.decide(What.RELABEL, MIXED, [2], "van")
        review.decide(What.REJECT, REJECTED, [0, 1])
        review.decide(What.ACCEPT, EMPTY)
        key = review.add(ADDED, instance(33, "a dog", 0.25), "dog").id
        review.decide(What.ACCEPT, ADDED, [key])
        review.decide(What.ACCEPT, PARTLY, [1])
