"""A Florence-2's configuration, field by field: numbers that can't be are refused before anything is made of them."""

import json
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import DEMO
from safetensors.torch import load_file, save_file
from tiny_florence import save_tiny_florence
from transformers import Florence2Config, Florence2ForConditionalGeneration

from grounded_seg.detect.configs.florence_fields import FlorenceFields, florence_fields
from grounded_seg.detect.model.load import load_florence
from grounded_seg.errors import WeightsError


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_florence(tmp_path_factory.mktemp("tiny"))


def broken(tiny: Path, folder: Path, name: str, part: str, **values: Any) -> Path:
    shutil.copytree(tiny, folder)
    path = folder / name
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for key in part.split(".") if part else ():
        content.setdefault(key, {})
    inner = content
    for key in part.split(".") if part else ():
        inner = inner[key]
    inner |= values
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("part", "values", "told"),
    [
        ("text_config", {"encoder_layers": 2**53}, "text_config.encoder_layers: Expected `int` <= 100"),
        (
            "text_config",
            {"encoder_layers": 90, "encoder_ffn_dim": 9999},
            "describes: that has about .* parameters, its weights are",
        ),
        ("text_config", {"vocab_size": 900_000}, "describes: that has about .* parameters"),
        ("text_config", {"activation_function": [1, 2]}, "text_config.activation_function"),
        ("text_config", {"activation_function": "owner/name"}, "text_config.activation_function"),
        ("text_config", {"model_type": "gpt2"}, "text_config.model_type"),
        ("text_config", {"decoder_attention_heads": 5}, "d_model is 32, which decoder_attention_heads"),
        ("text_config", {"pad_token_id": 9_000_000}, "pad_token_id is 9000000, there are"),
        ("text_config", {"decoder_start_token_id": -1}, "text_config.decoder_start_token_id"),
        ("text_config", {"d_model": 64}, "projection_dim is 32, d_model is 64"),
        ("text_config", {"dropout": 1e308}, "text_config.dropout"),
        ("vision_config", {"depths": [1, 1, 1]}, "depths has 3 items, embed_dim has 4"),
        ("vision_config", {"patch_size": [7, 3]}, "patch_size has 2 items"),
        ("vision_config", {"num_heads": [1, 0, 2, 4]}, r"vision_config.num_heads\[1\]: Expected `int` >= 1"),
        ("vision_config", {"num_groups": [1, 3, 2, 4]}, r"embed_dim is 16, which num_groups \(3\)"),
        ("vision_config", {"patch_stride": [0, 2, 2, 2]}, "patch_stride"),
        ("vision_config", {"in_channels": 4}, "vision_config.in_channels"),
        ("vision_config", {"max_temporal_embeddings": 10**6}, "max_temporal_embeddings"),
        ("vision_config", {"embed_dim": []}, "there are 0 stages"),
        ("", {"vision_config": 3}, "config.json"),
        ("", {"text_config": "a"}, "text_config"),
        ("", {"image_token_id": "\x1b"}, "image_token_id"),
        ("", {"tie_word_embeddings": 1}, "tie_word_embeddings"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_field_that_can_not_be_is_refused_by_name(
    tiny: Path, tmp_path: Path, part: str, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(WeightsError, match=told) as refused:
        load_florence(broken(tiny, tmp_path / "bad", "config.json", part, **values))
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("name", "part", "values", "told"),
    [
        ("generation_config.json", "", {"num_beams": 10**6}, "num_beams"),
        ("generation_config.json", "", {"forced_bos_token_id": 9_000_000}, "has tokens that the model lacks"),
        ("tokenizer.json", "model.vocab", {"a new word": 9_000_000}, "has more tokens than the model"),
        ("generation_config.json", "", {"length_penalty": "x"}, "length_penalty"),
        ("generation_config.json", "", {"forced_bos_token_id": [0]}, "forced_bos_token_id"),
        ("processor_config.json", "image_processor.size", {"height": 10**6}, "size.height"),
        ("processor_config.json", "image_processor.size", {"height": 4000, "width": 4000}, "places in the model"),
        ("processor_config.json", "image_processor", {"image_std": [0, 1, 1]}, "image_std"),
        ("processor_config.json", "image_processor", {"image_mean": ["a", 1, 1]}, "image_mean"),
        ("processor_config.json", "image_processor", {"resample": 2}, "resample"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_rules_and_sizes_that_can_not_be_are_refused(
    tiny: Path, tmp_path: Path, name: str, part: str, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(WeightsError, match=told):
        load_florence(broken(tiny, tmp_path / "bad", name, part, **values))


def test_the_record_says_what_transformers_reads() -> None:
    content = json.loads((DEMO / "detector" / "config.json").read_text(encoding="utf-8"))
    own, theirs = florence_fields(content).config(), Florence2Config.from_pretrained(DEMO / "detector")
    assert own.space_before_labels is theirs.space_before_labels is True
    for part in ("vision_config", "text_config"):
        mine, given = getattr(own, part).to_dict(), getattr(theirs, part).to_dict()
        names = [one.name for one in fields(getattr(florence_fields(content), part))]
        assert {name: mine[name] for name in names} == {name: given[name] for name in names}
    # What isn't given is as transformers has it.
    assert florence_fields({}).config().text_config.to_dict() == Florence2Config().text_config.to_dict()
    assert florence_fields({}).config().vision_config.to_dict() == Florence2Config().vision_config.to_dict()


def test_the_number_of_parameters_is_about_right(tiny: Path) -> None:
    for folder in (tiny, DEMO / "detector"):
        described = florence_fields(json.loads((folder / "config.json").read_text(encoding="utf-8")))
        n_here = sum(one.numel() for one in load_file(folder / "model.safetensors").values())
        assert described.n_parameters == pytest.approx(n_here, rel=0.3)
    with torch.device("meta"):
        large = Florence2ForConditionalGeneration(Florence2Config())
    n_large = sum(one.numel() for one in large.parameters())
    assert FlorenceFields().n_parameters == pytest.approx(n_large, rel=0.2)


def test_nulls_are_defaults_but_of_tokens() -> None:
    found = florence_fields({"text_config": {"dropout": None, "forced_eos_token_id": None}, "vision_config": None})
    assert found.text_config.dropout == 0.1
    assert found.text_config.forced_eos_token_id is None


def test_tensors_far_fewer_than_described_are_refused_before_memory_is_taken(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(DEMO / "detector", tmp_path / "few")
    save_file({"model.language_model.shared.weight": torch.zeros(2, 2)}, tmp_path / "few" / "model.safetensors")
    with pytest.raises(WeightsError, match=r"that has about 7e\+06 parameters|that has about .*, its weights are 4"):
        load_florence(tmp_path / "few")
