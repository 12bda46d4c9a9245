"""A generated answer as pieces: texts, location tokens and marks such as `<poly>`.

A piece keeps the positions of its tokens, for their probabilities. Its kind is a letter, so that the grammar of an
answer is a regular expression over kinds.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from grounded_seg.detect.answer.tokens import N_BINS

TEXT, LOCATION, SEPARATOR, OPEN_POLYGON, CLOSE_POLYGON, OTHER_MARK = "tlspqm"
"""Kinds of pieces."""

_MARK_KINDS = {"<sep>": SEPARATOR, "<poly>": OPEN_POLYGON, "</poly>": CLOSE_POLYGON}
_SILENT = frozenset({"<s>", "</s>", "<pad>"})
"""Tokens that frame and fill an answer: ignored wherever they stand."""
_SPECIAL_TOKEN = re.compile(
    r"<loc_(?P<bin>[0-9]+)>|<s>|</s>|<pad>|<unk>|<mask>|<image>|<and>"
    r"|</?(?:od|ocr|cap|ncap|dcap|grounding|seg|region_cap|region_to_desciption|proposal|poly)>|<sep>"
)
"""Every special token of Florence-2's vocabulary; the missing r in "desciption" is the vocabulary's."""


class TokenDecoder(Protocol):
    """Token ids to text: a `Vocabulary`, or any `tokenizers.Tokenizer`."""

    def id_to_token(self, token_id: int, /) -> str | None:
        """The token as the vocabulary writes it; None if there is no such token."""

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens, all of them together: a letter's bytes may lie in several tokens."""


@dataclass(frozen=True)
class Piece:
    """A stretch of an answer of one kind."""

    kind: str
    positions: tuple[int, ...]
    """Of its tokens in the answer, from 0; for an answer given as text, the index of the piece."""
    text: str = ""
    """The words of a text piece, as generated."""
    bin: int = -1
    """0 to 999 for a location."""


def pieces_from_text(text: str) -> tuple[Piece, ...]:
    """The pieces of a decoded answer; it may hold `<s>`, `</s>` and `<pad>`."""
    return tuple(_merged(enumerate(_split(text))))


def pieces_from_tokens(token_ids: Iterable[int], decoder: TokenDecoder) -> tuple[Piece, ...]:
    """The pieces of an answer given as token ids; unknown ids are marks without a meaning."""
    ids = list(token_ids)
    names = [decoder.id_to_token(token_id) if token_id >= 0 else None for token_id in ids]
    pieces = _merged((position, name or "<unk>") for position, name in enumerate(names))
    return tuple(
        replace(piece, text=decoder.decode([ids[position] for position in piece.positions], skip_special_tokens=False))
        if piece.kind == TEXT
        else piece
        for piece in pieces
    )


def kind_of_token(name: str) -> tuple[str, int]:
    """The kind of a token of this name, and its bin, which is -1 for all but locations."""
    match = _SPECIAL_TOKEN.fullmatch(name) if name.startswith("<") else None
    if match is None:
        return TEXT, -1
    piece = _special_piece(0, name, match["bin"])
    return piece.kind, piece.bin


def _split(text: str) -> Iterator[str]:
    """Yield the special tokens and the texts between them, in order."""
    end = 0
    for match in _SPECIAL_TOKEN.finditer(text):
        if match.start() > end:
            yield text[end : match.start()]
        yield match.group()
        end = match.end()
    if end < len(text):
        yield text[end:]


def _merged(tokens: Iterable[tuple[int, str]]) -> Iterator[Piece]:
    """Classify tokens, drop the silent ones and join the texts that then are neighbours."""
    spoken = ((position, token, _SPECIAL_TOKEN.fullmatch(token)) for position, token in tokens if token not in _SILENT)
    for is_text, group in groupby(spoken, key=lambda one: one[2] is None):
        if is_text:
            positions, words, _ = zip(*group, strict=True)
            yield Piece(TEXT, positions, text="".join(words))
        else:
            yield from (_special_piece(position, token, match["bin"]) for position, token, match in group if match)


def _special_piece(position: int, token: str, digits: str | None) -> Piece:
    # A bin past the last has no token; some tuners write <loc_1000>, and clamping it would only guess what they meant.
    if digits is not None and len(digits) <= len(str(N_BINS)) and int(digits) < N_BINS:
        return Piece(LOCATION, (position,), bin=int(digits))
    return Piece(_MARK_KINDS.get(token, OTHER_MARK), (position,))
