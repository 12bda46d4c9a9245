"""Measure the demo preset on rendered scenes that its training never saw.

    python benchmarks/demo_accuracy.py [--scenes 500] [--output demo_accuracy.json]

Each scene is asked three questions: a colour and kind that is there, a kind that is there, and something that isn't (in
turn another colour, an absent kind, a word no training text had). Each (scene, question) is one COCO image with one
category, all pooled. AP is measured with the score threshold off; presence and colours at the default threshold. Boxes
are the detector's (`detector_bbox` in annotations.json), "tight" ones those of the masks (`bbox` there). Of every fifth
scene everything is asked (the tasks `OD` and `CAPTION`) too.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from must_hold import MustHold

from grounded_seg import GroundedSegmenter
from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import Kind, xywh_from_xyxy
from grounded_seg.detect.ask import ask as ask_model
from grounded_seg.detect.tasks import TASKS
from grounded_seg.geometry.boxes import array_from_boxes, pairwise_iou
from grounded_seg.geometry.masks import run_length_from_mask, tight_box_xyxy
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image, Instance
from grounded_seg.scenes import KINDS, Question, QuestionKind, Scene, Split, ask, render_scene
from grounded_seg.scoring.average_precision import EvaluationSummary, SizeRanges, evaluate
from grounded_seg.settings import DetectSettings, ModelSettings

PRESENT = (QuestionKind.COLOUR_KIND, QuestionKind.KIND)
ABSENT = (QuestionKind.OTHER_COLOUR, QuestionKind.ABSENT_KIND, QuestionKind.UNKNOWN)
SIZES = SizeRanges(small_up_to=0.1**2, large_from=0.25**2, relative=True)
"""Small: less than 10 % of the side; large: more than a quarter of it."""
EVERYTHING = DetectSettings(score_threshold=0.0)
THRESHOLD = DetectSettings().score_threshold
ENOUGH_SCENES = 500
"""Figures of fewer say little about the bounds."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One question about one scene, and what the preset answered."""

    scene: Scene
    question: Question
    found: tuple[Instance, ...]

    @property
    def kept(self) -> list[Instance]:
        """What is left at the default threshold."""
        return [one for one in self.found if one.detection.score >= THRESHOLD]


def questions_about(scene: Scene, index: int) -> list[Question]:
    """Two questions with an answer and one without."""
    rng = np.random.default_rng(index)
    kinds = (*PRESENT, ABSENT[index % len(ABSENT)])
    return [ask(scene, kind, rng, held_out=True) for kind in kinds]


def answer(segmenter: GroundedSegmenter, n_scenes: int, only: str | None = None) -> list[Pair]:
    """Ask about each scene; with `only`, just the questions about that kind that have an answer."""
    pairs = []
    for index in range(n_scenes):
        scene = render_scene(Split.TEST, index)
        questions = [q for q in questions_about(scene, index) if only is None or (q.answers and only in q.prompt)]
        image = Image(path=Path(f"scene-{index}.png"), pixels=scene.pixels)
        prompts = list(dict.fromkeys(q.prompt for q in questions))
        found = segmenter(image, prompts).instances if prompts else ()
        pairs += [Pair(scene, q, tuple(i for i in found if i.detection.prompt == q.prompt)) for q in questions]
    return pairs


def score(pairs: list[Pair], kind: Kind, *, tight: bool = False) -> EvaluationSummary:
    """COCO's figures, every pair an image of its own; with `tight`, boxes are those of the masks."""
    numbered = list(enumerate(pairs, 1))
    objects = [(number, o, xywh_from_xyxy(o.box_xyxy)) for number, pair in numbered for o in pair.question.answers]
    data_set = DataSet(
        path=Path("scenes"),
        images=tuple(DataSetImage(number, f"scene-{number}.png", pair.scene.size) for number, pair in numbered),
        classes={1: "asked"},
        objects=tuple(
            DataSetObject(number, 1, box, run_length_from_mask(o.mask), box[2] * box[3], is_crowd=False)
            for number, o, box in objects
        ),
    )
    predictions = [
        Prediction(
            image_id=number,
            category_id=1,
            score=one.detection.score,
            box_xywh=xywh_from_xyxy(tight_box_xyxy(one.mask) if tight and one.mask else one.box_xyxy),
            mask=one.mask,
        )
        for number, pair in numbered
        for one in pair.found
    ]
    return evaluate(data_set, predictions, kind, SIZES)


def share(flags: Iterable[bool]) -> float:
    """The share of true ones, 0 of none."""
    values = list(flags)
    return sum(values) / len(values) if values else 0.0


