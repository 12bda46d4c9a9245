"""Values that a caller gives, as the types that settings have: texts for choices and paths, else only the type itself.

Looser reading, of texts for numbers and lists, is `recipes`' for files and the command line.
"""

import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import StrEnum
from numbers import Integral, Real
from pathlib import Path
from typing import Any, get_args, get_origin


def typed(value: Any, kind: Any) -> Any:
    """Give a value as the type that its setting has.

    Args:
        value: What was given.
        kind: The field's annotation: a class, one of them or None, a tuple or a set.

    Raises:
        ValueError: If it is none of that type.

    >>> typed("runs/one", Path | None), typed(["a"], tuple[str, ...]), typed(2, float)
    (PosixPath('runs/one'), ('a',), 2.0)
    """
    if get_origin(kind) in (tuple, frozenset):
        return _collected(value, kind)
    options = get_args(kind) or (kind,)
    if value is None and type(None) in options:
        return None
    wanted = next(one for one in options if one is not type(None))
    if is_dataclass(wanted):
        return _record(value, wanted)
    if issubclass(wanted, StrEnum):
        if value not in list(wanted):
            raise ValueError(f"it has to be one of {', '.join(wanted)}")
        return wanted(value)
    if wanted is Path:
        if not isinstance(value, str | os.PathLike):
            raise ValueError("a path is expected")
        return Path(value)
    return _plain(value, wanted)


def problems_of(values: Mapping[str, Any], kinds: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Give all values that are of their type, and a line for each of the others."""
    good, problems = {}, []
    for name, value in values.items():
        try:
            good[name] = typed(value, kinds[name])
        except ValueError as error:
            problems.append(f"{name.replace('_', '-')} is {value!r}: {error}")
    return good, problems


def _record(value: Any, kind: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"{kind.__name__} is expected")
    names = {one.name: one.type for one in fields(kind)}
    good, problems = problems_of({name: getattr(value, name) for name in names}, names)
    if problems:
        raise ValueError(", ".join(problems))
    return replace(value, **good)


def _collected(value: Any, kind: Any) -> Any:
    if not isinstance(value, list | tuple | set | frozenset):
        raise ValueError("a list is expected")
    return get_origin(kind)(typed(one, get_args(kind)[0]) for one in value)


def _plain(value: Any, wanted: type) -> Any:
    if wanted is bool or isinstance(value, bool):
        if wanted is not bool or not isinstance(value, bool):
            raise ValueError(f"{'true or false' if wanted is bool else wanted.__name__} is expected")
        return value
    if wanted is int and isinstance(value, Integral):
        return int(value)
    if wanted is float and isinstance(value, Real) and math.isfinite(value):
        return float(value)
    if wanted is str and isinstance(value, str):
        return str(value)
    names = {int: "a whole number", float: "a finite number", str: "a text"}
    raise ValueError(f"{names.get(wanted, wanted.__name__)} is expected")
