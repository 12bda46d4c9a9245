"""Florence-2's first layout against what its first implementation computed, and what happens where it is incomplete."""

import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from older_florence import older_folder, older_name, outputs
from paths import ORIGINAL, unpacked
from safetensors.torch import load_file, save_file
from tiny_florence import make_network, make_tokenizer
from transformers import Florence2ForConditionalGeneration

from grounded_seg.detect.first_layout.checkpoint import (
    LOGITS_BIAS,
    OWN_TOKENS,
    TIED_TENSORS,
    add_own_tokens,
    native_module,
    native_tensor,
)
from grounded_seg.detect.first_layout.layout import is_older_path
from grounded_seg.detect.model.load import load_florence, load_network
from grounded_seg.detect.model.vocabulary import Vocabulary, load_tokenizer
from grounded_seg.errors import WeightsError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return older_folder(tmp_path_factory.mktemp("older"))


def changed(folder: Path, target: Path, tensors: Mapping[str, torch.Tensor | None]) -> Path:
    """A copy with tensors replaced or, where None, left out."""
    shutil.copytree(folder, target)
    weights = {**load_file(target / "model.safetensors"), **tensors}
    save_file({name: tensor for name, tensor in weights.items() if tensor is not None}, target / "model.safetensors")
    return target


def test_features_logits_and_loss_are_the_first_implementations() -> None:
    expected = load_file(ORIGINAL / "expected.safetensors")
    features, logits, loss = outputs(load_network(ORIGINAL, dtype=torch.float32), expected)
    torch.testing.assert_close(features, expected["image_features"], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits, expected["logits"], rtol=0, atol=1e-4)
    torch.testing.assert_close(loss, expected["loss"][0], rtol=0, atol=1e-4)


def test_the_loss_is_the_cross_entropy_of_unshifted_labels() -> None:
    # Some releases of transformers shifted the labels, or shifted them twice: then every training learns nonsense.
    expected = load_file(ORIGINAL / "expected.safetensors")
    network = load_network(ORIGINAL, dtype=torch.float32).eval()
    labels = expected["labels"]
    with torch.inference_mode():
        answer = network(
            input_ids=torch.full((2, 145), network.config.image_token_id),
            pixel_values=expected["pixel_values"],
            decoder_input_ids=expected["decoder_input_ids"],
            labels=labels,
        )
    flat = answer.logits.flatten(0, 1)
    torch.testing.assert_close(answer.loss, torch.nn.functional.cross_entropy(flat, labels.flatten()))
    shifted = torch.nn.functional.cross_entropy(answer.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    assert (answer.loss - shifted).abs() > 1e-3


def test_the_same_numbers_come_out_whatever_the_widths(folder: Path) -> None:
    network = load_network(folder, dtype=torch.float32)
    for name, tensor in make_network().state_dict().items():
        torch.testing.assert_close(network.state_dict()[name], tensor, rtol=0, atol=0)
    assert network.config.vision_config.embed_dim == [8, 16, 16, 32]
    assert network.config.text_config.encoder_ffn_dim == 64


def test_every_tensor_of_a_deeper_model_has_its_home() -> None:
    config = make_network().config
    config.vision_config.depths = (2, 1, 11, 3)
    config.text_config.encoder_layers, config.text_config.decoder_layers = 12, 11
    with torch.device("meta"):
        names = Florence2ForConditionalGeneration(config).state_dict().keys()
    assert "model.vision_tower.blocks.2.10.channel_block.ffn.fc1.weight" in names
    tied = {native for older in TIED_TENSORS if (native := native_tensor(older))}
    for name in names:
        assert native_tensor(older_name(name)) == name or name in tied


def test_a_whole_model_comes_out_of_an_older_folder(folder: Path) -> None:
    model = load_florence(folder)
    assert model.vocabulary.location_ids == Vocabulary(load_tokenizer(folder)).location_ids
    assert model.rules.forced_first_id == 0
    assert model.rules.start_id == 2


def test_missing_configurations_are_filled_in_and_said(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(folder, tmp_path / "bare")
    for name in ("generation_config.json", "preprocessor_config.json"):
        (tmp_path / "bare" / name).unlink()
    with caplog.at_level(logging.WARNING):
        model = load_florence(tmp_path / "bare")
    assert "no generation_config.json" in caplog.text
    assert "no preprocessor_config.json" in caplog.text
    assert model.rules.stop_beams_early is True
    assert (model.pixels.height, model.pixels.width) == (768, 768)


@pytest.mark.parametrize("kept", TIED_TENSORS)
def test_the_tied_matrix_may_be_stored_once_under_any_name(folder: Path, tmp_path: Path, kept: str) -> None:
    others = {name: None for name in TIED_TENSORS if name != kept}
    network = load_network(changed(folder, tmp_path / "once", others), dtype=torch.float32)
    assert network.lm_head.weight is network.model.language_model.shared.weight
    torch.testing.assert_close(network.lm_head.weight, make_network().lm_head.weight, rtol=0, atol=0)


def test_a_head_of_its_own_is_refused_unless_the_configuration_says_so(folder: Path, tmp_path: Path) -> None:
    head = make_network().lm_head.weight.detach() + 1
    own = changed(folder, tmp_path / "own", {TIED_TENSORS[-1]: head})
    with pytest.raises(WeightsError, match=r"language_model\.lm_head\.weight that differs"):
        load_network(own)
    config = json.loads((own / "config.json").read_text(encoding="utf-8"))
    (own / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}), encoding="utf-8")
    network = load_network(own, dtype=torch.float32)
    torch.testing.assert_close(network.lm_head.weight, head, rtol=0, atol=0)
    torch.testing.assert_close(network.model.language_model.shared.weight, head - 1)


