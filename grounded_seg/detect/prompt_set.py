"""What is asked: prompts with their classes, and rules for what a prompt finds."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grounded_seg.setting_types import PositiveInt, Share, convert_values

RULES = {"threshold": Share, "min_area": PositiveInt, "max_detections": PositiveInt}
"""The keys of a rule that are numbers."""
KEYS = ("class", "threshold", "not", "min_area", "max_detections")
"""What may stand under a prompt."""
NO_CALIBRATION = "none"
"""Stands in the place of a calibration's hash where thresholds are for scores without one."""
_UNWANTED = "\0not "
"""Begins the class of a prompt that is asked only to drop boxes: no class has such a name."""


@dataclass(frozen=True)
class PromptRule:
    """What becomes of the boxes that a prompt finds; None for what the settings of the run say."""

    threshold: float | None = None
    """Boxes that score less are dropped, instead of `DetectSettings.score_threshold`."""
    unwanted: tuple[str, ...] = ()
    """Prompts under `not`: asked too, and never written. A box is dropped if a box of theirs overlaps it at IoU .5 or
    more and has the higher score."""
    min_area: int | None = None
    """In pixels of the mask, or of the box where there are no masks; what is smaller is dropped."""
    max_detections: int | None = None
    """Kept per image, best scores first; never more than `DetectSettings.max_detections`."""

    @property
    def is_empty(self) -> bool:
        """Whether it says nothing."""
        return self == PromptRule()

    def as_json(self) -> dict[str, Any]:
        """What it says, by the keys of a file of classes."""
        said = {name: value for name, value in asdict(self).items() if value not in (None, ())}
        if "unwanted" in said:
            said["not"] = list(said.pop("unwanted"))
        return said


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run, each a question of its own, and the class of each."""

    prompts: tuple[str, ...]
    """Distinct, in the order given."""
    class_names: tuple[str, ...]
    """The class of each prompt; several prompts may share one."""
    rules: tuple[PromptRule, ...] = ()
    """For each prompt; empty where there is no rule at all."""
    calibration: str | None = None
    """SHA-256 of the calibration that the thresholds were chosen with, "none" for scores as they are; None where
    nothing says so."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct classes in the order of their first prompt."""
        return tuple(dict.fromkeys(self.class_names))

    @property
    def class_by_prompt(self) -> dict[str, str]:
        """The class of each prompt, in the order given."""
        return dict(zip(self.prompts, self.class_names, strict=True))

    @property
    def rule_by_prompt(self) -> dict[str, PromptRule]:
        """The rule of each prompt; empty where there is no rule at all."""
        return dict(zip(self.prompts, self.rules, strict=True)) if self.rules else {}

    @property
    def rules_as_json(self) -> dict[str, dict[str, Any]] | None:
        """What is said about each prompt that has a rule, as a file of classes has it; None for none."""
        return {prompt: rule.as_json() for prompt, rule in self.rule_by_prompt.items() if not rule.is_empty} or None

    @property
    def unwanted(self) -> frozenset[str]:
        """Prompts that are asked only to drop boxes."""
        return frozenset(prompt for rule in self.rules for prompt in rule.unwanted) - frozenset(self.prompts)

    @property
    def questions(self) -> dict[str, str]:
        """All that is asked, with the class within which duplicates are removed: each `unwanted` has its own."""
        own = {prompt: f"{_UNWANTED}{prompt}" for rule in self.rules for prompt in rule.unwanted}
        return {**self.class_by_prompt, **{one: name for one, name in own.items() if one in self.unwanted}}

    def only(self, prompts: Sequence[str]) -> "PromptSet":
        """Some of the prompts, in this order, with their classes and rules."""
        classes, rules = self.class_by_prompt, self.rule_by_prompt
        return replace(
            self,
            prompts=tuple(prompts),
            class_names=tuple(classes[one] for one in prompts),
            rules=tuple(rules[one] for one in prompts) if rules else (),
        )

    def without_thresholds(self) -> "PromptSet":
        """The same questions and rules, with every box whatever its score."""
        return self.with_rules([replace(rule, threshold=None) for rule in self.rules], None)

    def with_rules(self, rules: Sequence[PromptRule], calibration: str | None) -> "PromptSet":
        """The same prompts with other rules, one for each or none; those that say nothing are as none."""
        said = () if all(rule.is_empty for rule in rules) else tuple(rules)
        return replace(self, rules=said, calibration=calibration)


def rule_from(given: Mapping[str, Any], *, numbers_as_text: bool = False) -> tuple[PromptRule, list[str]]:
    """A rule from the keys of a file of classes but for `class`, and a line for each value that is wrong.

    `not` is a text or a list of texts.

    >>> rule_from({"threshold": 0.35, "not": "toy car"})
    (PromptRule(threshold=0.35, unwanted=('toy car',), min_area=None, max_detections=None), [])
    """
    numbers = {name: given[name] for name in RULES if name in given}
    names = {name: name for name in RULES}
    good, problems = convert_values(numbers, RULES, names, numbers_as_text=numbers_as_text)
    # The converter writes names as options have them.
    problems = [one.replace("-", "_", 1) if one.startswith(("min-", "max-")) else one for one in problems]
    texts = given.get("not", ())
    unwanted = [texts] if isinstance(texts, str) else texts
    if not isinstance(unwanted, list | tuple) or not all(isinstance(one, str) and one.strip() for one in unwanted):
        problems.append("not is no prompt and no list of prompts, as in [toy car, car wheel]")
        unwanted = ()
    distinct = tuple(dict.fromkeys(one.strip() for one in unwanted))
    return PromptRule(unwanted=distinct, **good), problems
