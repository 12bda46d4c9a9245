"""The forms of answers as one automaton: which kinds of tokens may come next, and how many an end is away.

It accepts what `well_formed` says is well-formed, token by token. A state belongs to one form, so answers of different
forms can be followed side by side in the same tables.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from grounded_seg.detect.answer.pieces import (
    CLOSE_POLYGON,
    LOCATION,
    OPEN_POLYGON,
    OTHER_MARK,
    SEPARATOR,
    TEXT,
)
from grounded_seg.detect.answer.well_formed import AnswerForm

LESS_SIGN, BEGIN, END = "ube"
"""Kinds of tokens that aren't kinds of pieces: text that ends with "<", `<s>`, `</s>`."""
TOKEN_KINDS = (TEXT, LESS_SIGN, LOCATION, SEPARATOR, OPEN_POLYGON, CLOSE_POLYGON, OTHER_MARK, BEGIN, END)
"""All kinds, in the order of the tables' columns."""
NEVER = 1 << 30
"""In place of a number of tokens, where a kind is not allowed."""
_START, _FIRST, _OVER = "start", "first", "over"


def _labels(before: str, label: str = "label") -> tuple[str, ...]:
    """Paths from a state into a label; one that ends with "<" has to go on."""
    return tuple(
        f"{state} {kinds} {then}"
        for state in (before, label, f"{label}<")
        for kinds, then in (("t", label), ("u", f"{label}<"))
    )


def _outlines(before: str, name: str) -> tuple[str, ...]:
    """Paths over rings of two points and more, separated by `<sep>`; the last point of a ring is at `NAME-ring`."""
    return (
        f"{before} l {name}-1 l {name}-2 l {name}-3 l {name}-ring l {name}-half l {name}-ring s {name}-new l {name}-1",
    )


# Each path is states with the kinds between them; an l with a star is a location not before the one two tokens earlier.
_BOX = "l 1 l 2 l* 3 l*"
_MARKED = (*_outlines("open", "marked"), "marked-ring q closed p open")
_PATHS: Mapping[AnswerForm, tuple[str, ...]] = {
    AnswerForm.ANY: (f"start {''.join(kind for kind in TOKEN_KINDS if kind != END)} start",),
    AnswerForm.TEXT: ("start tu start",),
    AnswerForm.TEXT_WITH_BOXES: ("start tu start", "start l 1 l 2 l 3 l start"),
    AnswerForm.LABELLED_BOXES: (*_labels("start"), f"label {_BOX} box", "box l 1", *_labels("box")),
    AnswerForm.BOXES: (f"start {_BOX} start",),
    AnswerForm.LABELLED_BOXES_OR_OUTLINES: (
        *_labels("start"),
        *(f"label {_BOX} box", "box l 1", *_labels("box", "box-label"), "box-label l 1"),
        *("label p open", *_MARKED, *_labels("closed", "outline-label"), "outline-label p open"),
    ),
    AnswerForm.OUTLINES: (*_outlines("start", "bare"), "start p open", *_MARKED),
    AnswerForm.QUADS: (*("start tu label tu label", "label l 1 l 2 l 3 l 4 l 5 l 6 l 7 l quad", "quad tu label"),),
}
_MAY_END = ("start", "box", "closed", "bare-ring", "quad")
"""States in which an answer is whole."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """Tables of n states and the kinds of `TOKEN_KINDS`."""

    next_state: npt.NDArray[np.int64]
    """(n, kinds) state after a token of this kind; after the end, and what isn't allowed, one where nothing is."""
    n_needed: npt.NDArray[np.int64]
    """(n, kinds) fewest tokens between one of this kind and the answer's end; `NEVER` where it isn't allowed."""
    is_ordered: npt.NDArray[np.int64]
    """(n,) 1 where a location may not be less than the one two tokens before, else 0."""
    starts: Mapping[AnswerForm, int]
    """The state before the first token."""


@cache
def automaton() -> Automaton:
    """The automaton of all forms."""
    edges: dict[str, dict[str, str]] = defaultdict(dict)
    ordered: set[str] = set()
    for form, paths in _PATHS.items():
        for path in paths:
            for state, kinds, then in _steps(path):
                edges[f"{form}/{state}"] |= dict.fromkeys(kinds.rstrip("*"), f"{form}/{then}")
                ordered |= {f"{form}/{state}"} if kinds.endswith("*") else set()
        # Only the first token may be <s>; some models are forced to say it.
        edges[f"{form}/{_FIRST}"] = {**edges[f"{form}/{_START}"], BEGIN: f"{form}/{_START}"}
    names = [*edges, _OVER]
    index = {name: place for place, name in enumerate(names)}
    is_whole = np.array([name.rpartition("/")[2] in (*_MAY_END, _FIRST) for name in names])
    next_state = np.full((len(names), len(TOKEN_KINDS)), index[_OVER], dtype=np.int64)
    allowed = np.zeros(next_state.shape, dtype=np.bool_)
    for name, by_kind in edges.items():
        for kind, then in by_kind.items():
            cell = index[name], TOKEN_KINDS.index(kind)
            next_state[cell], allowed[cell] = index[then], True
    for form in AnswerForm:
        # A model may be forced to begin with any token: the answer then begins after it.
        first = index[f"{form}/{_FIRST}"]
        next_state[first, ~allowed[first]] = index[f"{form}/{_START}"]
    next_state[:, TOKEN_KINDS.index(END)] = index[_OVER]
    n_needed = np.where(allowed, _distances(next_state, allowed, is_whole)[next_state], NEVER)
    n_needed[is_whole, TOKEN_KINDS.index(END)] = 0
    return Automaton(
        next_state,
        n_needed,
        np.array([name in ordered for name in names], dtype=np.int64),
        {form: index[f"{form}/{_FIRST}"] for form in AnswerForm},
    )


def _steps(path: str) -> Iterator[tuple[str, str, str]]:
    words = path.split()
    yield from ((words[at], words[at + 1], words[at + 2]) for at in range(0, len(words) - 2, 2))


def _distances(
    next_state: npt.NDArray[np.int64], allowed: npt.NDArray[np.bool_], is_whole: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int64]:
    """Fewest tokens from each state to one in which the answer is whole, (n,)."""
    found = np.where(is_whole, 0, NEVER)
    for _ in range(len(found)):
        beyond = np.where(allowed, found[next_state], NEVER).min(axis=1) + 1
        found = np.minimum(found, beyond)
    return found
