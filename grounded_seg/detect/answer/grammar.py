"""The grammar of Florence-2's answers: which pieces make a box, an outline or a quad, and which words name it.

It finds what the expressions of Florence-2's processor (MIT) find, over the kinds of pieces instead of the text.
Incomplete and malformed parts are left out.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from grounded_seg.detect.answer.pieces import OPEN_POLYGON, TEXT, Piece
from grounded_seg.detect.tasks import TaskOutput

# A letter for each piece: t text, l location, s <sep>, p <poly>, q </poly>, m any other mark.
_LABELLED_BOXES = re.compile("t(l{4,})")
_BOXES = re.compile("(l{4,})")
_LABELLED_OUTLINES = re.compile("t([lspq]{4,})")
_OUTLINES = re.compile("([lspq]{4,})")
_ONE_OUTLINE = re.compile("p([^q]*)q")
_RING = re.compile("(l+)(?:s|$)")
_LABELLED_QUAD = re.compile("t[^tl]*(l{8})")

_FILLERS = """
a, a group, a set, all, an, another, any, anybody, anyone, anything, each, each other, everybody, everyone, everything,
few, he, her, hers, herself, him, himself, his, I, image, images, it, its, itself, lots, many, me, mine, myself, nobody,
none, one, one another, oneself, other objects, our, ours, ourselves, several, she, some, somebody, someone, something,
that, the, the image, their, theirs, them, themselves, these, they, this, those, us, we, what, which, who, whom, whose,
you, your, yours, yourself, yourselves
"""

GROUNDING_FILLERS = frozenset(phrase.strip() for phrase in _FILLERS.replace("\n", " ").split(","))
"""Pronouns and fillers, which name nothing to look for: phrase grounding drops boxes with exactly such a label, so "I"
and not "It". They are the `banned_grounding_tokens` of Florence-2's processor configuration (MIT)."""


class ShapeKind(StrEnum):
    """What the location tokens of a shape draw."""

    BOX = "box"
    OUTLINE = "outline"
    QUAD = "quad"


@dataclass(frozen=True)
class Shape:
    """One box, outline or quad of an answer, in location bins, with the tokens that made it."""

    kind: ShapeKind
    label: str
    """Without surrounding blanks; empty where the task has no labels."""
    rings: tuple[tuple[int, ...], ...]
    """x y x y ... in bins 0 to 999, as generated. A box has one ring of 4 numbers, a quad one of 8."""
    label_positions: tuple[int, ...]
    """Of the label's tokens in the answer. Boxes after one label share them."""
    location_positions: tuple[int, ...]
    """Of the location tokens, in the order of the numbers in `rings`."""


def shapes_from_pieces(output: TaskOutput, pieces: Sequence[Piece], prompt: str = "") -> tuple[Shape, ...]:
    """The shapes of an answer, in order; none for text. The user's own prompt is never dropped as a filler word."""
    kinds = _kinds(pieces)
    match output:
        case TaskOutput.TEXT:
            return ()
        case TaskOutput.QUADS:
            return tuple(_quads(kinds, pieces))
        case TaskOutput.POLYGONS:
            return tuple(_outlines(_OUTLINES, kinds, pieces))
        case TaskOutput.BOXES_OR_POLYGONS if OPEN_POLYGON in kinds:
            return tuple(_outlines(_LABELLED_OUTLINES, kinds, pieces))
        case TaskOutput.BOXES:
            return tuple(_boxes(_BOXES, kinds, pieces))
    fillers = GROUNDING_FILLERS if output is TaskOutput.PHRASE_BOXES else ()
    asked = prompt.strip().casefold()
    boxes = _boxes(_LABELLED_BOXES, kinds, pieces)
    return tuple(box for box in boxes if box.label not in fillers or box.label.casefold() == asked)


def _boxes(pattern: re.Pattern[str], kinds: str, pieces: Sequence[Piece]) -> Iterator[Shape]:
    """Yield a box for every four locations of a run; up to three left over at its end are no box."""
    for words, run in _runs(pattern, kinds, pieces):
        for first in range(0, len(run) - 3, 4):
            yield _shape(ShapeKind.BOX, words, [run[first : first + 4]])


def _outlines(pattern: re.Pattern[str], kinds: str, pieces: Sequence[Piece]) -> Iterator[Shape]:
    """Yield an outline for every `<poly>...</poly>` of a run, or for the whole run where there is no such pair."""
    for words, run in _runs(pattern, kinds, pieces):
        inside = _kinds(run)
        is_marked = "p" in inside and "q" in inside
        for outline in [run[slice(*match.span(1))] for match in _ONE_OUTLINE.finditer(inside)] if is_marked else [run]:
            rings = [outline[slice(*match.span(1))] for match in _RING.finditer(_kinds(outline))]
            # A last x without its y is no point.
            rings = [ring[: len(ring) // 2 * 2] for ring in rings if len(ring) > 1]
            if rings:
                yield _shape(ShapeKind.OUTLINE, words, rings)


def _quads(kinds: str, pieces: Sequence[Piece]) -> Iterator[Shape]:
    """Yield a quad for every text that eight locations follow; more locations than eight belong to nothing."""
    for match in _LABELLED_QUAD.finditer(kinds):
        yield _shape(ShapeKind.QUAD, pieces[match.start()], [pieces[slice(*match.span(1))]])


def _runs(
    pattern: re.Pattern[str], kinds: str, pieces: Sequence[Piece]
) -> Iterator[tuple[Piece | None, Sequence[Piece]]]:
    """Yield the runs of locations and marks that the pattern finds, each with the words before it."""
    for match in pattern.finditer(kinds):
        run = pieces[slice(*match.span(1))]
        words = pieces[match.start()]
        if words.kind != TEXT:
            yield None, run
            continue
        # The original reads a label from the last "<" on, and none at all if that ends the text.
        label = words.text.rpartition("<")[2]
        if label:
            yield Piece(TEXT, words.positions, text=label), run


def _shape(kind: ShapeKind, words: Piece | None, rings: Sequence[Sequence[Piece]]) -> Shape:
    return Shape(
        kind,
        label=words.text.strip() if words else "",
        rings=tuple(tuple(piece.bin for piece in ring) for ring in rings),
        label_positions=words.positions if words else (),
        location_positions=tuple(position for ring in rings for piece in ring for position in piece.positions),
    )


def _kinds(pieces: Sequence[Piece]) -> str:
    return "".join(piece.kind for piece in pieces)