def on_another_colour(pair: Pair, one: Instance) -> bool:
    """Whether a box sits on an object of another colour: the one it overlaps most."""
    boxes = array_from_boxes([o.box_xyxy for o in pair.scene.objects])
    overlaps = pairwise_iou(array_from_boxes([one.box_xyxy]), boxes)[0]
    best = int(overlaps.argmax())
    return bool(overlaps[best] > 0) and pair.scene.objects[best].colour != pair.question.prompt.split()[0]


def everything(scenes: Iterable[Scene]) -> dict[str, float]:
    """How much `OD` and `CAPTION` name: an object counts as found by a box of its kind at IoU .5 or more."""
    model = load_found_detector(find_models(ModelSettings("demo"), boxes_only=True), DetectSettings()).model
    found, odd, named = [], [], []
    for number, scene in enumerate(scenes):
        image = Image(path=Path(f"scene-{number}.png"), pixels=scene.pixels)
        boxes = ask_model(model, TASKS["OD"], image).boxes
        odd += [one.label not in KINDS for one in boxes]
        caption = ask_model(model, TASKS["CAPTION"], image).text
        for one in scene.objects:
            of_kind = array_from_boxes([box.box_xyxy for box in boxes if box.label == one.kind])
            overlaps = pairwise_iou(array_from_boxes([one.box_xyxy]), of_kind)
            found.append(bool((overlaps >= 0.5).any()))
            named.append(f"{one.colour} {one.kind}" in caption)
    return {
        "OD, objects found": share(found),
        "OD, labels of no kind": share(odd),
        "CAPTION, objects named with colour and kind": share(named),
    }


def figures(n_scenes: int) -> dict[str, float | None]:
    """Run the preset with its adapter and without, and take all figures."""
    pairs = answer(GroundedSegmenter.from_preset("demo", detect=EVERYTHING), n_scenes)
    bare = GroundedSegmenter.from_preset("demo", adapter="none", detect=EVERYTHING, boxes_only=True)
    boxes, masks, tight = score(pairs, "bbox"), score(pairs, "segm"), score(pairs, "bbox", tight=True)
    cars = [p for p in pairs if p.question.answers and "car" in p.question.prompt]
    absent = [p for p in pairs if not p.question.answers]
    colour_kind = [p for p in pairs if p.question.kind is QuestionKind.COLOUR_KIND]
    of_absent = {k: share(bool(p.kept) for p in absent if p.question.kind is k) for k in ABSENT}
    return {
        "box AP50": boxes.AP50,
        "box AP75": boxes.AP75,
        "box AP": boxes.AP,
        "box AP small": boxes.AP_small,
        "box AP medium": boxes.AP_medium,
        "box AP large": boxes.AP_large,
        "tight box AP50": tight.AP50,
        "tight box AP75": tight.AP75,
        "tight box AP": tight.AP,
        "mask AP50": masks.AP50,
        "mask AP": masks.AP,
        "mask AP small": masks.AP_small,
        "mask AP medium": masks.AP_medium,
        "mask AP large": masks.AP_large,
        "absent prompts with a box": share(bool(p.kept) for p in absent),
        **{f"  {kind}": value for kind, value in of_absent.items()},
        "colour kind boxes on another colour": share(on_another_colour(p, one) for p in colour_kind for one in p.kept),
        "car box AP": score(cars, "bbox").AP,
        "car box AP, adapter off": score(answer(bare, n_scenes, only="car"), "bbox").AP,
        **everything(render_scene(Split.TEST, index) for index in range(0, n_scenes, 5)),
    }


def bounds(result: dict[str, float | None], n_scenes: int) -> int:
    """Hold the figures against what the weights are made for."""
    holds, unless = MustHold(), "" if n_scenes >= ENOUGH_SCENES else f"of fewer than {ENOUGH_SCENES} scenes"
    for what, least in (("box AP50", 0.9), ("box AP", 0.6), ("mask AP", 0.6)):
        holds.at_least(what, result[what], least, unless=unless)
    what = "absent prompts with a box"
    holds.at_most(what, result[what], 0.03, unless=unless)
    return holds.exit_code()


def main() -> int:
    """Measure, print and judge."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scenes", type=int, default=500)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    result = figures(chosen.scenes)
    width = max(map(len, result))
    print(
        f"{chosen.scenes} scenes, {3 * chosen.scenes} questions, score threshold {THRESHOLD:g} for presence and colour"
    )
    for name, value in result.items():
        print(f"{name:{width}}  {'-' if value is None else f'{value:.3f}'}")
    if chosen.output:
        chosen.output.write_text(json.dumps({"scenes": chosen.scenes, **result}, indent=2) + "\n")
    return bounds(result, chosen.scenes)


if __name__ == "__main__":
    sys.exit(main())
