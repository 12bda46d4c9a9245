"""YAML within limits, whose texts stay as they are written: `no`, `1_000` and `~` are words here, not values."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from yaml.composer import ComposerError

from grounded_seg.errors import InputError
from grounded_seg.text.decoding import whole_characters
from grounded_seg.text.documents import MOST_DEPTH, MOST_DIGITS, check_values
from grounded_seg.text.printable import safe_text

_NULL_TAG = "tag:yaml.org,2002:null"
_NUMBER_TAGS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
_MOST_LETTERS = 2 << 20
"""Of a document; the parser takes about a second for 100,000."""
_MOST_NODES = 1_000_000
"""Of a document, those that aliases repeat counted each time: ten lines can stand for billions."""
_MOST_SHOWN = 60


class _BoundedLoader(yaml.SafeLoader):
    """PyYAML's loader of plain values, with limits on depth, numbers and what aliases repeat."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._n_nodes = 0
        self._n_below: dict[str, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Make a node with all that is in it, as PyYAML calls it for each."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        is_alias = isinstance(event, yaml.AliasEvent)
        if is_alias:
            if event.anchor in self.anchors and event.anchor not in self._n_below:
                raise ComposerError(None, None, f"the alias *{event.anchor} stands within itself", event.start_mark)
            self._count(self._n_below.get(event.anchor, 0), event)
            return super().compose_node(parent, index)
        if self._depth == MOST_DEPTH:
            raise ComposerError(None, None, f"it is nested too deeply, more than {MOST_DEPTH} deep", event.start_mark)
        before = self._n_nodes
        self._count(1, event)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if event.anchor is not None:
            self._n_below[event.anchor] = self._n_nodes - before
        if isinstance(node, yaml.ScalarNode) and node.tag in _NUMBER_TAGS and len(node.value) > MOST_DIGITS:
            raise ComposerError(None, None, f"a number has more than {MOST_DIGITS} digits", event.start_mark)
        return node

    def _count(self, n_more: int, event: Any) -> None:
        self._n_nodes += n_more
        if self._n_nodes > _MOST_NODES:
            raise ComposerError(None, None, f"it has more than {_MOST_NODES} values, with aliases", event.start_mark)


def yaml_root(text: str, path: Path) -> yaml.Node | None:
    """Root of a YAML document, None for an empty one; messages name the path.

    Raises:
        InputError: If it is not YAML, or beyond a limit; names file and line.
    """
    root: yaml.Node | None = _read(text, path, lambda loader: loader.get_single_node())
    return root


def yaml_values(text: str, path: Path) -> Any:
    """The values of a YAML document: texts, numbers, lists and mappings; messages name the path.

    Raises:
        InputError: If it is not YAML, or beyond a limit; names file and line where they are known.
    """
    content = _read(text, path, lambda loader: loader.get_single_data())
    try:
        check_values(content)
    except ValueError as error:
        raise InputError(f"{path}: {error}; correct it") from error
    return content


def _read(text: str, path: Path, read: Callable[[Any], Any]) -> Any:
    if len(text) > _MOST_LETTERS:
        raise InputError(f"{path} has more than {_MOST_LETTERS} letters; name a shorter file")
    try:
        loader = _BoundedLoader(text)
        try:
            return read(loader)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, AttributeError, LookupError) as error:
        # Besides its own, PyYAML raises what an escape beyond the last character, a date in month 13, or a text with
        # the tag of another type leads to.
        mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
        line = None if mark is None else mark.line + 1
        if isinstance(error, yaml.reader.ReaderError):
            line = text.count("\n", 0, error.position) + 1
        where = path if line is None else f"{path}:{line}"
        raise InputError(f"{where}: this is not YAML ({safe_text(_problem(error))}); correct it") from error


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
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, AttributeError | LookupError):
        return "a value isn't of the type that its tag names"
    return str(error).partition("\n")[0]


def _shown(text: str) -> str:
    return repr(text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}...")
