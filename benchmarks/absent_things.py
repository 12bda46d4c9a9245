"""Compare three ways to say "nothing here": the score alone, the label's presence as a gate, and the empty answer.

    python benchmarks/absent_things.py [--scenes 300] [--adapter FOLDER] [--output absent_things.json]

The demo's bare base and the adapter that comes with it, or another one that was tuned on it, are asked about rendered
scenes that no training saw: two things that are there, three that aren't. Each way keeps a box of at least some score:

- score: nothing else.
- presence: the probability of the box's label, and of a location after it, is at least a second threshold.
- empty: the probability that the answer ends before it begins is at most one less a second threshold.

Thresholds are chosen on half of the scenes, by cgF1, and judged on the other half: IL_FPR, IL_MCC and cgF1 as SAM 3's
evaluation defines them, and the difference of cgF1 to the score alone with its 95 % interval over bootstrap resamples.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from demo_accuracy import ABSENT, PRESENT

from grounded_seg.coco.data_set import DataSet, DataSetImage, DataSetObject
from grounded_seg.coco.predictions import Prediction
from grounded_seg.coco.schema import xywh_from_xyxy
from grounded_seg.detect.answer.box_scores import ScoreRule, shape_score
from grounded_seg.detect.answer.parse import box_from_shape, parse_tokens
from grounded_seg.detect.model.florence import FlorenceModel
from grounded_seg.detect.tasks import TASKS
from grounded_seg.geometry.boxes import array_from_boxes, kept_after_suppression
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image
from grounded_seg.scenes import Question, Scene, Split, ask, render_scene
from grounded_seg.scoring.columns import ScoredShapes, predictions_from, truths_from
from grounded_seg.scoring.presence import PresenceCounts, presence_counts, presence_summary, presence_tallies
from grounded_seg.settings import DetectSettings, ModelSettings, Precision

_TASK = TASKS["CAPTION_TO_PHRASE_GROUNDING"]
_UNKNOWN_TO_BASE = "car"
"""The base was taught that there are none."""
_STEPS = np.arange(0.0, 1.0, 0.05)
_DEFAULT = DetectSettings().score_threshold
_FINER = (0.97, 0.98, 0.99, 0.995, 0.999)
_WAYS = ("score", "presence", "empty")


@dataclass(frozen=True, eq=False)
class Answers:
    """Questions and what was found, as columns; a question is an image with one class."""

    truths: ScoredShapes
    predictions: ScoredShapes
    """Their score is the product."""
    presence: npt.NDArray[np.float64]
    """Of each prediction."""
    empty: npt.NDArray[np.float64]
    """Of each prediction: the probability that its answer is empty."""
    n_questions: int


@dataclass(frozen=True)
class Way:
    """A way with its thresholds."""

    name: str
    score: float
    second: float = 0.0

    def kept(self, answers: Answers) -> npt.NDArray[np.bool_]:
        """Say which predictions it keeps."""
        kept = answers.predictions.score >= self.score
        if self.name == "presence":
            kept = kept & (answers.presence >= self.second)
        if self.name == "empty":
            kept = kept & (answers.empty <= 1 - self.second)
        return kept

    def counts(self, answers: Answers) -> PresenceCounts:
        """Count the questions by whether they are answered right, each a group of its own."""
        tallies = presence_tallies(answers.truths, answers.predictions.chosen(self.kept(answers)), 0.0)
        return presence_counts(tallies, tallies.image, answers.n_questions)


def questions_about(scene: Scene, index: int, *, knows_all: bool) -> list[Question]:
    """Ask two questions with an answer and three without."""
    rng = np.random.default_rng(index)
    questions = [ask(scene, kind, rng, held_out=True) for kind in (*PRESENT, *ABSENT)]
    # Of two questions with the same words one is enough.
    distinct = {one.prompt: one for one in questions}.values()
    return [one for one in distinct if knows_all or _UNKNOWN_TO_BASE not in one.prompt]


@torch.inference_mode()
def empty_probabilities(model: FlorenceModel, features: torch.Tensor, texts: Sequence[str]) -> list[float]:
    """Give the probability that an answer ends where it would begin."""
    encoded, mask = model._encode(features[[0] * len(texts)], texts)
    begin = [model.rules.start_id, *([] if model.rules.forced_first_id is None else [model.rules.forced_first_id])]
    ids = torch.tensor([begin] * len(texts), device=encoded.device)
    states = model.network.model.language_model.decoder(
        input_ids=ids, encoder_hidden_states=encoded, encoder_attention_mask=mask, use_cache=False
    ).last_hidden_state
    probabilities = model.network.lm_head(states[:, -1]).float().softmax(dim=-1)
    return [float(one) for one in probabilities[:, model.vocabulary.eos_id]]


def answers_of(model: FlorenceModel, scenes: range, *, knows_all: bool) -> Answers:
    """Ask about scenes of the test split."""
    images: list[DataSetImage] = []
    objects: list[DataSetObject] = []
    found: list[Prediction] = []
    presence: list[float] = []
    empty: list[float] = []
    for index in scenes:
        scene = render_scene(Split.TEST, index)
        features = model.encode_images([Image(path=Path(f"scene-{index}.png"), pixels=scene.pixels)])
        questions = questions_about(scene, index, knows_all=knows_all)
        texts = [_TASK.question(one.prompt) for one in questions]
        said = model.answer(features, texts, about=[0] * len(texts), tasks=[_TASK] * len(texts))
        for question, answer, p_empty in zip(questions, said, empty_probabilities(model, features, texts), strict=True):
            number = len(images) + 1
            images.append(DataSetImage(number, f"{number}.png", scene.size))
            for one in question.answers:
                box = xywh_from_xyxy(one.box_xyxy)
                objects.append(DataSetObject(number, 1, box, None, box[2] * box[3], is_crowd=False))
            shapes = parse_tokens(_TASK, answer.token_ids, model.vocabulary, question.prompt)
            placed = [(shape, box) for shape in shapes if (box := box_from_shape(shape, scene.size))]
            scores = np.array([shape_score(shape, answer.evidence) for shape, _ in placed])
            boxes = array_from_boxes([box for _, box in placed])
            for place in kept_after_suppression(boxes, scores, DetectSettings().iou_threshold):
                shape, box_xyxy = placed[place]
                found.append(Prediction(number, 1, float(scores[place]), xywh_from_xyxy(box_xyxy), None))
                presence.append(shape_score(shape, answer.evidence, ScoreRule.PRESENCE))
                empty.append(p_empty)
    data_set = DataSet(path=Path("scenes"), images=tuple(images), classes={1: "asked"}, objects=tuple(objects))
    columns = truths_from(data_set, "bbox"), predictions_from(found, data_set, "bbox")
    return Answers(*columns, np.array(presence), np.array(empty), len(images))


def candidates(name: str) -> list[Way]:
    """List all thresholds of a way that are tried."""
    if name == "score":
        return [Way(name, float(score)) for score in (*_STEPS, *_FINER)]
    return [Way(name, float(score), float(second)) for score in _STEPS for second in (*_STEPS[1::2], *_FINER)]


def judged(way: Way, answers: Answers, base: PresenceCounts | None, n_resamples: int) -> dict[str, Any]:
    """Take a way's figures, and how much more its cgF1 is than that of `base`."""
    counts = way.counts(answers)
    summary = presence_summary(counts)
    figures: dict[str, Any] = {"score_threshold": way.score, "second_threshold": way.second}
    figures |= {name: getattr(summary, name) for name in ("IL_recall", "IL_FPR", "IL_MCC", "pmF1", "cgF1")}
    if base is not None:
        draw = np.random.default_rng(0)
        differences = []
        for _ in range(n_resamples):
            drawn = draw.integers(answers.n_questions, size=answers.n_questions)
            weights = np.bincount(drawn, minlength=answers.n_questions).astype(np.float64)
            pair = [presence_summary(one, weights).cgF1 for one in (counts, base)]
            differences.append((pair[0] or 0.0) - (pair[1] or 0.0))
        figures["cgF1_more"] = (summary.cgF1 or 0.0) - (presence_summary(base).cgF1 or 0.0)
        figures["interval"] = [float(one) for one in np.percentile(differences, [2.5, 97.5])]
    return figures


