"""Types of settings with their limits, and the one converter of given values to them.

A choice may be given as its text, a path as text, a set as a list, a device or dtype of torch as it is; another type or
a value out of range is a problem, told in one line that says what is right. A settings class is a `CheckedSettings`, or
calls `convert_fields` itself.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from msgspec import Meta, ValidationError, convert, to_builtins

from grounded_seg.errors import UsageError

Share = Annotated[float, Meta(ge=0, le=1)]
ShareBelowOne = Annotated[float, Meta(ge=0, lt=1)]
UpToHalf = Annotated[float, Meta(ge=0, le=0.5)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NonNegativeFloat = Annotated[float, Meta(ge=0)]
PositiveInt = Annotated[int, Meta(ge=1)]
NonNegativeInt = Annotated[int, Meta(ge=0)]
MOST_SHARDS = 1_000_000
ShardNumber = Annotated[int, Meta(ge=1, le=MOST_SHARDS)]
Port = Annotated[int, Meta(ge=0, le=65535)]
ImageSide = Annotated[int, Meta(ge=16)]
"""In pixels: no model sees anything in a smaller image."""
TileSide = PositiveInt | Literal["auto"]
"""In pixels, or as the detector needs it."""

_NOUNS = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text", Path: "a path"}


class CheckedSettings:
    """Base of a frozen dataclass that converts what it is made of, and refuses all that is wrong at once."""

    def __post_init__(self) -> None:
        refuse(convert_fields(self))


def convert_fields(record: Any, option_names: Mapping[str, str] | None = None) -> list[str]:
    """Convert the fields of a frozen settings record in its `__post_init__`, and give a line for each that can't be.

    A wrong value is replaced by the field's default, so that the fields can still be checked together and all problems
    be told at once. Fields whose annotation is a text are left to the class. `option_names` are those that differ from
    the fields' names.
    """
    own = [one for one in fields(record) if not isinstance(one.type, str)]
    given = {one.name: getattr(record, one.name) for one in own}
    good, problems = convert_values(given, {one.name: one.type for one in own}, option_names)
    for one in own:
        default = given[one.name] if one.default is MISSING else one.default
        if one.default_factory is not MISSING:
            default = one.default_factory()
        object.__setattr__(record, one.name, good.get(one.name, default))
    return problems


def convert_values(
    values: Mapping[str, Any],
    kinds: Mapping[str, Any],
    option_names: Mapping[str, str] | None = None,
    *,
    numbers_as_text: bool = False,
) -> tuple[dict[str, Any], list[str]]:
    """Convert values by name to their types: those that are right, and a line for each of the others.

    A kind is a class, a choice, one of the types above, a tuple, a set, or a settings class (its value may be a mapping
    of its fields); or None. With `numbers_as_text` "1e-4" is a number, and "null" is None.

    >>> convert_values({"rank": 0, "output": "runs/one"}, {"rank": PositiveInt, "output": Path})
    ({'output': PosixPath('runs/one')}, ['rank is 0, it must be at least 1'])
    """
    good, problems = {}, []
    for name, value in values.items():
        try:
            good[name] = _converted(value, kinds[name], numbers_as_text=numbers_as_text)
        except (ValidationError, OverflowError):
            # The latter: a whole number that no float can be.
            option = (option_names or {}).get(name, name).replace("_", "-")
            problems.append(f"{option} is {_shown(value)}, it must be {_right_values(kinds[name], value)}")
        except UsageError as error:
            problems.append(str(error))
    return good, problems


def base_type(kind: Any) -> Any:
    """Give a field's type without its limits, and without None.

    >>> base_type(PositiveInt | None)
    <class 'int'>
    """
    kind = _without_none(kind)
    return get_args(kind)[0] if get_origin(kind) is Annotated else kind


def refuse(problems: Sequence[str]) -> None:
    """Raise one `UsageError` about all problems, if there are any."""
    if problems:
        raise UsageError("; ".join(problems))


def plain_value(value: Any) -> Any:
    """Give a setting's value as JSON knows it: choices and paths as texts, sets and tuples as lists, sets in order."""
    plain = to_builtins(value, enc_hook=str, order="deterministic")
    return list(plain) if isinstance(plain, tuple) else plain


