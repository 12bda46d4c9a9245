"""The model's tokenizer: questions to ids, ids to text, and which ids are locations. The home of `tokenizers`."""

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from grounded_seg.detect.answer.tokens import N_BINS
from grounded_seg.errors import WeightsError

TOKENIZER_FILE = "tokenizer.json"
OWN_TOKENS = (
    *("<od>", "</od>", "<ocr>", "</ocr>"),
    *(f"<loc_{index}>" for index in range(N_BINS)),
    *("<cap>", "</cap>", "<ncap>", "</ncap>", "<dcap>", "</dcap>", "<grounding>", "</grounding>", "<seg>", "</seg>"),
    *("<sep>", "<region_cap>", "</region_cap>", "<region_to_desciption>", "</region_to_desciption>"),
    *("<proposal>", "</proposal>", "<poly>", "</poly>", "<and>"),
)
"""What Florence-2 adds to BART's 50,265 tokens, in the order of their ids; "desciption" is spelt so there."""


class Vocabulary:
    """Florence-2's byte-level BPE with its special tokens, as a `TokenDecoder` and more."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        # Both are settings of the saved file that have nothing to do with the vocabulary.
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.bos_id = self._special_id("<s>")
        self.pad_id = self._special_id("<pad>")
        self.eos_id = self._special_id("</s>")
        self.location_ids = tuple(self._special_id(f"<loc_{index}>") for index in range(N_BINS))
        """Token id of each location bin."""

    def encode(self, question: str) -> list[int]:
        """Turn a task's question into the ids that follow the image's tokens: `<s>` words `</s>`."""
        words = self._tokenizer.encode(question, add_special_tokens=False).ids
        return [self.bos_id, *words, self.eos_id]

    def id_to_token(self, token_id: int, /) -> str | None:
        """Name a token; None if there is no such token."""
        return self._tokenizer.id_to_token(token_id)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """Turn tokens into text, all of them together; bytes that make no letter become U+FFFD."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _special_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise WeightsError(f"the tokenizer has no {token}, so it isn't Florence-2's; take the base model's own")
        return token_id


def load_vocabulary(folder: Path, *, add_missing: bool = False) -> Vocabulary:
    """Read the tokenizer of a model's folder.

    Args:
        folder: The model's.
        add_missing: As for `load_tokenizer`.

    Raises:
        WeightsError: If it is missing, unreadable, or lacks a token of Florence-2's.
    """
    return Vocabulary(load_tokenizer(folder, add_missing=add_missing))


def load_tokenizer(folder: Path, *, add_missing: bool = False) -> Tokenizer:
    """Read `tokenizer.json` of a model's folder.

    Args:
        folder: The model's.
        add_missing: Append Florence-2's own tokens if they aren't there: the folders of its first implementation hold
            BART's tokenizer, and its code appended them each time it ran.

    Raises:
        WeightsError: If it is missing or unreadable.
    """
    path = folder / TOKENIZER_FILE
    try:
        text = path.read_text(encoding="utf-8")
        root = json.loads(text)
        if not isinstance(root, dict) or "model" not in root:
            raise ValueError("no model in it")
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # tokenizers raises nothing narrower
        raise _unreadable(path, error) from error
    if add_missing and tokenizer.token_to_id("<loc_0>") is None:
        tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in OWN_TOKENS])
    return tokenizer


def _unreadable(path: Path, error: Exception) -> WeightsError:
    detail = " ".join(str(error).split())
    return WeightsError(f"{path} can't be read as a tokenizer ({detail}); copy it from the base model")
