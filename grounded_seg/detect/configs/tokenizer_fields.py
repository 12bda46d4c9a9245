"""What a `tokenizer.json` says, field by field: the byte-level BPE of BART, and nothing that would run a pattern.

Truncation, padding and what is put around a text are left out: a question's own tokens are put around it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from grounded_seg.weights.config_records import TokenId, record_of

_Token: TypeAlias = Annotated[str, Meta(max_length=1000)]
_Pair: TypeAlias = Annotated[str, Meta(max_length=2001)] | Annotated[list[_Token], Meta(min_length=2, max_length=2)]
_MOST_TOKENS = 1_000_000


@dataclass(frozen=True, kw_only=True)
class _AddedToken:
    id: TokenId
    content: Annotated[str, Meta(min_length=1, max_length=1000)]
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = True
    special: bool = False


@dataclass(frozen=True, kw_only=True)
class _ByteLevel:
    type: Literal["ByteLevel"]
    add_prefix_space: bool = True
    trim_offsets: bool = True
    use_regex: bool = True
    """The library's own pattern."""


@dataclass(frozen=True, kw_only=True)
class _Bpe:
    vocab: Annotated[Mapping[_Token, TokenId], Meta(max_length=_MOST_TOKENS)]
    merges: Annotated[list[_Pair], Meta(max_length=_MOST_TOKENS)]
    type: Literal["BPE"] = "BPE"
    unk_token: _Token | None = None
    # Byte-level pieces have neither; with a longer one than its merges the library panics.
    continuing_subword_prefix: Literal["", None] = None
    end_of_word_suffix: Literal["", None] = None
    fuse_unk: bool = False
    byte_fallback: bool = False
    ignore_merges: bool = False


@dataclass(frozen=True, kw_only=True)
class _Tokenizer:
    model: _Bpe
    pre_tokenizer: _ByteLevel
    decoder: _ByteLevel
    added_tokens: Annotated[list[_AddedToken], Meta(max_length=_MOST_TOKENS)] = field(default_factory=list)
    normalizer: None = None


def tokenizer_text(content: Any) -> str:
    """The text of a tokenizer for its library, made of the fields of a `tokenizer.json`.

    Raises:
        ValueError: If one is missing or can't be; names it.
    """
    found = record_of(_Tokenizer, content)
    own = {one.name: getattr(found, one.name) for one in fields(found)}
    whole = {"version": "1.0", "truncation": None, "padding": None, "post_processor": None, **own}
    return msgspec.json.encode(whole).decode("utf-8")
