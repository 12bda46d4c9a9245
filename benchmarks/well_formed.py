"""Count malformed answers with and without the rule that lets only allowed tokens come next, and time that rule.

    python benchmarks/well_formed.py [--answers 10000] [--scenes 100] [--output well_formed.json]
    python benchmarks/well_formed.py --tokenizer FOLDER [--size base] [--answers 0] [--scenes 0]

- Tiny random models, all fifteen tasks in turn, greedily and with three beams. Some of them mostly say locations, some
  mostly text; most of their answers are malformed. With the rule none may be, and a greedy answer that was well-formed
  without it keeps its tokens and, to 1e-6, its probabilities.
- The demo, its bare base and its adapter, asked about rendered scenes.
- With Florence-2's tokenizer, a full-size model with random weights: the time of 24 tokens with the rule and without,
  in turns, by the loop of our own and by `generate` with three beams. The median ratio may be 1.03 at most.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from decoder_speed import N_TOKENS, questions_of
from full_size_florence import SIZES, full_size_model
from must_hold import MustHold, not_full_size

from grounded_seg.detect.answer.well_formed import AnswerForm, form_of, is_well_formed
from grounded_seg.detect.model.florence import FlorenceModel, GeneratedAnswer
from grounded_seg.detect.tasks import TASKS, Task, TaskInput
from grounded_seg.device.choose import n_threads, resolve_device, resolve_dtype
from grounded_seg.pipeline.load import find_models, load_found_detector
from grounded_seg.records import Image
from grounded_seg.scenes import KINDS, Split, render_scene
from grounded_seg.settings import DetectSettings, ModelSettings, Precision

_TEXTS = {
    TaskInput.NOTHING: "",
    TaskInput.PHRASE: "a red car",
    TaskInput.REGION: "<loc_10><loc_20><loc_300><loc_400>",
}
_A_MODEL = 600
"""Answers of each random model."""
_COMPARED = 20
"""Well-formed answers of a model, or about a scene, whose probabilities are compared."""
_GROUNDING = TASKS["CAPTION_TO_PHRASE_GROUNDING"]


def random_model(seed: int, tokenizer: Path) -> FlorenceModel:
    """Make a tiny model that says locations, marks and ends more or less often."""
    model = full_size_model("tiny", tokenizer, seed)
    draw = np.random.default_rng(seed)
    words = model.network.get_input_embeddings().weight
    names = model.vocabulary.id_by_token()
    marks = [names[name] for name in ("<sep>", "<poly>", "</poly>", "<s>") if name in names]
    with torch.no_grad():
        words.normal_(generator=torch.Generator().manual_seed(seed)).mul_(0.2)
        words[list(model.vocabulary.location_ids)] *= draw.uniform(1.0, 2.0)
        words[marks] *= draw.uniform(1.0, 4.0)
        words[model.vocabulary.eos_id] *= draw.uniform(1.0, 4.0)
    return model


def count(
    model: FlorenceModel, features: torch.Tensor, asked: Sequence[tuple[Task, str]], about: Sequence[int], beams: int
) -> dict[str, float]:
    """Answer everything with the rule and without, and count."""
    texts, tasks = [text for _, text in asked], [task for task, _ in asked]
    free = model.answer(features, texts, about=about, beams=beams, max_new_tokens=N_TOKENS)
    kept = model.answer(features, texts, about=about, beams=beams, max_new_tokens=N_TOKENS, tasks=tasks)
    forms = [form_of(task) for task in tasks]
    well, after = (
        [is_well_formed(form, one.token_ids, model.vocabulary) for form, one in zip(forms, answers, strict=True)]
        for answers in (free, kept)
    )
    changed = [one.token_ids != other.token_ids for one, other in zip(free, kept, strict=True)]
    worst = 0.0
    for place in np.flatnonzero(well)[:_COMPARED].tolist():
        # Alone, as last bits depend on what else is in work.
        alone = {"about": [about[place]], "beams": beams, "max_new_tokens": N_TOKENS}
        [one] = model.answer(features, [texts[place]], **alone)
        [other] = model.answer(features, [texts[place]], tasks=[tasks[place]], **alone)
        worst = max(worst, difference(one, other))
    return {
        "answers": len(asked),
        "malformed_before": well.count(False),
        "malformed_after": after.count(False),
        "well_formed_changed": sum(one and other for one, other in zip(well, changed, strict=True)),
        "worst_probability": worst,
    }


def difference(one: GeneratedAnswer, other: GeneratedAnswer) -> float:
    """Give the largest difference of a probability; 1 where the tokens differ."""
    if one.token_ids != other.token_ids:
        return 1.0
    said = np.exp(one.evidence.log_probabilities) - np.exp(other.evidence.log_probabilities)
    places = one.evidence.location_probabilities - other.evidence.location_probabilities
    return float(max(np.abs(said).max(), np.abs(places).max()))


def add(total: dict[str, float], more: dict[str, float]) -> dict[str, float]:
    """Add counts by name, and keep the worst."""
    before = {name: total.get(name, 0) for name in more}
    return {
        name: max(before[name], value) if name.startswith("worst") else before[name] + value
        for name, value in more.items()
    }


def of_random_models(n_answers: int, beams: int) -> dict[str, float]:
    """Count over as many random models as it takes."""
    total: dict[str, float] = {}
    # A small vocabulary, with all of the marks.
    tokenizer = find_models(ModelSettings(preset="demo"), boxes_only=True).detector.path
    asked = [(task, task.question(_TEXTS[task.takes])) for task in TASKS.values()]
    for seed in range(-(-n_answers // _A_MODEL)):
        model = random_model(seed, tokenizer)
        n_images = -(-_A_MODEL // len(asked))
        width = model.network.config.text_config.d_model
        features = torch.randn(n_images, 20, width, generator=torch.Generator().manual_seed(seed))
        about = [place // len(asked) for place in range(_A_MODEL)]
        total = add(total, count(model, features, (asked * n_images)[:_A_MODEL], about, beams))
    return total


def of_demo(adapter: str | None, n_scenes: int, beams: int) -> dict[str, float]:
    """Count over all kinds and some other words, asked about scenes."""
    models = ModelSettings(preset="demo", adapter=adapter, dtype=Precision.FLOAT32)
    model = load_found_detector(find_models(models, boxes_only=True), DetectSettings()).model
    prompts = (*KINDS, *(f"red {kind}" for kind in KINDS), "dog", "street sign")
    asked = [(_GROUNDING, _GROUNDING.question(prompt)) for prompt in prompts]
    total: dict[str, float] = {}
    for index in range(n_scenes):
        pixels = render_scene(Split.TEST, index).pixels
        features = model.encode_images([Image(Path("x.png"), pixels)])
        total = add(total, count(model, features, asked, [0] * len(asked), beams))
    return total


def cost(model: FlorenceModel, n_rows: int, beams: int, repeats: int) -> dict[str, Any]:
    """Time both from the same encoder states on, in turns; seconds are medians, the ratio that of each turn."""
    features, texts = questions_of(model, n_rows, seed=n_rows)
    # All is looked at, and nothing is forbidden: so both say the same tokens, and have the same work but for the rule.
    forms = [AnswerForm.ANY] * n_rows
    with torch.inference_mode():
        encoded = model._encode(features, texts)
    lengths = [encoded[0].shape[1]] * n_rows

    def answered(rule: Any) -> list[GeneratedAnswer]:
        if beams == 1:
            return model._greedy_answers(
                lambda some: (encoded[0][list(some)], encoded[1][list(some)]), lengths, N_TOKENS, rule
            )
        return list(model._generated(*encoded, model._generation(beams, N_TOKENS), rule))

    ways: dict[str, Callable[[], list[GeneratedAnswer]]] = {
        "without_s": lambda: answered(None),
        "with_s": lambda: answered(forms),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(repeats + 1):
        for name, way in ways.items() if turn % 2 else reversed(ways.items()):
            started = time.perf_counter()
            with torch.inference_mode():
                answers = way()
            # A turn that doesn't count comes first.
            if turn:
                times[name].append(time.perf_counter() - started)
            if any(len(one.token_ids) != N_TOKENS for one in answers):
                raise RuntimeError(f"an answer hasn't {N_TOKENS} tokens")
    ratios = [one / other for one, other in zip(times["with_s"], times["without_s"], strict=True)]
    return {
        "rows": n_rows,
        "beams": beams,
        **{name: statistics.median(some) for name, some in times.items()},
        "ratio": statistics.median(ratios),
    }


def main() -> int:
    """Count, time and print; 1 if a bound isn't held."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--answers", type=int, default=10_000, help="of random models, greedy; a tenth with beams")
    options.add_argument("--scenes", type=int, default=100, help="that the demo is asked about")
    options.add_argument("--tokenizer", type=Path, help="folder of Florence-2's tokenizer.json, to time the rule")
    options.add_argument("--size", choices=SIZES, default="base")
    options.add_argument("--device", default="auto")
    options.add_argument("--dtype", type=Precision, default=Precision.AUTO)
    options.add_argument("--repeats", type=int, default=7)
    options.add_argument("--output", type=Path, help="write the figures as JSON")
    chosen = options.parse_args()
    counted = {}
    if chosen.answers:
        counted["random models, greedy"] = of_random_models(chosen.answers, 1)
        counted["random models, 3 beams"] = of_random_models(max(1, chosen.answers // 10), 3)
    if chosen.scenes:
        counted["demo, bare base"] = of_demo("none", chosen.scenes, 1)
        counted["demo, adapter"] = of_demo(None, chosen.scenes, 1)
    for name, one in counted.items():
        print(f"{name}: " + ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in one.items()))
    timed = [] if chosen.tokenizer is None else times_of(chosen)
    for one in timed:
        print("  " + ", ".join(f"{name} {value:.4g}" for name, value in one.items()))
    if chosen.output:
        chosen.output.write_text(json.dumps({"counted": counted, "timed": timed}, indent=2) + "\n")
    return bounds(counted, timed, chosen.size)


def times_of(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a model of the chosen size."""
    device = resolve_device(chosen.device)
    dtype = resolve_dtype(chosen.dtype, device)
    model = full_size_model(chosen.size, chosen.tokenizer)
    model.to(device, dtype)
    print(f"{chosen.size}, {device}, {dtype}, {n_threads()} threads, {N_TOKENS} tokens")
    return [cost(model, rows, beams, chosen.repeats) for beams, rows in ((1, 1), (1, 8), (3, 1), (3, 4))]


def bounds(counted: dict[str, dict[str, float]], timed: list[dict[str, Any]], size: str) -> int:
    """Hold the figures against what they must be."""
    holds = MustHold()
    for name, one in counted.items():
        holds.at_most(f"malformed answers, {name}", one["malformed_after"], 0)
        if "beams" not in name:
            # Where a beam was malformed, room is made for another, which may be better in the end.
            holds.at_most(f"well-formed answers that changed, {name}", one["well_formed_changed"], 0)
            holds.at_most(f"difference of a probability in those, {name}", one["worst_probability"], 1e-6)
        if name.startswith("random"):
            holds.at_least(f"malformed before, {name}", one["malformed_before"] / one["answers"], 0.3)
    for one in timed:
        way = f"{one['rows']} at once, {'the loop' if one['beams'] == 1 else 'generate with 3 beams'}"
        holds.at_most(f"time with the rule, {way}", one["ratio"], 1.03, unless=not_full_size(size, "base"))
    return holds.exit_code()


if __name__ == "__main__":
    sys.exit(main())
