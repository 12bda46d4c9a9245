"""Compare what could make a box's score, by the demo preset's box AP on rendered scenes that its training never saw.

    python benchmarks/detector_scores.py [--scenes 500] [--output scores.json]

Every question is answered once; the variants score and thin out the very same boxes. The scenes and questions are those
of `demo_accuracy.py`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from demo_accuracy import EVERYTHING, Pair, questions_about, score

from grounded_seg.detect.answer.box_scores import ScoreRule, shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS
from grounded_seg.geometry.boxes import array_from_boxes, kept_after_suppression
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Detection, Image, Instance
from grounded_seg.scenes import Split, render_scene
from grounded_seg.settings import ModelSettings

_TASK = TASKS["CAPTION_TO_PHRASE_GROUNDING"]


def pairs_by_rule(model: FlorenceModel, n_scenes: int) -> dict[ScoreRule, list[Pair]]:
    """Answer every question, and score the boxes by each rule."""
    pairs: dict[ScoreRule, list[Pair]] = {rule: [] for rule in ScoreRule}
    for index in range(n_scenes):
        scene = render_scene(Split.TEST, index)
        features = model.encode_images([Image(path=Path(f"scene-{index}.png"), pixels=scene.pixels)])
        questions = questions_about(scene, index)
        said = model.answer(features[[0] * len(questions)], [_TASK.question(one.prompt) for one in questions])
        for question, answer in zip(questions, said, strict=True):
            shapes = parse_tokens(_TASK, answer.token_ids, model.vocabulary, question.prompt)
            placed = [(shape, box) for shape in shapes if (box := box_from_shape(shape, scene.size))]
            for rule in ScoreRule:
                scores = np.array([shape_score(shape, answer.evidence, rule) for shape, _ in placed])
                boxes = array_from_boxes([box for _, box in placed])
                kept = kept_after_suppression(boxes, scores, EVERYTHING.iou_threshold)
                found = tuple(
                    Instance(Detection("", question.prompt, placed[place][1], float(scores[place])), None, None)
                    for place in kept
                )
                pairs[rule].append(Pair(scene, question, found))
    return pairs


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--scenes", type=int, default=500)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    detector = load_found_detector(find_models(ModelSettings(preset="demo"), boxes_only=True), EVERYTHING)
    figures = {}
    for rule, pairs in pairs_by_rule(detector.model, chosen.scenes).items():
        summary = score(pairs, "bbox")
        figures[str(rule)] = {"AP": summary.AP, "AP50": summary.AP50, "AP75": summary.AP75}
    print(f"{chosen.scenes} scenes, {3 * chosen.scenes} questions, box AP")
    for name, row in figures.items():
        print(f"  {name:10}" + "".join(f"  {key} {value or 0:.3f}" for key, value in row.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps({"scenes": chosen.scenes, "rules": figures}, indent=2) + "\n")


if __name__ == "__main__":
    main()
