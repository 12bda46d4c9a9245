"""The configurations in a folder of weights as records: the fields that are needed, by name, type and range.

A folder of weights is data from a stranger, and the libraries do what its configurations say: import a module by its
name, fetch a kernel from the hub, build a billion layers. So none of them sees such a file. A record takes what it
knows, refuses a value that can't be, and leaves the rest behind; what a library gets is made of the record.
"""

import logging
from collections.abc import Collection, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from msgspec import Meta, ValidationError, convert

from grounded_seg.text.documents import json_in
from grounded_seg.text.printable import safe_text

_LOG = logging.getLogger(__name__)
_Record = TypeVar("_Record")

Width: TypeAlias = Annotated[int, Meta(ge=1, le=16_384)]
"""Channels, features or positions."""
Layers: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
Small: TypeAlias = Annotated[int, Meta(ge=0, le=100)]
"""A kernel, a stride, a padding, a window."""
Side: TypeAlias = Annotated[int, Meta(ge=1, le=4096)]
"""Of an image, in pixels."""
Rate: TypeAlias = Annotated[float, Meta(ge=0, le=1)]
Ratio: TypeAlias = Annotated[float, Meta(gt=0, le=100)]
Epsilon: TypeAlias = Annotated[float, Meta(gt=0, le=1)]
TokenId: TypeAlias = Annotated[int, Meta(ge=0, le=10_000_000)]
Activation: TypeAlias = Literal[
    "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "quick_gelu", "relu", "silu", "swish", "tanh"
]
"""The names that transformers knows, but for those that take arguments."""

_CONFIG_BYTES = 4 << 20
_NAMES_OF_CODE = (
    *("auto_map", "custom_modules", "custom_pipelines", "trust_remote_code", "quantization_config"),
    *("attn_implementation", "_attn_implementation", "runtime_config", "custom_generate"),
)
_MOST_NAMED = 3


def config_in(path: Path) -> dict[str, Any]:
    """The JSON object of a configuration.

    Raises:
        OSError: If the file can't be read.
        ValueError: If it holds none, or is beyond the limits of `text.documents`.
    """
    content = json_in(path, most_bytes=_CONFIG_BYTES)
    if not isinstance(content, dict):
        raise ValueError("it is no JSON object")
    return content


def record_of(kind: type[_Record], content: Any, part: str = "") -> _Record:
    """A dataclass of the fields that it has in a mapping, whose other fields are left alone.

    Args:
        kind: The dataclass, whose annotations are types with ranges, such as those above.
        content: The mapping.
        part: Where it stands in its file, for messages.

    Raises:
        ValueError: If a field is missing, of another type, or out of its range; names it.
    """
    try:
        record = convert(content, kind)
    except (ValidationError, RecursionError, OverflowError) as error:
        # msgspec names the place as `$.decoder_layers`; of an object within, from that on.
        what, _, place = str(error).partition(" - at `$")
        name = ".".join(one for one in (part, place.rstrip("`").lstrip(".")) if one)
        raise ValueError(safe_text(f"{name}: {what}" if name else what)) from error
    return record


def tell_left_out(content: Mapping[str, Any], path: Path, known: Collection[str]) -> None:
    """Say in the log what of a configuration is left out; what would run code is noted, where it is on."""
    code = [name for name in _NAMES_OF_CODE if content.get(name)]
    if code:
        _LOG.info("%s names code (%s), which is never run or fetched.", path, ", ".join(code))
    others = sorted(map(safe_text, content.keys() - set(known) - set(code)))
    if others:
        more = f" and {len(others) - _MOST_NAMED} more" if len(others) > _MOST_NAMED else ""
        _LOG.debug("%s: not used: %s%s.", path, ", ".join(others[:_MOST_NAMED]), more)


def field_names(*kinds: Any) -> frozenset[str]:
    """The fields of dataclasses."""
    return frozenset(one.name for kind in kinds for one in fields(kind))