def check_types(value: object, kind: Any) -> None:
    """Refuse what was read if it isn't of a kind, such as a `TypedDict`.

    Raises:
        ValueError: Saying what was expected and where.
    """
    try:
        convert(value, kind)
    except (ValidationError, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from error


def _converted(value: Any, kind: Any, *, numbers_as_text: bool) -> Any:
    one_kind = _without_none(kind)
    if is_dataclass(one_kind) and value is not None:
        return _record(value, one_kind)
    if type(value) not in (bool, int, float) and isinstance(value, Real):
        # A number of numpy, which msgspec doesn't know.
        value = int(value) if isinstance(value, Integral) else float(value)
    if f"{type(value).__module__}.{type(value).__name__}" in ("torch.device", "torch.dtype"):
        value = str(value).removeprefix("torch.")
    # An integer needs no loose reading, which would take 1 for true.
    strict = not numbers_as_text or isinstance(value, int)
    try:
        result = convert(value, kind, strict=strict, dec_hook=_path)
    except UnicodeEncodeError as error:
        # Half characters in a text that stands for a number.
        raise ValidationError from error
    if isinstance(result, float) and not math.isfinite(result):
        raise ValidationError
    return result


def _record(value: Any, kind: Any) -> Any:
    """Take a settings record, or make one of a mapping of its fields."""
    if isinstance(value, kind):
        return value
    required = {one.name for one in fields(kind) if one.default is MISSING and one.default_factory is MISSING}
    if not isinstance(value, Mapping) or not required <= value.keys() <= {one.name for one in fields(kind)}:
        raise ValidationError
    return kind(**value)


def _path(kind: type, value: Any) -> Path:
    """Read a path, which msgspec leaves to its caller."""
    if kind is not Path:
        raise TypeError
    return Path(value)


def _without_none(kind: Any) -> Any:
    options = get_args(kind)
    return next(one for one in options if one is not NoneType) if NoneType in options else kind


def _right_values(kind: Any, value: Any) -> str:
    """Describe the values that a type takes; where only the size of a number is wrong, the range alone."""
    kind = _without_none(kind)
    if get_origin(kind) in (Union, UnionType):
        number, words = get_args(kind)
        right = _right_values(number, value)
        is_number = type(value) is not bool and isinstance(value, Real)
        return right if is_number else f"{' or '.join(get_args(words))} or {right}"
    if get_origin(kind) is Annotated:
        base, limits = get_args(kind)
        is_number = type(value) is not bool and isinstance(value, Real) and math.isfinite(value)
        fits = is_number and (base is float or isinstance(value, Integral))
        return _range(limits) if fits else f"{_NOUNS[base]}, {_range(limits)}"
    if get_origin(kind) in (tuple, frozenset):
        items = get_args(kind)
        n_items = f" of {len(items)}" if get_origin(kind) is tuple and ... not in items else ""
        return f"a list{n_items}, each item {_right_values(items[0], None)}"
    if is_dataclass(kind):
        return f"{getattr(kind, '__name__', kind)} or a mapping of its fields"
    return f"one of {', '.join(kind)}" if issubclass(kind, StrEnum) else _NOUNS[kind]


def _range(limits: Meta) -> str:
    if limits.ge is not None and limits.le is not None:
        return f"between {limits.ge} and {limits.le}"
    if limits.gt is not None:
        return f"above {limits.gt}"
    return f"at least {limits.ge}" + ("" if limits.lt is None else f" and below {limits.lt}")


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:g}"
    try:
        return repr(str(value) if isinstance(value, StrEnum | Path) else value)[:100]
    except ValueError:
        # Python writes no number of thousands of digits.
        return "a number of thousands of digits"