QKV = "vision_tower.blocks.2.0.spatial_block.window_attn.fn.qkv.weight"


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({QKV: None}, r"1 missing: model\.vision_tower\.blocks\.2\.0\.spatial_block\.window_attn\.qkv\.weight"),
        ({QKV: torch.zeros(3, 3)}, r"1 of another shape: .*window_attn\.qkv\.weight"),
        ({"vision_tower.head.weight": torch.zeros(2)}, r"that Florence-2 doesn't have: vision_tower\.head\.weight"),
        ({QKV.replace(".2.0.", ".2.7."): torch.zeros(2)}, r"1 unexpected: .*blocks\.2\.7"),
        ({LOGITS_BIAS: torch.ones(1, 4)}, "final_logits_bias, which isn't zero"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    folder: Path, tmp_path: Path, tensors: dict[str, torch.Tensor | None], message: str
) -> None:
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(changed(folder, tmp_path / "changed", tensors))
    assert "\n" not in str(caught.value)


def in_shards(target: Path) -> None:
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    names = sorted(weights)
    places = {name: f"model-0000{1 + index % 2}-of-00002.safetensors" for index, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: weights[name] for name in names if places[name] == file}, target / file)
    (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}), encoding="utf-8")


def as_pickle(target: Path) -> None:
    weights = load_file(target / "model.safetensors")
    (target / "model.safetensors").unlink()
    torch.save(weights, target / "pytorch_model.bin")


@pytest.mark.parametrize("rewrite", [in_shards, as_pickle])
def test_every_kind_of_weight_file_is_read(folder: Path, tmp_path: Path, rewrite: Any) -> None:
    shutil.copytree(folder, tmp_path / "other")
    rewrite(tmp_path / "other")
    # What else lies there, a later shard of another model or a pickle with code in it, is not looked at.
    (tmp_path / "other" / "training_args.bin").write_bytes(b"\x80\x04not a model")
    (tmp_path / "other" / "modeling_florence2.py").write_text("raise SystemExit", encoding="utf-8")
    found = load_network(tmp_path / "other", dtype=torch.float32).state_dict()
    for name, tensor in make_network().state_dict().items():
        assert torch.equal(found[name], tensor)


