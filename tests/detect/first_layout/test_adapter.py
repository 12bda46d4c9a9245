"""Adapters that were trained on Florence-2's first implementation, on transformers' own class."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from older_florence import older_name, outputs
from paths import ORIGINAL
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_florence import logits, make_network

from grounded_seg.detect.first_layout.adapter import PREFIX
from grounded_seg.detect.model.adapters import attach_adapter, merge_adapter
from grounded_seg.detect.model.load import load_network
from grounded_seg.detect.model.save import convert
from grounded_seg.errors import UsageError, WeightsError


@pytest.mark.parametrize("put_on", [attach_adapter, merge_adapter])
def test_logits_and_loss_are_the_first_implementations(put_on: Any) -> None:
    expected = load_file(ORIGINAL / "expected.safetensors")
    network = put_on(load_network(ORIGINAL, dtype=torch.float32), ORIGINAL / "lora-adapter")
    _, found, loss = outputs(network, expected)
    torch.testing.assert_close(found, expected["logits_with_adapter"], rtol=0, atol=1e-4)
    torch.testing.assert_close(loss, expected["loss_with_adapter"][0], rtol=0, atol=1e-4)
    assert (expected["logits_with_adapter"] - expected["logits"]).abs().max() > 1e-2


def test_the_converted_adapter_is_plain_peft(tmp_path: Path) -> None:
    convert(ORIGINAL / "lora-adapter", tmp_path / "native")
    expected = load_file(ORIGINAL / "expected.safetensors")
    network = load_network(ORIGINAL, dtype=torch.float32)
    # As a user of peft loads it: what it can't place, it would only warn of.
    _, found, _ = outputs(PeftModel.from_pretrained(network, str(tmp_path / "native")), expected)
    torch.testing.assert_close(found, expected["logits_with_adapter"], rtol=0, atol=1e-4)


def random_adapter(config: LoraConfig, folder: Path) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(make_network(), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "modules_to_save" in name or "magnitude" in name or (config.bias != "none" and name.endswith("bias")):
                parameter.add_(0.1 * torch.rand_like(parameter))
    model.save_pretrained(str(folder))
    return folder


def older_copy(native: Path, older: Path, **names: Any) -> Path:
    """Write an adapter as if it had been trained on the first implementation, whose words `names` are in."""
    older.mkdir()
    tensors = load_file(native / "adapter_model.safetensors")
    renamed = {PREFIX + older_name(key.removeprefix(PREFIX)): tensor for key, tensor in tensors.items()}
    save_file(renamed, older / "adapter_model.safetensors")
    config = json.loads((native / "adapter_config.json").read_text(encoding="utf-8"))
    (older / "adapter_config.json").write_text(json.dumps({**config, **names}), encoding="utf-8")
    return older


NATIVE_PROJ = r".*(attn\.proj|convs\.\d\.conv)"
"""What the ending `proj` means in the first implementation."""
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "text and vision": (
        {"target_modules": ["q_proj", "out_proj", "fc1", "fc2", "qkv"]},
        {"target_modules": ["q_proj", "out_proj", "fc1", "fc2", "qkv"]},
    ),
    "convolutions": ({"target_modules": NATIVE_PROJ}, {"target_modules": ["proj"]}),
    "a pattern": (
        {"target_modules": r".*decoder\.layers\.1\..*_attn\.v_proj"},
        {"target_modules": r"language_model\.model\.decoder\.layers\.1\..*_attn\.v_proj"},
    ),
    "one layer": (
        {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
        {"layers_pattern": "model.encoder.layers", "exclude_modules": ["nothing"]},
    ),
    "ranks and alphas": (
        {
            "target_modules": [*("q_proj", "fc2"), "convs.0.conv"],
            "rank_pattern": {"encoder.layers.0.self_attn.q_proj": 2, r"convs.0.conv": 3},
            "alpha_pattern": {"self_attn.q_proj": 7, r"channel_block.ffn.fc2": 5},
        },
        {
            "target_modules": ["q_proj", "fc2", "convs.0.proj"],
            "rank_pattern": {"encoder.layers.0.self_attn.q_proj": 2, r"convs.0.proj": 3},
            "alpha_pattern": {"self_attn.q_proj": 7, r"channel_block.ffn.fn.net.fc2": 5},
        },
    ),
    "dora": (
        {"target_modules": ["k_proj", "qkv", "convs.1.conv"], "use_dora": True},
        {"target_modules": ["k_proj", "qkv", "convs.1.proj"]},
    ),
    "rslora with embeddings": (
        {"target_modules": ["row_embeddings", "fc1"], "use_rslora": True},
        {"target_modules": ["image_pos_embed.row_embeddings", "fc1"]},
    ),
    "biases": ({"target_modules": ["v_proj", "proj"], "bias": "lora_only"}, {"target_modules": ["v_proj", "fn.proj"]}),
    "the head": ({"target_modules": ["q_proj", "lm_head"]}, {}),
    "the head, saved whole": ({"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, {}),
    "modules saved whole": (
        {
            "target_modules": ["q_proj"],
            "modules_to_save": ["image_proj_norm", "image_position_embed", "spatial_block.norm2", "spatial_block.ffn"],
        },
        {"modules_to_save": ["image_proj_norm", "image_pos_embed", "spatial_block.ffn"]},
    ),
}


# peft itself warns of the tied head, when such an adapter is made.
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("native", "older"), CASES.values(), ids=CASES.keys())
def test_an_older_adapter_does_what_it_did(tmp_path: Path, native: dict[str, Any], older: dict[str, Any]) -> None:
    options = {"r": 4, "lora_alpha": 2, "init_lora_weights": False, **native}
    adapter = random_adapter(LoraConfig(**options), tmp_path / "native")
    expected = logits(attach_adapter(make_network(), adapter))
    assert (expected - logits(make_network())).abs().max() > 0.01
    rewritten = older_copy(adapter, tmp_path / "older", **older)
    torch.testing.assert_close(logits(attach_adapter(make_network(), rewritten)), expected, rtol=0, atol=0)
    convert(rewritten, tmp_path / "converted")
    by_peft = PeftModel.from_pretrained(make_network(), str(tmp_path / "converted"))
    torch.testing.assert_close(logits(by_peft), expected, rtol=0, atol=0)


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    return older_copy(random_adapter(config, tmp_path / "native"), tmp_path / "older")


def with_tensor(adapter: Path, key: str, tensor: torch.Tensor | None) -> None:
    path = adapter / "adapter_model.safetensors"
    tensors = {**load_file(path), key: tensor}
    save_file({name: value for name, value in tensors.items() if value is not None}, path)


QUERY = f"{PREFIX}language_model.model.decoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "tensor", "message"),
    [
        (f"{PREFIX}vision_tower.head.lora_A.weight", torch.zeros(2, 2), r"that Florence-2 doesn't have: .*\.head\."),
        (f"{QUERY}.ia3_l", torch.zeros(2), r"that Florence-2 doesn't have: .*ia3_l"),
        ("vision_tower.convs.0.proj.lora_A.weight", torch.zeros(2, 2), r"that Florence-2 doesn't have: vision_tower"),
        (
            f"{PREFIX}model.vision_tower.convs.0.conv.lora_A.weight",
            torch.zeros(2, 2),
            r"doesn't have: .*0\.conv",
        ),
        (f"{QUERY}.lora_B.weight", None, r"lacks tensors .*layers\.0\.self_attn\.q_proj\.lora_B\.weight"),
        (f"{PREFIX}language_model.model.shared.weight", torch.zeros(2, 2), "tunes the word embeddings"),
    ],
)
def test_a_tensor_that_finds_no_home_is_named(
    adapter: Path, tmp_path: Path, key: str, tensor: torch.Tensor | None, message: str
) -> None:
    with_tensor(adapter, key, tensor)
    with pytest.raises(WeightsError, match=message) as caught:
        convert(adapter, tmp_path / "converted")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "converted").exists()


def test_a_native_adapter_needs_no_converting(adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="already"):
        convert(tmp_path / "native", tmp_path / "converted")
    assert adapter.is_dir()