def compared(model: FlorenceModel, n_scenes: int, n_resamples: int, *, knows_all: bool) -> dict[str, Any]:
    """Choose the thresholds of each way on half of the scenes, and judge them on the others."""
    chosen_on = answers_of(model, range(n_scenes // 2), knows_all=knows_all)
    judged_on = answers_of(model, range(n_scenes // 2, n_scenes), knows_all=knows_all)
    best = {
        name: max(candidates(name), key=lambda way: presence_summary(way.counts(chosen_on)).cgF1 or 0.0)
        for name in _WAYS
    }
    base = best["score"].counts(judged_on)
    default = Way("score", _DEFAULT)
    rows = {f"score at the default {_DEFAULT:g}": judged(default, judged_on, None, 0)}
    for name in ("presence", "empty"):
        way = Way(name, _DEFAULT, _DEFAULT)
        rows[f"{name} at the default and {_DEFAULT:g}"] = judged(way, judged_on, default.counts(judged_on), n_resamples)
    rows["score"] = judged(best["score"], judged_on, None, 0)
    for name in ("presence", "empty"):
        rows[name] = judged(best[name], judged_on, base, n_resamples)
    return {"questions": judged_on.n_questions, "ways": rows}


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--scenes", type=int, default=300, help="half to choose the thresholds, half to judge them")
    options.add_argument("--adapter", help="adapter beside the bare base, instead of the demo's own")
    options.add_argument("--resamples", type=int, default=1000)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    results = {}
    for name, adapter, knows_all in (("bare base", "none", False), ("adapter", chosen.adapter, True)):
        models = ModelSettings(preset="demo", adapter=adapter, dtype=Precision.FLOAT32)
        model = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
        results[name] = compared(model, chosen.scenes, chosen.resamples, knows_all=knows_all)
        print(f"{name}, {results[name]['questions']} questions judged")
        for way, row in results[name]["ways"].items():
            shown = "  ".join(f"{key} {value:.3f}" for key, value in row.items() if isinstance(value, float))
            interval = f"  [{row['interval'][0]:+.3f}, {row['interval'][1]:+.3f}]" if "interval" in row else ""
            print(f"  {way:33}{shown}{interval}")
    if chosen.output:
        chosen.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
