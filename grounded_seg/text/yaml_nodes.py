"""YAML whose texts stay as they are written: `no`, `1_000` and `~` are words here, not values."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from grounded_seg.errors import InputError
from grounded_seg.text.decoding import whole_characters

_NULL_TAG = "tag:yaml.org,2002:null"
_MOST_SHOWN = 60


def yaml_root(text: str, path: Path) -> yaml.Node | None:
    """Root of a YAML document, None for an empty one; messages name the path.

    Raises:
        InputError: If it is not YAML; names file and line.
    """
    try:
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # The last two of them: an escape beyond the last character.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = None if mark is None else mark.line + 1
        if isinstance(error, yaml.reader.ReaderError):
            line = text.count("\n", 0, error.position) + 1
        where = path if line is None else f"{path}:{line}"
        raise InputError(f"{where}: this is not YAML ({_problem(error)}); correct it") from error
    except RecursionError as error:
        raise InputError(f"{path} is nested too deeply; correct it") from error


def yaml_entries(node: yaml.MappingNode, path: Path) -> Iterator[tuple[int, str, yaml.Node]]:
    """Line, key and value of each entry of a mapping; the key as it is written.

    Raises:
        InputError: If a key is no text, or is there twice; names file and line.
    """
    seen = set()
    for key, value in node.value:
        line, text = yaml_line(key), yaml_text(key, path)
        if text is None:
            raise InputError(f"{path}:{line}: a key is no plain text; correct it")
        if text in seen:
            raise InputError(f"{path}:{line}: {_shown(text)} is there twice; keep one of the lines")
        seen.add(text)
        yield line, text, value


def yaml_text(node: yaml.Node, path: Path) -> str | None:
    """Text of a node as it is written, without blanks around it; None for a list or a mapping.

    Raises:
        InputError: If it holds half a character; names file and line.
    """
    if not isinstance(node, yaml.ScalarNode):
        return None
    try:
        return whole_characters(str(node.value)).strip()
    except ValueError as error:
        raise InputError(f"{path}:{yaml_line(node)}: {error}") from error


def is_yaml_null(node: yaml.Node) -> bool:
    """Whether a node stands for nothing: `~`, `null`, or no text at all."""
    return node.tag == _NULL_TAG


def yaml_line(node: yaml.Node) -> int:
    """Line of the file, from 1, on which a node begins."""
    return int(node.start_mark.line) + 1


def _problem(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        return error.problem
    if isinstance(error, yaml.reader.ReaderError):
        return f"it has the character #x{error.character:04x}" if isinstance(error.character, int) else error.reason
    return str(error).partition("\n")[0]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
