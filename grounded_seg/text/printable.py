"""Text from files and from libraries, made safe to print: it can't steer a terminal, reorder a line or flood it."""

import unicodedata

MOST_LETTERS = 2000
"""Of a message, and of a cell of a table; what is longer loses its middle, as a message ends with what to do next."""
_HEAD_SHARE = 0.7
_JOINERS = "\u200c\u200d"
"""Of Persian and Indic letters, and of the parts of an emoji; they move nothing."""
_STEERING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Categories of Unicode: controls, formats (the marks that turn a line's direction among them), halves, line ends."""


def safe_text(text: str, *, most: int | None = MOST_LETTERS) -> str:
    r"""One line of text in which every character that would steer a terminal is written as Python's escape of it.

    Args:
        text: Anything, such as a name out of a file.
        most: Longest result that isn't shortened, before escapes; None for any length.

    >>> print(safe_text("a\x1b[31m\u202eb\n"))
    a\x1b[31m\u202eb\n
    """
    if most is not None and len(text) > most:
        n_head = int(most * _HEAD_SHARE)
        n_tail = most - n_head
        text = f"{text[:n_head]} ... ({len(text) - most} more letters) ... {text[-n_tail:]}"
    if text.isprintable():
        return text
    return "".join(map(_safe_letter, text))


def safe_line(text: str, *, most: int | None = MOST_LETTERS) -> str:
    """`safe_text` of text that may have several lines, with a blank between them; tabs are dropped."""
    return safe_text(" ".join(text.expandtabs(0).splitlines()), most=most)


def safe_lines(text: str) -> str:
    """Text of any length whose line ends stay; the lines between them are `safe_text`."""
    return "\n".join(safe_text(line, most=None) for line in text.split("\n"))


def _safe_letter(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS or unicodedata.category(letter) not in _STEERING:
        return letter
    return letter.encode("unicode_escape").decode("ascii")
