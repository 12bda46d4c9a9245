"""Prompts and their classes: from the command line, from Python, or from a YAML file."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from grounded_seg.errors import InputError, UsageError
from grounded_seg.text.decoding import decode_text
from grounded_seg.text.yaml_nodes import yaml_line, yaml_root, yaml_text

# Not the dot of an abbreviation: such have few letters.
_LIST_SIGNS = re.compile(r",(?:\s+|$)|(?:(?<=\w{3})|\s)\.(?:\s+|$)|\n+")
_MOST_WORDS = 4
"""Of each thing that a prompt seems to list."""


@dataclass(frozen=True)
class PromptSet:
    """The prompts of a run, each a question of its own, and the class of each."""

    prompts: tuple[str, ...]
    """Distinct, in the order given."""
    class_names: tuple[str, ...]
    """The class of each prompt; several prompts may share one."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The distinct classes in the order of their first prompt."""
        return tuple(dict.fromkeys(self.class_names))

    @property
    def class_by_prompt(self) -> dict[str, str]:
        """The class of each prompt, in the order given."""
        return dict(zip(self.prompts, self.class_names, strict=True))


Prompts: TypeAlias = str | Sequence[str] | PromptSet
"""Prompts separated by `;` as on the command line, a sequence of prompts, or prompts with their classes."""


def prompt_set_from(prompts: Prompts) -> PromptSet:
    """Prompts in any form as one."""
    if isinstance(prompts, PromptSet):
        return prompts
    return read_prompts(prompts) if isinstance(prompts, str) else prompts_from(prompts)


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

    Short phrases only: a sentence is a prompt of its own.

    >>> listed_in("red car, ball, and dog"), listed_in("red car. ball."), listed_in("St. Bernard"), listed_in("a; b, c")
    (('red car', 'ball', 'dog'), ('red car', 'ball'), (), ())
    """
    if ";" in argument or argument.strip().startswith("@"):
        return ()
    things = tuple(part.strip().removeprefix("and ").removeprefix("or ") for part in _LIST_SIGNS.split(argument))
    things = tuple(dict.fromkeys(thing for thing in things if thing))
    return things if len(things) > 1 and all(len(thing.split()) <= _MOST_WORDS for thing in things) else ()


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


def read_classes(path: Path) -> PromptSet:
    """The prompts of a YAML file with one `prompt: class` per line.

    Both sides are taken as text: `no: sign` is the prompt "no", not a truth value. A `UsageError` names file and line.
    """
    try:
        text = decode_text(path.read_bytes(), path)
        root = yaml_root(text, path)
    except OSError as error:
        raise UsageError(
            f"{path}: the classes can't be read ({error.strerror}); check the path and its permissions"
        ) from error
    except InputError as error:
        raise UsageError(str(error)) from error
    if isinstance(root, yaml.ScalarNode | yaml.SequenceNode):
        line = yaml_line(root)
        prompt = text.splitlines()[line - 1].strip(" \t-'\"") or "red car"
        raise UsageError(f"{path}:{line}: expected `prompt: class` on each line, such as `{prompt}: {prompt}`")
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UsageError(f"{path}: expected lines of the form `prompt: class`")
    classes: dict[str, str] = {}
    for line, prompt, class_name in _entries(path, root):
        if prompt in classes:
            raise UsageError(f"{path}:{line}: the prompt {prompt!r} is there twice, keep one of the lines")
        classes[prompt] = class_name
    return PromptSet(tuple(classes), tuple(classes.values()))


def _entries(path: Path, root: yaml.MappingNode) -> Iterator[tuple[int, str, str]]:
    for key, value in root.value:
        line = yaml_line(key)
        try:
            prompt, class_name = (yaml_text(node, path) for node in (key, value))
        except InputError as error:
            raise UsageError(str(error)) from error
        if not prompt or not class_name:
            raise UsageError(f"{path}:{line}: expected `prompt: class`, both of them plain text")
        yield line, prompt, class_name
