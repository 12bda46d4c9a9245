"""The YAML file of prompts and their classes, with rules for what a prompt finds."""

from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from grounded_seg.detect.prompt_set import KEYS, NO_CALIBRATION, PromptRule, PromptSet, rule_from
from grounded_seg.errors import InputError, UsageError
from grounded_seg.text.decoding import decode_text
from grounded_seg.text.documents import DocumentError, limited_bytes
from grounded_seg.text.yaml_nodes import yaml_entries, yaml_line, yaml_root, yaml_text

_CALIBRATION = ("calibration", "sha256")
"""Key of the entry that names the calibration of the thresholds, and the key in it; a prompt has no such key."""
_HASH_LENGTH = 64


def read_classes(path: Path) -> PromptSet:
    """The prompts of a YAML file: a line `prompt: class` for each, or under the prompt its class and rules.

    All is taken as text: `no: sign` is the prompt "no", not a truth value. A `UsageError` names file and line.
    """
    try:
        text = decode_text(limited_bytes(path), path)
        root = yaml_root(text, path)
        return _prompts_of(root, text, path)
    except OSError as error:
        raise UsageError(
            f"{path}: the classes can't be read ({error.strerror}); check the path and its permissions"
        ) from error
    except DocumentError as error:
        raise UsageError(f"{path}: {error}; name a shorter file") from error
    except InputError as error:
        raise UsageError(str(error)) from error


def _prompts_of(root: yaml.Node | None, text: str, path: Path) -> PromptSet:
    if isinstance(root, yaml.ScalarNode | yaml.SequenceNode):
        line = yaml_line(root)
        prompt = text.splitlines()[line - 1].strip(" \t-'\"") or "red car"
        raise UsageError(f"{path}:{line}: expected `prompt: class` on each line, such as `{prompt}: {prompt}`")
    if not isinstance(root, yaml.MappingNode) or not root.value:
        raise UsageError(f"{path}: expected lines of the form `prompt: class`, such as `red car: car`")
    classes: dict[str, str] = {}
    rules: list[PromptRule] = []
    calibration = None
    for line, prompt, value in _entries(path, root):
        if prompt == _CALIBRATION[0] and (named := _calibration_of(value, path)) is not None:
            calibration = named
            continue
        if prompt in classes:
            raise UsageError(f"{path}:{line}: the prompt {prompt!r} is there twice, keep one of the lines")
        class_name, rule = _class_and_rule(line, prompt, value, path)
        classes[prompt] = class_name
        rules.append(rule)
    if not classes:
        raise UsageError(f"{path}: expected lines of the form `prompt: class`, such as `red car: car`")
    return PromptSet(tuple(classes), tuple(classes.values())).with_rules(rules, calibration)


def _entries(path: Path, root: yaml.MappingNode) -> Iterator[tuple[int, str, yaml.Node]]:
    for key, value in root.value:
        line, prompt = yaml_line(key), yaml_text(key, path)
        if not prompt:
            raise UsageError(f"{path}:{line}: expected `prompt: class`, both of them plain text")
        yield line, prompt, value


def _class_and_rule(line: int, prompt: str, value: yaml.Node, path: Path) -> tuple[str, PromptRule]:
    if not isinstance(value, yaml.MappingNode):
        class_name = yaml_text(value, path)
        if class_name is None:
            raise UsageError(f"{path}:{line}: expected `prompt: class`, both of them plain text")
        if not class_name:
            raise UsageError(
                f"{path}:{line}: the prompt {prompt!r} has no class; write `{prompt}: {prompt}` to give it its own name"
            )
        return class_name, PromptRule()
    given: dict[str, Any] = {}
    line_of_not = line
    for at, key, node in yaml_entries(value, path):
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            meant = f" (did you mean {near[0]}?)" if near else ""
            raise UsageError(f"{path}:{at}: there is no key {key!r}{meant}; a prompt has {', '.join(KEYS)}")
        given[key] = _value_of(key, node, path)
        line_of_not = at if key == "not" else line_of_not
        if key == "class":
            if not given[key] or not isinstance(given[key], str):
                raise UsageError(f"{path}:{at}: class is no plain text; name the class, as in `class: car`")
            continue
        if problems := rule_from({key: given[key]}, numbers_as_text=True)[1]:
            raise UsageError(f"{path}:{at}: {problems[0]}")
    class_name = given.pop("class", prompt)
    rule, _ = rule_from(given, numbers_as_text=True)
    if prompt in rule.unwanted:
        raise UsageError(f"{path}:{line_of_not}: {prompt!r} stands under its own `not`; take it out")
    return class_name, rule


def _value_of(key: str, node: yaml.Node, path: Path) -> Any:
    """The text of a value; of `not`, a list of texts too, where what is no text is None."""
    if key == "not" and isinstance(node, yaml.SequenceNode):
        return [yaml_text(one, path) for one in node.value]
    return yaml_text(node, path)


def _calibration_of(value: yaml.Node, path: Path) -> str | None:
    """The hash that the file's thresholds were chosen with; None if the entry is a prompt's."""
    if not isinstance(value, yaml.MappingNode):
        return None
    entries = {key: (line, node) for line, key, node in yaml_entries(value, path)}
    if set(entries) != {_CALIBRATION[1]}:
        return None
    line, node = entries[_CALIBRATION[1]]
    text = yaml_text(node, path) or ""
    if text != NO_CALIBRATION and (len(text) != _HASH_LENGTH or set(text) - set("0123456789abcdef")):
        raise UsageError(f"{path}:{line}: sha256 is neither the hash of a calibration nor none; correct it")
    return text