class Harmful:
    """Unpickled without care, it would run a command."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("this pickle ran",)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": Harmful()}, "can't be read as weights"), ([1], "isn't a plain table of named tensors")],
)
def test_a_pickle_holds_tensors_or_nothing(
    folder: Path, tmp_path: Path, content: object, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(folder, tmp_path / "pickle", ignore=shutil.ignore_patterns("*.safetensors"))
    torch.save(content, tmp_path / "pickle" / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=message):
        load_network(tmp_path / "pickle")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("model.safetensors", "broken", "can't be read as weights"),
        (
            "model.safetensors.index.json",
            '{"weight_map": {"a": "../other.safetensors"}}',
            "isn't a .safetensors beside",
        ),
        ("model.safetensors.index.json", "[]", "can't be read as weights"),
        ("pytorch_model.bin", "broken", "can't be read as weights"),
        ("nothing", "", "has no weights: none of model.safetensors"),
        ("generation_config.json", "{", "generation_config.json can't be read"),
    ],
)
def test_damaged_files_are_named(folder: Path, tmp_path: Path, name: str, text: str, message: str) -> None:
    is_weights = name != "generation_config.json"
    shutil.copytree(folder, tmp_path / "bad", ignore=shutil.ignore_patterns("*.safetensors" if is_weights else "x"))
    (tmp_path / "bad" / name).write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(tmp_path / "bad")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("part", "name", "value", "message"),
    [
        ("vision_config", "image_feature_source", ["last_frame"], "image_feature_source"),
        ("vision_config", "image_pos_embed", None, "positions"),
        ("vision_config", "visual_temporal_embedding", {"type": "LEARNED"}, "positions"),
    ],
)
def test_models_that_transformers_can_not_be_are_refused(
    folder: Path, tmp_path: Path, part: str, name: str, value: object, message: str
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text(encoding="utf-8"))
    config[part][name] = value
    (tmp_path / "other" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(WeightsError, match=message):
        load_network(tmp_path / "other")


def test_barts_tokenizer_gets_florences_tokens(tmp_path: Path) -> None:
    whole = json.loads(make_tokenizer().to_str())
    own = set(OWN_TOKENS) | {"<image>"}
    whole["added_tokens"] = [token for token in whole["added_tokens"] if token["content"] not in own]
    (tmp_path / "tokenizer.json").write_text(json.dumps(whole), encoding="utf-8")
    with pytest.raises(WeightsError, match="<loc_0>"):
        Vocabulary(load_tokenizer(tmp_path))
    tokenizer = load_tokenizer(tmp_path)
    add_own_tokens(tokenizer)
    vocabulary = Vocabulary(tokenizer)
    n_before = vocabulary.location_ids[0] - 4
    assert [vocabulary.id_to_token(n_before + index) for index in range(len(OWN_TOKENS))] == list(OWN_TOKENS)


def test_the_added_tokens_are_the_published_ones() -> None:
    path = unpacked("florence2-tokenizer/tokenizer.json")
    added = json.loads(path.read_text(encoding="utf-8"))["added_tokens"]
    assert [token["content"] for token in added if token["id"] >= 50265] == list(OWN_TOKENS)


def test_paths_are_told_apart() -> None:
    assert is_older_path("vision_tower.convs.0.proj")
    assert is_older_path("language_model.lm_head")
    assert not is_older_path("model.vision_tower.convs.0.conv")
    assert not is_older_path("lm_head")
    assert native_module("vision_tower.convs.3.proj") == "model.vision_tower.convs.3.conv"
    assert native_module("vision_tower.convs.3") is None
    assert native_tensor("image_projection") == "model.multi_modal_projector.image_projection.weight"
    assert native_tensor("language_model.model.encoder.layers.0.o_proj.weight") is None
