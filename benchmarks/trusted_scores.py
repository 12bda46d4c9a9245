"""What calibration, thresholds by data and `not` do for the demo's boxes on scenes that its training never saw.

    python benchmarks/trusted_scores.py [--scenes 1000] [--parts scores look-alikes] [--output trusted_scores.json]

Scores: half of the scenes to calibrate and to choose thresholds on, half to judge. Each is asked about every kind; the
other half is asked again with the calibration.

Look-alikes: scenes with cars, asked for red cars by a model that confuses red with orange: its embeddings of the two
words are mixed. With `not: [orange car]` and without. Boxes count from the default threshold on.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from must_hold import MustHold
from render_dataset import render

import grounded_seg
from grounded_seg import Evaluation, GroundedSegmenter
from grounded_seg.detect.detector import FlorenceDetector
from grounded_seg.detect.tasks import TASKS
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image
from grounded_seg.scenes import Scene, Split, render_scene
from grounded_seg.scoring.json_report import write_report
from grounded_seg.scoring.measure import resamples
from grounded_seg.scoring.thresholds import f1_at
from grounded_seg.settings import DetectSettings, ModelSettings

N_RESAMPLES = 1000
WANTED, LOOK_ALIKE = "red", "orange"
KIND = "car"
FIRST_LOOK_ALIKE = 20_000
"""Index of the first scene, beyond those of the other part."""


@dataclass
class Counts:
    """Boxes that are right and wrong, and objects, over all scenes."""

    n_right: int = 0
    n_wrong: int = 0
    n_objects: int = 0

    @property
    def precision(self) -> float:
        """Of the boxes."""
        return self.n_right / max(1, self.n_right + self.n_wrong)

    @property
    def recall(self) -> float:
        """Of the objects."""
        return self.n_right / max(1, self.n_objects)


def measured(folder: Path, calibration: Path | None = None) -> Evaluation:
    """Ask the demo about the scenes of a folder."""
    return grounded_seg.evaluate(
        folder / "instances.json",
        images=folder / "images",
        preset="demo",
        boxes_only=True,
        batch_size=8,
        n_resamples=0 if calibration else N_RESAMPLES,
        calibration=calibration,
    )


def trust_scores(n_scenes: int, holds: MustHold) -> dict[str, Any]:
    """Calibrate on half of the scenes, and judge on the other half."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, half = Path(temporary), n_scenes // 2
        render(folder / "first", half)
        render(folder / "second", half, first=half)
        learnt, plain = measured(folder / "first"), measured(folder / "second")
        write_report(learnt.report(), folder / "first.json")
        grounded_seg.calibrate(folder / "first.json", folder / "calibration.json")
        calibrated = measured(folder / "second", folder / "calibration.json")
    before, after = (one.scores.calibration["bbox"] for one in (plain, calibrated))
    ap, ap_after = (one.scores.boxes.summary.AP or 0.0 for one in (plain, calibrated))
    print(f"{half} scenes to learn from, {half} to judge, {before.n} boxes")
    for what, was, now in (
        ("calibration error", before.error, after.error),
        ("Brier score", before.brier, after.brier),
    ):
        print(f"{what} {was or 0:.4f} -> {now or 0:.4f}")
    print(f"box AP {ap:.6f} -> {ap_after:.6f}")
    holds.at_most("calibration error, share of what it was", (after.error or 0.0) / (before.error or 1.0), 0.5)
    holds.at_most("calibration error", after.error, 0.03)
    holds.at_most("box AP, difference", abs(ap_after - ap), 0.002)
    facts = {"error": [before.error, after.error], "brier": [before.brier, after.brier], "AP": [ap, ap_after]}
    return {**facts, "thresholds": judge_thresholds(learnt, plain, holds)}


def judge_thresholds(learnt: Evaluation, judged: Evaluation, holds: MustHold) -> list[dict[str, Any]]:
    """Hold what the thresholds of one half promise against what they reach on the other."""
    matches = judged.scores.boxes.matches
    best = [one.best_f1 for one in learnt.scores.thresholds]
    chosen = [1.0 if one is None else one.threshold for one in best]
    default = [DetectSettings().score_threshold] * len(chosen)
    reached, plain = f1_at(matches, chosen), f1_at(matches, default)
    rows = []
    for name, one, own, other in zip(matches.index.names, best, reached, plain, strict=True):
        span = None if one is None else one.F1_interval
        is_within = span is not None and own is not None and span[0] <= own <= span[1]
        rows.append({"class": name, "best": None if one is None else vars(one), "reached": own, "at 0.5": other})
        promised = "no threshold"
        if one is not None and span is not None:
            promised = f"{one.threshold:g}, F1 {one.F1:.3f} [{span[0]:.3f}, {span[1]:.3f}]"
        outside = "" if is_within else " (outside)"
        print(f"  {name:6} {promised}; reached {own or 0:.3f}{outside}, with 0.5 {other or 0:.3f}")
        rows[-1]["within"] = is_within
    n_within = sum(bool(row["within"]) for row in rows)
    differences = [
        mean(f1_at(matches, chosen, weights)) - mean(f1_at(matches, default, weights))
        for weights in resamples(matches.index.n_images, N_RESAMPLES)
    ]
    difference = mean(reached) - mean(plain)
    low, high = np.percentile(differences, [2.5, 97.5])
    print(f"mean F1 {mean(plain):.4f} with 0.5, {difference:+.4f} [{low:+.4f}, {high:+.4f}] with the chosen ones")
    holds.at_least(f"classes of {len(rows)} whose F1 is within its interval", n_within, len(rows) - 1)
    holds.at_least("mean F1, difference to a threshold of 0.5", difference, 0.0)
    return rows


