"""The loop of prompt, decide and tune: what a person's look through a run does to the model.

    python benchmarks/review_loop.py FOLDER [--only known|unknown] [--output review_loop.json]

Each part runs the demo's bare base at a low threshold on 200 rendered scenes, decides on the results as a person would
who sees the truth, trains with `train RUN --reviewed accepted`, and measures base and tuned model on 200 other scenes.

- known: the five kinds that the base was taught. Cars are on the scenes too, and not asked about.
- unknown: all six; the base was taught that cars aren't there. Where one is missed, the page's way is taken: the preset
  with its adapter is asked, and its boxes are added.

A person accepts a box that lies on an object (IoU .5 or more) and has its class, relabels one of another class, and
rejects the rest, duplicates too. Images on which an object is still missed are left undecided.

Must hold for each: box AP isn't worse, and fewer boxes are wrong at the run's threshold. Else the exit code is 1.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from train_unknown_kind import UNKNOWN, render

from grounded_seg.coco.schema import JournalInstance, JournalLine, xyxy_from_xywh
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.review.decisions import Key, What
from grounded_seg.review.decisions_of_run import Review
from grounded_seg.runs.folder import RunFolder
from grounded_seg.runs.journal import read_lines
from grounded_seg.scenes import KINDS, Split
from grounded_seg.scoring.json_report import read_report
from grounded_seg.scoring.matching import ALL_SIZES, AT_50

BASE = ("--preset", "demo", "--adapter", "none")
TRUTH_NAME = "_annotations.coco.json"
SHARED = (
    *("--preset", "demo", "--rank", "16", "--alpha", "32", "--dropout", "0", "--negative-ratio", "1"),
    *("--split", "85/10/5", "--eval-images", "20", "--no-report", "--quiet", "--epochs", "20"),
)
OPTIONS = {
    # The vision tower stays as it is, so each image is encoded once. The demo learnt such scenes for hours: its own
    # boxes can teach it fewer wrong ones, and steps cost places. The best by AP, the default, is one of the first.
    "known": ("--no-augment", "--lr", "1e-4", "--batch-size", "128", "--warmup-steps", "10", "--patience", "3"),
    # By AP on 20 images chance would choose.
    "unknown": (
        *("--parts", "language,vision,projector", "--location-spread", "3", "--best-metric", "loss"),
        *("--lr", "5e-4", "--batch-size", "32", "--warmup-steps", "20"),
    ),
}
LOW = "0.03"
"""Score threshold of the run."""
RIGHT_IOU = 0.5


@dataclass
class Decided:
    """What the person did."""

    accepted: int = 0
    relabelled: int = 0
    added: int = 0
    rejected: int = 0
    images: int = 0
    left_alone: int = 0


@dataclass
class Truth:
    """The objects of one scene."""

    boxes: list[tuple[float, ...]] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)

    def nearest(self, box_xywh: Sequence[float]) -> tuple[int, float]:
        """Index of the object with the highest IoU with a box, and the IoU; -1 where there is none."""
        if not self.boxes:
            return -1, 0.0
        own, true = array_from_boxes([xyxy(box_xywh)]), array_from_boxes([xyxy(box) for box in self.boxes])
        overlaps = pairwise_iou(own, true)[0]
        return int(overlaps.argmax()), float(overlaps.max())


def xyxy(box_xywh: Sequence[float]) -> tuple[float, float, float, float]:
    """Corners of a box."""
    x, y, width, height = box_xywh
    return xyxy_from_xywh((x, y, width, height))


def scenes(folder: Path, n_scenes: int, kinds: Sequence[str]) -> tuple[Path, Path]:
    """Scenes for the run and others to measure on, each with only these kinds as its truth."""
    found = []
    for name, split in (("run", Split.TRAIN), ("other", Split.TEST)):
        place = folder / "scenes" / name
        if not place.exists():
            render(place, split, n_scenes, smallest=0.08)
        document = json.loads((place / TRUTH_NAME).read_text())
        chosen = {one["id"] for one in document["categories"] if one["name"] in kinds}
        document["categories"] = [one for one in document["categories"] if one["id"] in chosen]
        document["annotations"] = [one for one in document["annotations"] if one["category_id"] in chosen]
        truth = place / f"truth-{len(kinds)}.json"
        truth.write_text(json.dumps(document))
        found.append(truth)
    return found[0], found[1]


def truths(path: Path) -> dict[str, Truth]:
    """The objects of each scene, by its file name."""
    document = json.loads(path.read_text())
    names = {one["id"]: one["name"] for one in document["categories"]}
    by_id = {one["id"]: Truth() for one in document["images"]}
    for one in document["annotations"]:
        by_id[one["image_id"]].boxes.append(tuple(one["bbox"]))
        by_id[one["image_id"]].classes.append(names[one["category_id"]])
    return {one["file_name"]: by_id[one["id"]] for one in document["images"]}


def command(*arguments: object) -> None:
    """Run the program as a user would."""
    subprocess.run([sys.executable, "-m", "grounded_seg.cli", *map(str, arguments)], check=True)


def run_on(images: Path, output: Path, prompts: Sequence[str], *models: str) -> Path:
    """Run once."""
    if not RunFolder(output).annotations.exists():
        files = images.parent / "*.png"
        command(
            "run", "; ".join(prompts), files, "-o", output, *models, "--score-threshold", LOW, "--quiet", "--overwrite"
        )
    return output


def decide(run: Path, truth: dict[str, Truth], asked_again: dict[str, JournalLine]) -> Decided:
    """Look through a run as a person would, image by image."""
    RunFolder(run).review.unlink(missing_ok=True)
    done = Decided()
    with Review(run, write=True, reviewer="script") as review:
        for line in read_lines(RunFolder(run).journal):
            decide_image(review, line, truth[line["file_name"]], asked_again.get(line["file_name"]), done)
    return done


def decide_image(review: Review, line: JournalLine, truth: Truth, again: JournalLine | None, done: Decided) -> None:
    """Decide on one image, unless an object is missed on it."""
    taken: set[int] = set()
    verdicts = dict(judged(line["instances"], truth, taken))
    extra = list(judged(again["instances"], truth, taken)) if again and len(taken) < len(truth.boxes) else []
    if len(taken) < len(truth.boxes):
        done.left_alone += 1
        return
    done.images += 1
    for index, name in verdicts.items():
        own = review.class_of(line["instances"][index])
        if name is None:
            review.decide(What.REJECT, line, [index])
            done.rejected += 1
        elif name == own:
            review.decide(What.ACCEPT, line, [index])
            done.accepted += 1
        else:
            review.decide(What.RELABEL, line, [index], name)
            done.relabelled += 1
    for index, name in extra:
        if again is not None and name is not None:
            key: Key = review.add(line, again["instances"][index], name).id
            review.decide(What.ACCEPT, line, [key])
            done.added += 1
    review.decide(What.ACCEPT, line)


def judged(instances: Sequence[JournalInstance], truth: Truth, taken: set[int]) -> Iterator[tuple[int, str | None]]:
    """The class that each instance should have, None for a wrong one; the right class and high scores come first."""
    near = [truth.nearest(one["bbox"]) for one in instances]
    rights = [
        at >= 0 and truth.classes[at] == one["attributes"]["prompt"]
        for one, (at, _) in zip(instances, near, strict=True)
    ]
    for index in sorted(range(len(instances)), key=lambda index: (not rights[index], -instances[index]["score"])):
        at, overlap = near[index]
        if overlap >= RIGHT_IOU and at not in taken:
            taken.add(at)
            yield index, truth.classes[at]
        else:
            yield index, None


def measured(truth: Path, report: Path, *models: object) -> dict[str, float]:
    """Figures of a model on scenes."""
    if not report.exists():
        command("eval", truth, "--images", truth.parent, *models, "--boxes-only", "--json", report, "--quiet")
    figures = json.loads(report.read_text())
    matches = read_report(report).matches["boxes"]
    wrong = ~matches.matched[:, ALL_SIZES, AT_50]
    return {
        "box AP": figures["boxes"]["AP"],
        "box AP50": figures["boxes"]["AP50"],
        "wrong boxes at the run's threshold": int((wrong & (matches.score >= float(LOW))).sum()),
        "wrong boxes at .5": int((wrong & (matches.score >= 0.5)).sum()),
        "right boxes at .5": int((~wrong & (matches.score >= 0.5)).sum()),
        "objects": int(np.size(matches.truth_category)),
    }


def loop(folder: Path, name: str, kinds: Sequence[str], n_scenes: int) -> dict[str, Any]:
    """Run, decide, train and measure."""
    truth, other = scenes(folder, n_scenes, kinds)
    run = run_on(truth, folder / name / "run", kinds, *BASE)
    again: dict[str, JournalLine] = {}
    if name == "unknown":
        asked = run_on(truth, folder / name / "asked-again", [UNKNOWN], "--preset", "demo")
        again = {line["file_name"]: line for line in read_lines(RunFolder(asked).journal)}
    decided = decide(run, truths(truth), again)
    print(f"{name}: {decided}", flush=True)
    tuned, started = folder / name / "tuned", time.monotonic()
    if not (tuned / "adapter").exists():
        command("train", run, "--reviewed", "accepted", "-o", tuned, *SHARED, *OPTIONS[name])
    minutes = (time.monotonic() - started) / 60
    before = measured(other, folder / name / "base.json", *BASE)
    after = measured(other, folder / name / "tuned.json", "--preset", "demo", "--adapter", tuned / "adapter")
    print(f"{name}: trained in {minutes:.1f} minutes")
    for figure, value in before.items():
        print(f"  {figure:36}{value:10.4g} -> {after[figure]:.4g}", flush=True)
    wrong = "wrong boxes at the run's threshold"
    holds = after["box AP"] >= before["box AP"] and after[wrong] < before[wrong]
    return {"decided": vars(decided), "minutes": minutes, "base": before, "tuned": after, "holds": holds}


def main() -> None:
    """Run both parts and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--scenes", type=int, default=200, help="scenes of the run, and as many to measure on")
    options.add_argument("--only", choices=("known", "unknown"))
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    parts = {"known": [kind for kind in KINDS if kind != UNKNOWN], "unknown": list(KINDS)}
    figures = {
        name: loop(chosen.folder, name, kinds, chosen.scenes)
        for name, kinds in parts.items()
        if chosen.only in (None, name)
    }
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    failed = [name for name, one in figures.items() if not one["holds"]]
    if failed:
        sys.exit(f"worse after the loop: {', '.join(failed)}")


if __name__ == "__main__":
    main()
