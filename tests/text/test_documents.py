"""JSON, TOML and YAML within limits: what is beyond them is one error that says what and where."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paths import ROOT

from grounded_seg.errors import InputError
from grounded_seg.text.documents import (
    MOST_DEPTH,
    DocumentError,
    TooDeepError,
    json_in,
    json_of,
    limited_bytes,
    toml_of,
)
from grounded_seg.text.yaml_nodes import yaml_root, yaml_values

FILE = Path("a file")


def deep(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (deep(MOST_DEPTH + 1), "nested more than 100 deep"),
        ("[" * 100_000, "nested more than 100 deep"),
        ('{"a":' * 100_000, "nested more than 100 deep"),
        ('["\\\\", "\\"", ' + deep(MOST_DEPTH) + "]", "nested more than 100 deep"),
        ("[" + "9" * 101 + "]", "more than 100 digits"),
        ("[-" + "9" * 5000 + "]", "more than 100 digits"),
        ("[1e999]", "1e999 is too large"),
        ("[1E+400]", "too large"),
        ("[" + "1" * 400 + ".5]", "too large or too long"),
        ("[NaN]", "NaN stands where a number belongs"),
        ("[-Infinity]", "-Infinity stands where a number belongs"),
        ('{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' is there twice"),
        ('{"\\u001b": 1, "\\u001b": 2}', r"the key '\\x1b' is there twice"),
        ('{"a": 1,\n oops}', "line 2, column 2: this is not JSON"),
        ("", "line 1, column 1"),
        (b'{"a":\n"\xff"}', "line 2: byte 7 is not UTF-8"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_json_beyond_a_limit_is_refused(text: str | bytes, told: str) -> None:
    with pytest.raises(DocumentError, match=re.escape(told).replace(r"\\\\x1b", r"\\+x1b")) as refused:
        json_of(text)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        deep(MOST_DEPTH),
        json.dumps(["[" * 500, "]]]\\", '"' + "{" * 300]),
        '["' + "9" * 500 + '", "1e999", "a.e000"]',
        "[" + "9" * 100 + ", 1e308, 0.5e-400]",
    ],
    ids=["depth", "brackets in texts", "numbers in texts", "large numbers"],
)
def test_json_within_the_limits_is_read(text: str) -> None:
    assert json_of(text) == json_of(text.encode()) == json_of(b"\xef\xbb\xbf" + text.encode()) == json.loads(text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda children: st.lists(children) | st.dictionaries(st.text(), children),
        max_leaves=30,
    )
)
def test_what_json_writes_is_read_back(value: Any) -> None:
    text = json.dumps(value)
    assert json_of(text) == json_of(text, object_of=None) == value
    # Brackets and escapes in texts are no depth.
    assert json_of(json.dumps([text, "[" * 200])) == [text, "[" * 200]


def test_large_files_may_take_the_last_of_equal_keys_and_figures_be_infinite() -> None:
    assert json_of('{"a": 1, "a": 2}', object_of=None) == {"a": 2}
    assert json_of(deep(400), most_depth=400) == json.loads(deep(400))
    with pytest.raises(TooDeepError):
        json_of(deep(401), most_depth=400)
    loss, norm = json_of("[Infinity, NaN]", is_finite=False)
    assert loss == math.inf
    assert math.isnan(norm)
    assert json_of("[1e999]", is_finite=False) == [math.inf]


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("[1, 2]")
    assert json_in(path, most_bytes=6) == [1, 2]
    assert limited_bytes(path, 6) == b"[1, 2]"
    with pytest.raises(DocumentError, match="more than 5 bytes"):
        json_in(path, most_bytes=5)
    with pytest.raises(DocumentError, match="a pipe or a device"):
        json_in(Path("/dev/zero"))
    with pytest.raises(FileNotFoundError):
        json_in(tmp_path / "none.json")
    with pytest.raises(ValueError, match="null"):
        json_in(Path("a\0b"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (f"a = {'[' * 3000}", "nested"),
        (f"{'a.' * 1000}a = 1", "nested more than 100 deep"),
        (f"[{'a.' * 1000}a]", "nested more than 100 deep"),
        (f"a = {deep(MOST_DEPTH)}", "nested more than 100 deep"),
        ("a = nan", "nan stands where a number belongs"),
        ("a = inf", "inf stands"),
        (f"a = {'9' * 400}", "more than 100 digits"),
        (f"a = {'9' * 5000}", "digits"),
        ("a = 1\na = 2", "this is not TOML"),
        ("a = 1979-13-01", "this is not TOML"),
        ("\x1b", "this is not TOML"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_toml_beyond_a_limit_is_refused(text: str, told: str) -> None:
    with pytest.raises(DocumentError, match=told) as refused:
        toml_of(text)
    assert str(refused.value).isprintable()


def test_toml_is_read() -> None:
    assert toml_of("a.b.c = 1\n[x]\ny = [[1], 2.5]") == {"a": {"b": {"c": 1}}, "x": {"y": [[1], 2.5]}}


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
ODD_YAML = {
    "depth": ("a: " + "[" * 3000, "nested too deeply"),
    "deep keys": ("? " * 3000, "nested too deeply"),
    "deep dashes": ("- " * 3000, "nested too deeply"),
    "bomb": (BOMB, r"a file:6: .*more than 1000000 values, with aliases"),
    "itself": ("a: &a [1, *a]", r"\*a stands within itself"),
    "unknown alias": ("a: *x", "undefined alias"),
    "digits": (f"a: {'9' * 400}", "more than 100 digits"),
    "more digits": (f"a: {'9' * 5000}", "more than 100 digits"),
    "control": ("a: \x1b", "the character #x001b"),
    "large": ("a" * (3 << 20), "more than 2097152 letters"),
}
ODD_VALUES = {
    "nan": ("a: .nan", "nan stands where a number belongs"),
    "date": ("a: 2020-13-45", "month must be"),
    "object": ("a: !!python/object:os.system {}", "could not determine a constructor"),
    "tag": ("a: !!timestamp x", "isn't of the type that its tag names"),
    "empty": ("a: !!int ''", "isn't of the type that its tag names"),
    "key": ("? [1]\n: 2", "unhashable key"),
    "merge": ("<<: [1]", "expected a mapping for merging"),
}


@pytest.mark.parametrize("read", [yaml_root, yaml_values])
@pytest.mark.parametrize(("text", "told"), ODD_YAML.values(), ids=ODD_YAML)
def test_yaml_beyond_a_limit_is_refused(read: Callable[[str, Path], Any], text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as refused:
        read(text, FILE)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(("text", "told"), ODD_VALUES.values(), ids=ODD_VALUES)
def test_yaml_that_stands_for_no_plain_value_is_refused(text: str, told: str) -> None:
    assert yaml_root(text, FILE) is not None
    with pytest.raises(InputError, match=told) as refused:
        yaml_values(text, FILE)
    assert str(refused.value).isprintable()


def test_yaml_with_aliases_is_read() -> None:
    assert yaml_values("a: &a [1, 2]\nb: *a\nc: {<<: {d: 1}, e: *a}", FILE) == {
        "a": [1, 2],
        "b": [1, 2],
        "c": {"d": 1, "e": [1, 2]},
    }
    assert yaml_values("", FILE) is None


PARSERS = re.compile(
    r"\bjson\.loads?\(|JSONDecoder|raw_decode|\btomllib\b|\byaml\.(?:safe_)?load|literal_eval|yaml\.compose\(|json\.Decoder|\bijson\."
)
HOMES = {
    "text/documents.py": "the reader",
    "coco/sections.py": "records of a file of any size, one by one, with a limit on depth",
    "coco/text.py": "the check lists what is wrong with a text, behind the reader's limits",
    "train/data/coco.py": "the lines of what the reader has read",
    "review/page/journal_index.py": "the columns of millions of lines, by a parser with limits of its own",
    "runs/manifest.py": "what it has just written itself",
}


def test_documents_are_parsed_in_one_place() -> None:
    package = ROOT / "grounded_seg"
    found = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if PARSERS.search(path.read_text(encoding="utf-8"))
    }
    assert found == HOMES.keys()
