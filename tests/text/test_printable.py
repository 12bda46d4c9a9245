"""Text that is safe to print: nothing in it steers a terminal, and what people write stays as it is."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grounded_seg.text.printable import MOST_LETTERS, safe_line, safe_lines, safe_text


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("a\0b\x07\x08\x7f\x9b", r"a\x00b\x07\x08\x7f\x9b"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066a\u2069\u200e\u200f\u061c", r"\u2066a\u2069\u200e\u200f\u061c"),
        ("a\nb\rc\u2028d\x85e", r"a\nb\rc\u2028d\x85e"),
        ("a\ufeffb\xadc\u200bd\U000e0041", r"a\ufeffb\xadc\u200bd\U000e0041"),
        ("half \ud83d", r"half \ud83d"),
    ],
)
def test_what_steers_a_terminal_is_written_as_its_escape(text: str, safe: str) -> None:
    assert safe_text(text) == safe


# With the joiners of Persian and of an emoji.
OF_PEOPLE = ["café", "赤い車\u3000青い車", "\u0645\u06cc\u200c\u062e", "👩\u200d🚗", "a\\nb", "naïve [bold]"]


@pytest.mark.parametrize("text", OF_PEOPLE)
def test_what_people_write_stays(text: str) -> None:
    assert safe_text(text) == text


@given(st.text())
def test_nothing_else_is_left(text: str) -> None:
    safe = safe_text(text)
    steering = [one for one in safe if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
    assert set(steering) <= {"\u200c", "\u200d"}
    assert safe_text(safe) == safe


def test_a_long_text_loses_its_middle() -> None:
    text = "what happened " + "x" * 10_000 + " what next"
    safe = safe_text(text)
    assert safe.startswith("what happened xxx")
    assert safe.endswith("xxx what next")
    assert f"({len(text) - MOST_LETTERS} more letters)" in safe
    assert len(safe) < MOST_LETTERS + 40
    assert safe_text(text, most=None) == text
    assert safe_text("x" * MOST_LETTERS) == "x" * MOST_LETTERS


def test_a_line_has_no_line_ends_and_lines_keep_them() -> None:
    assert safe_line("two\nlines\tand \x1b") == r"two linesand \x1b"
    assert safe_lines("a\n\x1b\n") == "a\n\\x1b\n"