def mean(values: Sequence[float | None]) -> float:
    """The mean of what was measured."""
    return float(np.mean([one for one in values if one is not None]))


def confused(mix: float) -> FlorenceDetector:
    """The demo's detector with the embeddings of two colours mixed: this share of the other's in each."""
    detector = load_found_detector(find_models(ModelSettings(preset="demo"), boxes_only=True), DetectSettings())
    model = detector.model
    ids = [token_of(model.vocabulary.encode, colour) for colour in (WANTED, LOOK_ALIKE)]
    weight = model.network.get_input_embeddings().weight
    with torch.no_grad():
        own = weight[ids].clone()
        weight[ids] = (1 - mix) * own + mix * own.flip(0)
    return detector


def token_of(encode: Any, colour: str) -> int:
    """The token that tells a prompt with this colour from one with another."""
    question = TASKS["CAPTION_TO_PHRASE_GROUNDING"].question
    first, second = (encode(question(f"{one} {KIND}")) for one in (colour, "blue"))
    differing = [one for one in first if one not in second]
    if len(differing) != 1:
        raise SystemExit(f"{colour} is {len(differing)} tokens of the demo; name another colour")
    return differing[0]


def lookalike_scenes(n_scenes: int) -> list[tuple[Scene, int]]:
    """Scenes with a red or an orange car, in equal parts as far as they come."""
    found: list[tuple[Scene, int]] = []
    index = FIRST_LOOK_ALIKE
    while len(found) < n_scenes:
        # Layouts don't depend on the size, and a small one tells quickly what is there.
        small = render_scene(Split.TEST, index, short_side=48)
        if any(one.kind == KIND and one.colour in (WANTED, LOOK_ALIKE) for one in small.objects):
            found.append((render_scene(Split.TEST, index), index))
        index += 1
    return found


def count(counts: Counts, boxes: Sequence[Sequence[float]], scene: Scene) -> None:
    """Match boxes, the best first, with the scene's red cars at IoU .5."""
    truths = [one.box_xyxy for one in scene.objects if one.kind == KIND and one.colour == WANTED]
    free = set(range(len(truths)))
    counts.n_objects += len(truths)
    for box in boxes:
        overlap = pairwise_iou(array_from_boxes([tuple(box)]), array_from_boxes(truths))[0]  # type: ignore[list-item]
        fitting = [index for index in sorted(free, key=lambda one: -overlap[one]) if overlap[index] >= 0.5]
        free -= set(fitting[:1])
        counts.n_right += bool(fitting)
        counts.n_wrong += not fitting


def compare_look_alikes(n_scenes: int, mix: float, holds: MustHold) -> dict[str, Any]:
    """Ask a model that confuses two colours, without `not` and with it."""
    segmenter = GroundedSegmenter(confused(mix))
    wanted, other = f"{WANTED} {KIND}", f"{LOOK_ALIKE} {KIND}"
    asked = {"without": {wanted: {"class": KIND}}, "with": {wanted: {"class": KIND, "not": [other]}}}
    counts = {name: Counts() for name in asked}
    for scene, index in lookalike_scenes(n_scenes):
        image = Image(path=Path(f"scene-{index}.png"), pixels=scene.pixels)
        for name, prompts in asked.items():
            found = sorted(segmenter(image, prompts), key=lambda one: -one.score)
            count(counts[name], [one.box_xyxy for one in found], scene)
    for name, one in counts.items():
        print(
            f"{name} not: [{other}], {n_scenes} scenes, {one.n_objects} of {wanted}, mix {mix:g}: {one.n_right} right, "
            f"{one.n_wrong} wrong, precision {one.precision:.3f}, recall {one.recall:.3f}"
        )
    gained = counts["with"].precision - counts["without"].precision
    lost = counts["without"].recall - counts["with"].recall
    holds.at_least("look-alikes: precision gained by not", gained, np.nextafter(0.0, 1.0))
    holds.at_most("look-alikes: recall lost by not", lost, 0.02)
    return {name: vars(one) for name, one in counts.items()}


def main() -> int:
    """Measure, print, and tell what doesn't hold."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scenes", type=int, default=1000, help="half of them to learn from, half to judge")
    options.add_argument("--look-alikes", type=int, default=300, help="scenes with red or orange cars")
    options.add_argument("--mix", type=float, default=0.35, help="share of the other colour's embedding in each")
    parts = ("scores", "look-alikes")
    options.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    holds, figures = MustHold(), {}
    if "scores" in chosen.parts:
        figures["scores"] = trust_scores(chosen.scenes, holds)
    if "look-alikes" in chosen.parts:
        figures["look-alikes"] = compare_look_alikes(chosen.look_alikes, chosen.mix, holds)
    if chosen.output:
        chosen.output.write_text(json.dumps(figures, indent=2) + "\n")
    return holds.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
