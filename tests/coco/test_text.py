"""A JSON file that a user names: what is wrong with it, and where."""

from pathlib import Path

import pytest

from grounded_seg.coco.text import read_json
from grounded_seg.errors import InputError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"a": 1,\n oops}', ":2:2: this is not JSON"),
        ('\n\n  {"a": 1,\n oops}', ":4:2: this is not JSON"),
        ("\n  oops", ":2:3: this is not JSON"),
        ("\n\n{}\n\n more", ":5: more text follows"),
    ],
)
def test_a_fault_is_told_with_its_line(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(InputError) as raised:
        read_json(path)
    assert str(raised.value).startswith(f"{path}{place}")


def test_blank_lines_around_are_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("\ufeff\n\n [1]\n\n", encoding="utf-8")
    assert read_json(path) == [1]
