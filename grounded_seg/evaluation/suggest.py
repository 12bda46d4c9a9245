"""A file of classes with the thresholds that an evaluation suggests, for `run` to take."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grounded_seg.detect.prompt_set import NO_CALIBRATION, PromptRule, PromptSet
from grounded_seg.scoring.thresholds import AtThreshold, ClassThresholds

_PLAIN = re.compile(r"[^\W\d_](?:[\w -]*[\w])?")
"""Words that YAML takes as they are, but for those that it takes for values."""
_VALUES = {"null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan"}


def suggested_classes(
    prompts: PromptSet, thresholds: Sequence[ClassThresholds], measured_on: str, calibration: Mapping[str, Any] | None
) -> str:
    """The text of the file: every prompt with its class, the threshold of best F1, and its other rules as they were.

    Args:
        prompts: What was asked.
        thresholds: Of the classes; a class that isn't among them, or has no threshold, gets none.
        measured_on: What they were measured on, in words.
        calibration: Name and hash of the one that the scores are of; None for scores as they are.
    """
    by_class = {one.name: one for one in thresholds}
    with_what = f"probabilities of {calibration['name']}" if calibration else "scores without a calibration"
    lines = [
        f"# Thresholds with the best F1 of boxes at IoU 0.5, measured on {_one_line(measured_on)}.",
        f"# They are {_one_line(with_what)}; run refuses them with others.",
        "calibration:",
        f"  sha256: {calibration['sha256'] if calibration else NO_CALIBRATION}",
    ]
    rules = prompts.rule_by_prompt
    for prompt, class_name in prompts.class_by_prompt.items():
        found = by_class.get(class_name)
        rule = rules.get(prompt, PromptRule())
        best = None if found is None else found.best_f1
        rule = replace(rule, threshold=None if best is None else best.threshold)
        lines += [f"{_text(prompt)}:", f"  class: {_text(class_name)}"]
        for key, value in rule.as_json().items():
            remark = f"  # {_promise(best)}" if key == "threshold" and best is not None else ""
            lines.append(f"  {key}: {_value(value)}{remark}")
        lines += [f"  # {line}" for line in ([] if found is None else _others(found))]
    return "\n".join(lines) + "\n"


def _promise(best: AtThreshold) -> str:
    span = best.F1_interval
    interval = "" if span is None else f", {span[0]:.3f} to {span[1]:.3f} on other images"
    return f"F1 {best.F1 or 0:.3f}{interval}"


def _others(found: ClassThresholds) -> list[str]:
    if found.best_f1 is None:
        return ["no threshold: " + ("nothing right was found" if found.n_objects else "no objects")]
    reached = ((90, found.precision_90), (95, found.precision_95))
    said = [f"{share} % precision from {one.threshold:g}" for share, one in reached if one is not None]
    return ["; ".join(said)] if said else []


def _value(value: Any) -> str:
    return f"[{', '.join(map(_text, value))}]" if isinstance(value, list) else str(value)


def _text(text: str) -> str:
    """A text as YAML, in quotes where it could be taken for something else."""
    if _PLAIN.fullmatch(text) and text.casefold() not in _VALUES:
        return text
    return '"' + "".join(one if one.isprintable() and one not in '"\\' else f"\\U{ord(one):08x}" for one in text) + '"'


def _one_line(text: str) -> str:
    return " ".join(text.split())
