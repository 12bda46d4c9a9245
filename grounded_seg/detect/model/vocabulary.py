"""The model's tokenizer: questions to ids, ids to text, and the ids of locations."""

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from grounded_seg.detect.answer.tokens import N_BINS
from grounded_seg.detect.configs.tokenizer_fields import tokenizer_text
from grounded_seg.errors import WeightsError
from grounded_seg.text.documents import json_in

TOKENIZER_FILE = "tokenizer.json"


class Vocabulary:
    """Florence-2's byte-level BPE with its special tokens; a `TokenDecoder`."""

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
        """The ids of a task's question, which follow the image's tokens: `<s>` words `</s>`."""
        return [self.bos_id, *self._tokenizer.encode(question, add_special_tokens=False).ids, self.eos_id]

    def id_to_token(self, token_id: int, /) -> str | None:
        """The name of a token; None if there is no such token."""
        return self._tokenizer.id_to_token(token_id)

    def id_by_token(self) -> dict[str, int]:
        """The id of every token, by its name."""
        return self._tokenizer.get_vocab(with_added_tokens=True)

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = True) -> str:
        """The text of tokens, all of them together; bytes that make no letter become U+FFFD."""
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)

    def _special_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise WeightsError(f"the tokenizer has no {token}, so it isn't Florence-2's; take the base model's own")
        return token_id


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model's folder, a byte-level BPE; a `WeightsError` if it can't be read, or is another kind."""
    path = folder / TOKENIZER_FILE
    try:
        text = tokenizer_text(json_in(path))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    try:
        return Tokenizer.from_str(text)
    except BaseException as error:
        # tokenizers raises nothing narrower, and a panic inside of it isn't even an Exception.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: BaseException) -> WeightsError:
    detail = " ".join(str(error).split())
    return WeightsError(f"{path} can't be read as a tokenizer ({detail}); copy it from the base model")
