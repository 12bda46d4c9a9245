import json
import logging
from pathlib import Path

import pytest
import torch
from paths import ORIGINAL
from peft import IA3Config, LoraConfig
from safetensors.torch import load_file, save_file
from tiny_florence import logits, make_network, save_adapter

from grounded_seg.detect.model.adapters import attach_adapter, attach_adapters, merge_adapter
from grounded_seg.detect.model.load import load_network
from grounded_seg.detect.model.record import check_adapter_base, write_adapter_base
from grounded_seg.errors import UsageError, WeightsError
from grounded_seg.weights.locate import LocatedWeights


def test_merged_equals_unmerged_and_changes_the_model(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    bare = logits(make_network())
    beside = attach_adapter(make_network(), adapter)
    merged = merge_adapter(make_network(), adapter)
    torch.testing.assert_close(logits(merged), logits(beside), rtol=0, atol=1e-5)
    assert (logits(beside) - bare).abs().max() > 0.1
    assert type(merged) is type(make_network())
    with beside.disable_adapter():
        torch.testing.assert_close(logits(beside), bare, rtol=0, atol=0)


def test_a_zero_adapter_changes_nothing(tmp_path: Path) -> None:
    merged = merge_adapter(make_network(), save_adapter(tmp_path / "adapter", zero=True))
    torch.testing.assert_close(logits(merged), logits(make_network()), rtol=0, atol=0)


KEY = "base_model.model.model.language_model.decoder.layers.1.fc1.lora_A.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({KEY: None}, f"1 missing: {KEY}"),
        ({"base_model.model.nowhere.lora_A.weight": torch.zeros(4, 4)}, r"1 unexpected: .*nowhere"),
        ({KEY: torch.zeros(4, 7)}, f"1 of another shape: {KEY}"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, torch.Tensor | None], message: str
) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    tensors = {**load_file(adapter / "adapter_model.safetensors"), **change}
    kept = {key: tensor for key, tensor in tensors.items() if tensor is not None}
    save_file(kept, adapter / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match=message):
        merge_adapter(make_network(), adapter)


HEAD_CONFIGS = {
    "lora": LoraConfig(r=4, lora_alpha=1, target_modules=["q_proj", "lm_head"], init_lora_weights=False),
    "whole": LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["lm_head"], init_lora_weights=False),
}


# peft itself warns of the tied weights, when such an adapter is made.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("config", HEAD_CONFIGS.values(), ids=HEAD_CONFIGS.keys())
def test_an_adapter_of_the_head_unties_it(tmp_path: Path, config: LoraConfig) -> None:
    adapter = save_adapter(tmp_path / "adapter", config)
    beside = attach_adapter(make_network(), adapter)
    merged = merge_adapter(make_network(), adapter)
    torch.testing.assert_close(logits(merged), logits(beside), rtol=0, atol=1e-5)
    assert (logits(merged) - logits(make_network())).abs().max() > 0.01
    words = make_network().get_input_embeddings().weight
    assert torch.equal(merged.get_input_embeddings().weight, words)
    merged.save_pretrained(tmp_path / "merged")
    again = load_network(tmp_path / "merged", dtype=torch.float32).eval()
    torch.testing.assert_close(logits(again), logits(merged), rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_another_head_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", HEAD_CONFIGS["lora"])
    with pytest.raises(WeightsError, match="another head"):
        merge_adapter(make_network(seed=5), adapter)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_adapter_of_the_tied_embeddings_is_refused(tmp_path: Path) -> None:
    config = LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["embed_tokens"])
    with pytest.raises(WeightsError, match="tunes the word embeddings"):
        merge_adapter(make_network(), save_adapter(tmp_path / "adapter", config))


def test_several_adapters_are_chosen_by_name(tmp_path: Path) -> None:
    weak, strong = (
        save_adapter(tmp_path / f"alpha{alpha}", LoraConfig(r=2, lora_alpha=alpha, target_modules=targets))
        for alpha, targets in ((1, ["q_proj"]), (8, ["fc1", "conv"]))
    )
    randomise(weak, 1)
    randomise(strong, 2)
    model = attach_adapters(make_network(), {"weak": weak, "strong": strong})
    for name, folder in (("strong", strong), ("weak", weak), ("strong", strong)):
        model.set_adapter(name)
        torch.testing.assert_close(logits(model), logits(attach_adapter(make_network(), folder)), rtol=0, atol=0)
    with model.disable_adapter():
        torch.testing.assert_close(logits(model), logits(make_network()), rtol=0, atol=0)
    with pytest.raises(UsageError, match="dot"):
        attach_adapters(make_network(), {"a.b": weak})
    with pytest.raises(UsageError, match="at least one"):
        attach_adapters(make_network(), {})


def randomise(adapter: Path, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = load_file(adapter / "adapter_model.safetensors")
    for tensor in tensors.values():
        tensor.normal_(0, 0.1, generator=generator)
    save_file(tensors, adapter / "adapter_model.safetensors")


def test_another_kind_of_adapter_is_refused(tmp_path: Path) -> None:
    config = IA3Config(target_modules=["k_proj", "fc2"], feedforward_modules=["fc2"])
    with pytest.raises(WeightsError, match="IA3"):
        merge_adapter(make_network(), save_adapter(tmp_path / "adapter", config))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    (adapter / "adapter_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"adapter_config\.json can't be read"):
        merge_adapter(make_network(), adapter)
    (adapter / "adapter_model.safetensors").write_text("x", encoding="utf-8")
    with pytest.raises(WeightsError, match="can't be read"):
        merge_adapter(make_network(), adapter)
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"has no adapter_model\.safetensors"):
        merge_adapter(make_network(), adapter)


def test_without_its_configuration_an_adapter_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    (adapter / "adapter_config.json").unlink()
    with pytest.raises(WeightsError, match=r"has no adapter_config\.json"):
        attach_adapter(make_network(), adapter)


def test_numbers_that_are_broken_are_not_merged(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter")
    tensors = load_file(adapter / "adapter_model.safetensors")
    save_file({**tensors, KEY: torch.full_like(tensors[KEY], torch.nan)}, adapter / "adapter_model.safetensors")
    with pytest.raises(WeightsError, match="broken"):
        merge_adapter(make_network(), adapter)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"unexpected|another shape"):
        merge_adapter(make_network(), ORIGINAL / "lora-adapter")


BASE = LocatedWeights(path=Path("base"), name="owner/base", revision="abc123", sha256="0" * 64)
OTHER = LocatedWeights(path=Path("other"), name="owner/other", revision=None, sha256="1" * 64)


def test_an_adapter_goes_onto_its_own_base_only(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_adapter_base(tmp_path, BASE)
    written = json.loads((tmp_path / "grounded_seg.json").read_text(encoding="utf-8"))
    assert written == {"base": {"id": "owner/base", "revision": "abc123", "sha256": "0" * 64}}
    check_adapter_base(tmp_path, BASE)
    assert caplog.text == ""
    with pytest.raises(WeightsError, match=r"owner/base at abc123.*owner/other.*--allow-base-mismatch"):
        check_adapter_base(tmp_path, OTHER)
    check_adapter_base(tmp_path, OTHER, allow_mismatch=True)
    assert "owner/base" in caplog.text


def test_an_adapter_that_does_not_say_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        check_adapter_base(tmp_path, BASE)
    assert "no record of its base" in caplog.text


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"base": {"id": "a"}}'])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "grounded_seg.json").write_text(text, encoding="utf-8")
    with pytest.raises(WeightsError, match=r"grounded_seg\.json is damaged"):
        check_adapter_base(tmp_path, BASE)
