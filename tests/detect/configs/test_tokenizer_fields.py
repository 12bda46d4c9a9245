"""A tokenizer of its own fields: the same tokens, and nothing that the file could add."""

import json
from typing import Any

import pytest
from paths import DEMO, unpacked
from tiny_florence import make_tokenizer
from tokenizers import Tokenizer

from grounded_seg.detect.configs.tokenizer_fields import tokenizer_text

TEXTS = ("red car", "<OD>", "a café, 赤い車 <loc_7><loc_999></s>", "  two  blanks\n", "")


@pytest.mark.parametrize("name", ["demo", "tiny", "published"])
def test_tokens_are_those_of_the_file(name: str) -> None:
    text = {
        "demo": lambda: (DEMO / "detector" / "tokenizer.json").read_text(encoding="utf-8"),
        "tiny": lambda: make_tokenizer().to_str(),
        "published": lambda: unpacked("florence2-tokenizer/tokenizer.json").read_text(encoding="utf-8"),
    }[name]()
    own, theirs = Tokenizer.from_str(tokenizer_text(json.loads(text))), Tokenizer.from_str(text)
    for one in TEXTS:
        ids = [each.encode(one, add_special_tokens=False).ids for each in (own, theirs)]
        assert ids[0] == ids[1]
        assert own.decode(ids[0]) == theirs.decode(ids[0])
    assert own.get_vocab() == theirs.get_vocab()


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"model": None}, "model"),
        ({"model": {"type": "of tomorrow"}}, "model.type"),
        ({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(a+)+$"}}}, "pre_tokenizer.type"),
        ({"normalizer": {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}}, "normalizer"),
        ({"decoder": {"type": "Replace"}}, "decoder.type"),
        ({"added_tokens": [{"id": -1, "content": "a"}]}, r"added_tokens\[0\].id"),
        ({"added_tokens": [{"id": 2**40, "content": "a"}]}, r"added_tokens\[0\].id"),
        ({"added_tokens": 3}, "added_tokens"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_else_a_tokenizer_could_be_is_refused(changed: dict[str, Any], told: str) -> None:
    content = json.loads(make_tokenizer().to_str())
    with pytest.raises(ValueError, match=told):
        tokenizer_text(content | changed)
