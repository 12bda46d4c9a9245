"""Configurations as records: known fields by type and range, an error that names the field, the rest left out."""

import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from grounded_seg.weights.config_records import (
    Activation,
    Epsilon,
    Layers,
    Rate,
    Width,
    config_in,
    field_names,
    record_of,
    tell_left_out,
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: Width = 8
    activation: Activation = "gelu"

    def __post_init__(self) -> None:
        if self.width % 2:
            raise ValueError(f"width is {self.width}, not even")


@dataclass(frozen=True, kw_only=True)
class Outer:
    layers: Layers
    rate: Rate = 0.5
    epsilon: Epsilon = 1e-6
    inner: Inner = field(default_factory=Inner)
    widths: list[Width] = field(default_factory=list)


def test_known_fields_are_taken_and_others_left() -> None:
    content = {"layers": 3, "rate": 1, "inner": {"width": 4, "auto_map": {"a": "b"}}, "more": [1], "widths": [1, 2]}
    assert record_of(Outer, content) == Outer(layers=3, rate=1.0, inner=Inner(width=4), widths=[1, 2])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({}, "Object missing required field `layers`"),
        ({"layers": 101}, "layers: Expected `int` <= 100"),
        ({"layers": -1}, "layers: Expected `int` >= 0"),
        ({"layers": 10**99}, "layers: "),
        ({"layers": "1"}, "layers: Expected `int`, got `str`"),
        ({"layers": True}, "layers: Expected `int`, got `bool`"),
        ({"layers": 1, "rate": 1e300}, "rate: Expected `float` <= "),
        ({"layers": 1, "epsilon": 0}, "epsilon: Expected `float` > 0"),
        ({"layers": 1, "inner": {"width": 3}}, "inner: width is 3, not even"),
        ({"layers": 1, "inner": {"activation": "owner/name"}}, "inner.activation: Invalid enum value 'owner/name'"),
        ({"layers": 1, "inner": {"activation": "\x1b"}}, r"inner.activation: Invalid enum value '\\x1b'"),
        ({"layers": 1, "widths": [1, 0]}, r"widths\[1\]: Expected `int` >= 1"),
        ([], "Expected `object`, got `array`"),
        (None, "Expected `object`, got `null`"),
    ],
    ids=str,
)
def test_a_field_that_can_not_be_is_named(content: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}") as refused:
        record_of(Outer, content)
    assert str(refused.value).isprintable()
    with pytest.raises(ValueError, match=r"^a\.json"):
        record_of(Outer, content, "a.json")


@pytest.mark.parametrize("text", ["[]", "3", "", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 200, " " * (5 << 20) + "{}"])
def test_what_is_no_object_or_beyond_a_limit_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=r"\w"):
        config_in(path)


def test_what_is_left_out_is_told_and_code_for_everyone_on_a_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    content = {"layers": 1, "auto_map": {"AutoModel": "evil.Model"}, "trust_remote_code": False, "b\x1b": 1, "c": 2}
    path = tmp_path / "config.json"
    path.write_text(json.dumps(content))
    assert config_in(path) == content
    with caplog.at_level(logging.DEBUG):
        tell_left_out(content, path, field_names(Outer))
    code, others = caplog.records
    assert (code.levelno, others.levelno) == (logging.INFO, logging.DEBUG)
    assert code.getMessage() == f"{path} names code (auto_map), which is never run or fetched."
    assert others.getMessage() == f"{path}: not used: b\\x1b, c, trust_remote_code."
