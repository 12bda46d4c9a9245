"""What the user asks for: prompts on the command line, or a file that maps prompts to class names.

No models here: a prompt is plain text, one question each.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import yaml

from grounded_seg.errors import UsageError


@dataclass(frozen=True)
class PromptSet:
    """The questions of a run and the class that each answer counts for."""

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
"""Prompts apart by `;` as on the command line, one prompt each in a sequence, or with the class of each prompt."""


def prompt_set_from(prompts: Prompts) -> PromptSet:
    """Bring any way to give prompts into one form.

    Raises:
        UsageError: If nothing is asked for.
    """
    if isinstance(prompts, PromptSet):
        return prompts
    return read_prompts(prompts) if isinstance(prompts, str) else prompts_from(prompts)


def read_prompts(argument: str) -> PromptSet:
    """Read the command line's PROMPT: prompts apart by `;`, or `@FILE`, a YAML mapping of prompts to classes.

    Raises:
        UsageError: If nothing is asked for, or the file can't be read or isn't such a mapping; names file and line.

    >>> read_prompts("red car; traffic light;red car").prompts
    ('red car', 'traffic light')
    """
    if argument.strip().startswith("@"):
        return read_classes(Path(argument.strip()[1:]))
    return prompts_from(argument.split(";"))


def prompts_from(texts: Iterable[str]) -> PromptSet:
    """Make each text a prompt and its own class: blanks trimmed, empty and repeated ones dropped.

    Raises:
        UsageError: If no prompt is left, or one holds surrogates: bytes of the command line that are no UTF-8.
    """
    prompts = tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))
    for prompt in prompts:
        check_is_text("prompt", prompt)
    if not prompts:
        raise UsageError('the prompt is empty, name what to look for, as in "red car; traffic light"')
    return PromptSet(prompts, prompts)


def check_is_text(what: str, words: str) -> None:
    """Refuse words of the command line whose bytes are no UTF-8: they hold surrogates, and no file could.

    Raises:
        UsageError: If that is so; `what` says whose words they are.
    """
    try:
        words.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UsageError(f"the {what} {words!r} is not UTF-8; write it in that encoding") from error


def read_classes(path: Path) -> PromptSet:
    """Read a YAML file with one `prompt: class` per line.

    Both sides are taken as the text that stands there: `no: sign` is the prompt "no", not a truth value.

    Raises:
        UsageError: If the file can't be read, isn't YAML, isn't such a mapping, holds a prompt twice or holds none;
            names the file and, where there is one, the line.
    """
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the classes can't be read ({_first_line(error)})") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{_place(path, error)}: this is not YAML ({_first_line(error)})") from error
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
        line = key.start_mark.line + 1
        texts = [node.value.strip() if isinstance(node, yaml.ScalarNode) else "" for node in (key, value)]
        if not all(texts):
            raise UsageError(f"{path}:{line}: expected `prompt: class`, both of them plain text")
        for text in texts:
            # YAML's escapes can spell half of a character, which is no text that could be written to a file.
            if any("\ud800" <= letter <= "\udfff" for letter in text):
                raise UsageError(f"{path}:{line}: {text!a} holds half a character; write the character itself")
        yield line, texts[0], texts[1]


def _place(path: Path, error: yaml.YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    return f"{path}:{mark.line + 1}" if mark else str(path)


def _first_line(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return error.problem
    return str(error).partition("\n")[0]
