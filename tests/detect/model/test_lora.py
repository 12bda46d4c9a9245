"""A plain LoRA merged without peft: peft's own sums, and nothing that peft would have to decide."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from paths import ROOT
from peft import LoraConfig
from safetensors.torch import load_file, save_file
from tiny_florence import make_network, save_adapter

from grounded_seg.detect.model.adapters import attach_adapter, merge_adapter
from grounded_seg.detect.model.load import load_network
from grounded_seg.detect.model.lora import merge_plain_lora
from grounded_seg.errors import WeightsError

PATTERN = r".*language_model.*\.(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(
        **{"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "fc1"], "init_lora_weights": False} | settings
    )


PLAIN = {
    "ends": lora(),
    "pattern": lora(target_modules=PATTERN, lora_alpha=3, r=5),
    "vision": lora(target_modules=["qkv", "proj", "image_projection"]),
    "paths": lora(target_modules=["model.language_model.decoder.layers.1.fc2"], lora_dropout=0.3),
}
OTHER = {
    "dora": lora(use_dora=True),
    "rslora": lora(use_rslora=True),
    "rank pattern": lora(rank_pattern={"fc1": 2}),
    "alpha pattern": lora(alpha_pattern={"fc1": 2}),
    "bias": lora(bias="lora_only"),
    "excluded": lora(exclude_modules=["model.language_model.encoder.layers.0.fc1"]),
    "layers": lora(layers_to_transform=[0], layers_pattern="layers"),
    "saved whole": lora(modules_to_save=["image_projection"]),
    "convolutions": lora(target_modules=["conv"]),
    "head": lora(target_modules=["lm_head"]),
}


def merged_by_peft(network: Any, adapter: Path) -> dict[str, torch.Tensor]:
    return dict(attach_adapter(network, adapter).merge_and_unload(safe_merge=True).state_dict())


def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    assert [name for name, tensor in found.items() if not torch.equal(tensor, expected[name])] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("config", PLAIN.values(), ids=PLAIN.keys())
def test_a_plain_lora_is_merged_as_by_peft_to_the_last_bit(
    tmp_path: Path, config: LoraConfig, dtype: torch.dtype
) -> None:
    adapter = save_adapter(tmp_path / "adapter", config)
    file = adapter / "adapter_model.safetensors"
    save_file({name: tensor.to(dtype) for name, tensor in load_file(file).items()}, file)
    before, network = make_network().state_dict(), make_network()
    assert merge_plain_lora(network, adapter)
    assert_same(network.state_dict(), merged_by_peft(make_network(), adapter))
    changed = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])]
    assert len(changed) == len(load_file(file)) / 2 > 0
    assert network.lm_head.weight is network.get_input_embeddings().weight
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_the_demo_is_merged_as_by_peft_to_the_last_bit() -> None:
    demo = ROOT / "checkpoints" / "demo"
    network, again = (load_network(demo / "detector", dtype=torch.float32) for _ in range(2))
    assert merge_plain_lora(network, demo / "adapter")
    assert_same(network.state_dict(), merged_by_peft(again, demo / "adapter"))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("config", OTHER.values(), ids=OTHER.keys())
def test_what_is_more_than_a_plain_lora_is_left_to_peft(tmp_path: Path, config: LoraConfig) -> None:
    adapter, network = save_adapter(tmp_path / "adapter", config), make_network()
    assert not merge_plain_lora(network, adapter)
    assert_same(network.state_dict(), make_network().state_dict())
    if config.target_modules != {"lm_head"}:
        assert_same(merge_adapter(network, adapter).state_dict(), merged_by_peft(make_network(), adapter))


@pytest.mark.parametrize(
    "change",
    [
        {"r": "4"},
        {"r": 0},
        {"r": 5},
        {"lora_alpha": None},
        {"target_modules": None},
        {"target_modules": "("},
        {"target_modules": ["nowhere"]},
        {"target_modules": ["q_proj"]},
        {"init_lora_weights": "pissa"},
        {"peft_type": "IA3"},
        {"of_a_later_release": {"a": 1}},
    ],
    ids=str,
)
def test_a_setting_that_is_wrong_or_unknown_is_left_to_peft(tmp_path: Path, change: dict[str, Any]) -> None:
    adapter, network = save_adapter(tmp_path / "adapter", lora()), make_network()
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | change), encoding="utf-8")
    assert not merge_plain_lora(network, adapter)
    assert_same(network.state_dict(), make_network().state_dict())


@pytest.mark.parametrize("text", ["", "[]", "null"])
def test_a_damaged_configuration_is_left_to_peft(tmp_path: Path, text: str) -> None:
    adapter = save_adapter(tmp_path / "adapter", lora())
    (adapter / "adapter_config.json").write_text(text, encoding="utf-8")
    assert not merge_plain_lora(make_network(), adapter)


def test_weights_in_half_precision_are_left_to_peft(tmp_path: Path) -> None:
    assert not merge_plain_lora(make_network().half(), save_adapter(tmp_path / "adapter", lora()))


def test_a_sum_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    adapter = save_adapter(tmp_path / "adapter", lora())
    file = adapter / "adapter_model.safetensors"
    save_file({name: torch.full_like(tensor, torch.inf) for name, tensor in load_file(file).items()}, file)
    with pytest.raises(WeightsError, match=r"can't be merged .*broken.*another checkpoint"):
        merge_plain_lora(make_network(), adapter)
