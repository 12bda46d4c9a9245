"""Prompts and their classes: from the command line, from Python, or from a YAML file."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from grounded_seg.detect.class_file import read_classes
from grounded_seg.detect.prompt_set import KEYS, PromptRule, rule_from
from grounded_seg.detect.prompt_set import PromptSet as PromptSet
from grounded_seg.errors import UsageError

# Not the dot of an abbreviation: such have few letters.
_LIST_SIGNS = re.compile(r",(?:\s+|$)|(?:(?<=\w{3})|\s)\.(?:\s+|$)|\n+")
_MOST_WORDS = 4
"""Of each thing that a prompt seems to list."""
_ADJECTIVES = (
    "big small large little tiny huge tall short long wide old new young red blue green yellow white black brown grey "
    "gray pink purple dark bright light round square wooden metal empty open closed dirty clean wet dry"
)
"""A part that is only such a word describes what follows."""
_TIES = "with without in on at of near behind under above from to who that which whose where wearing"
"""A part that begins with such a word, or one in -ing, describes what it follows."""
_MOST_SHOWN = 80
"""Characters of a value in a message."""


Prompts: TypeAlias = str | Sequence[str] | Mapping[str, str | Mapping[str, Any]] | PromptSet
"""Prompts separated by `;` as on the command line, a sequence of prompts, or prompts with their classes, or with what
may stand under a prompt in a file of classes: class, threshold, not, min_area, max_detections."""

_FORMS = '"red car; dog", "@classes.yaml", a list of texts, a mapping of prompts to classes, or a PromptSet'


def prompt_set_from(prompts: Prompts) -> PromptSet:
    """Prompts in any form as one. A mapping has a class for each prompt, as a YAML file of classes has.

    Raises:
        UsageError: If there is no prompt, or it is none of the forms.

    >>> prompt_set_from({"red car": "car", "blue car": "car"}).class_names
    ('car', 'car')
    """
    if isinstance(prompts, PromptSet):
        return prompts
    if isinstance(prompts, str):
        return read_prompts(prompts)
    if isinstance(prompts, Mapping):
        return _from_mapping(prompts)
    return prompts_from(_texts(prompts))


def _texts(prompts: Any) -> list[str]:
    """Take texts one by one, and refuse all else that a caller may have."""
    if isinstance(prompts, bytes | bytearray) or not isinstance(prompts, Iterable):
        raise UsageError(f"the prompts are {_shown(prompts)}; give {_FORMS}")
    texts = list(prompts)
    for text in texts:
        if not isinstance(text, str):
            raise UsageError(f"{_shown(text)} among the prompts is no text; give {_FORMS}")
    return texts


def _from_mapping(classes: Mapping[Any, Any]) -> PromptSet:
    class_by_prompt: dict[str, str] = {}
    rules: list[PromptRule] = []
    for prompt, value in classes.items():
        class_name, rule = _class_and_rule(prompt, value) if isinstance(value, Mapping) else (value, PromptRule())
        words = [side.strip() if isinstance(side, str) else "" for side in (prompt, class_name)]
        if not all(words):
            raise UsageError(f"expected prompt: class, both of them text, and got {_shown({prompt: class_name})}")
        for what, side in (("prompt", words[0]), ("class", words[1]), *(("prompt", one) for one in rule.unwanted)):
            check_is_text(what, side)
        if words[0] in class_by_prompt:
            raise UsageError(f"the prompt {words[0]!r} is there twice, keep one of them")
        if words[0] in rule.unwanted:
            raise UsageError(f"the prompt {words[0]!r} stands under its own not; take it out")
        class_by_prompt[words[0]] = words[1]
        rules.append(rule)
    if not classes:
        return prompts_from(())
    return PromptSet(tuple(class_by_prompt), tuple(class_by_prompt.values())).with_rules(rules, None)


def _class_and_rule(prompt: Any, given: Mapping[Any, Any]) -> tuple[Any, PromptRule]:
    """The class under a prompt, which is its own where none is given, and its rule."""
    unknown = [key for key in given if key not in KEYS]
    if unknown:
        raise UsageError(
            f"there is no key {unknown[0]!r} for the prompt {_shown(prompt)}; a prompt has {', '.join(KEYS)}"
        )
    rule, problems = rule_from(given)
    if problems:
        raise UsageError(f"the prompt {_shown(prompt)}: {'; '.join(problems)}")
    return given.get("class", prompt), rule


def _shown(given: object) -> str:
    """Show a value in one line."""
    return " ".join(repr(given).split())[:_MOST_SHOWN]


def read_prompts(argument: str) -> PromptSet:
    """The command line's PROMPT: prompts separated by `;`, or `@FILE`, a YAML mapping of prompts to classes.

    >>> read_prompts("red car; traffic light;red car").prompts
    ('red car', 'traffic light')
    """
    if argument.strip().startswith("@"):
        return read_classes(Path(argument.strip()[1:]))
    return prompts_from(argument.split(";"))


def listed_in(argument: str) -> tuple[str, ...]:
    """The things that one prompt seems to list with commas or full stops, as other tools want them; empty for none.

    Short phrases only: a sentence is a prompt of its own, and so is a thing described in parts, as far as words tell.

    >>> listed_in("red car, ball, and dog"), listed_in("red car. ball."), listed_in("St. Bernard"), listed_in("a; b, c")
    (('red car', 'ball', 'dog'), ('red car', 'ball'), (), ())
    """
    if ";" in argument or argument.strip().startswith("@"):
        return ()
    things = tuple(part.strip().removeprefix("and ").removeprefix("or ") for part in _LIST_SIGNS.split(argument))
    things = tuple(dict.fromkeys(thing for thing in things if thing))
    return things if len(things) > 1 and all(map(_may_be_a_thing, things)) else ()


def _may_be_a_thing(part: str) -> bool:
    """Whether a part between commas may stand alone: "ball", but not "big" or "wearing a hat"."""
    words = part.lower().split()
    describes = (
        words[0] in _TIES.split()
        or (len(words) > 1 and words[0].endswith("ing"))
        or part.lower() in _ADJECTIVES.split()
    )
    return len(words) <= _MOST_WORDS and not describes


def prompts_from(texts: Iterable[str]) -> PromptSet:
    """Texts as prompts, each its own class: blanks trimmed, empty and repeated ones dropped; one has to be left."""
    prompts = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    for prompt in prompts:
        check_is_text("prompt", prompt)
    if not prompts:
        raise UsageError('the prompt is empty, name what to look for, as in "red car; traffic light"')
    return PromptSet(prompts, prompts)


def check_is_text(what: str, words: str) -> None:
    """Refuse words of the command line whose bytes aren't UTF-8: they hold surrogates, which no file can."""
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the {what} {words!r} is not UTF-8; write it in that encoding") from error
