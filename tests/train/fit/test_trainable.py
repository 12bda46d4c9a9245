"""LoRA facts on a tiny model: what learns, what doesn't, and that nothing changes before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_florence import make_network

from grounded_seg.detect.model.adapters import attach_adapter, merge_adapter
from grounded_seg.train.fit.trainable import (
    make_optimizer,
    make_schedule,
    make_trainable,
    n_trainable,
    own_card,
    quantization_config,
    rex_share,
)
from grounded_seg.train.settings import Method, OptimizerName, Part, Quantization, Schedule, TrainSettings


def settings(**more: Any) -> TrainSettings:
    return TrainSettings(dataset=Path("d"), output=Path("o"), **more)


def logits(network: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(300, 500, (2, 7), generator=generator)
    answers = torch.randint(300, 500, (2, 5), generator=generator)
    embedded = network.get_input_embeddings()(ids)
    with torch.inference_mode():
        return network(inputs_embeds=embedded, decoder_input_ids=answers, use_cache=False).logits


def trained_names(model: torch.nn.Module) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize("more", [{}, {"dora": True}, {"rslora": True}, {"parts": frozenset(Part)}])
def test_a_fresh_adapter_changes_no_answer(more: dict[str, Any]) -> None:
    network = make_network()
    before = logits(network)
    make_trainable(network, settings(**more))
    assert torch.allclose(logits(network.eval()), before, atol=1e-5)


def test_only_adapter_weights_learn() -> None:
    names = trained_names(make_trainable(make_network(), settings()))
    assert names
    assert all("lora_" in name and "language_model" in name for name in names)
    # Encoder: 6 layers a block; decoder: another attention's 4 more; two blocks each; A and B of each.
    assert len(names) == 2 * (2 * 6 + 2 * 10)


def test_parts_choose_the_layers() -> None:
    vision = trained_names(make_trainable(make_network(), settings(parts=frozenset({Part.VISION}))))
    assert vision
    assert all("vision_tower" in name for name in vision)
    projector = trained_names(make_trainable(make_network(), settings(parts=frozenset({Part.PROJECTOR}))))
    assert len(projector) == 2
    assert all("image_projection" in name for name in projector)


def test_an_adapter_on_the_head_loads_again_and_brings_no_base_weights(tmp_path: Path) -> None:
    network = make_network()
    model = make_trainable(network, settings(parts=frozenset({Part.HEAD})))
    assert {name.split(".")[2] for name in trained_names(model)} == {"lm_head"}
    before = network.get_input_embeddings().weight.clone()
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    model.save_pretrained(tmp_path)
    assert {key.rpartition("lm_head.")[2] for key in load_file(tmp_path / "adapter_model.safetensors")} == {
        "lora_A.weight",
        "lora_B.weight",
    }
    assert torch.equal(network.get_input_embeddings().weight, before)
    tuned = logits(network.eval())
    assert not torch.allclose(tuned, logits(make_network()), atol=1e-2)
    assert torch.equal(logits(attach_adapter(make_network(), tmp_path)), tuned)
    assert torch.allclose(logits(merge_adapter(make_network(), tmp_path)), tuned, atol=1e-4)


def test_rank_and_alpha_are_as_in_the_paper() -> None:
    model = make_trainable(make_network(), settings(rank=4, alpha=8.0))
    [layer] = [
        module
        for name, module in model.named_modules()
        if name.endswith("encoder.layers.0.fc1") and hasattr(module, "lora_A")
    ]
    assert layer.lora_A["default"].weight.shape == (4, 32)
    assert layer.lora_B["default"].weight.shape == (64, 4)
    assert layer.scaling["default"] == 2.0


def test_full_tuning_takes_whole_parts() -> None:
    network = make_network()
    n_all = sum(one.numel() for one in network.parameters())
    assert n_trainable(make_trainable(network, settings(method=Method.FULL, parts=frozenset(Part)))) == n_all
    vision = make_trainable(make_network(), settings(method=Method.FULL, parts=frozenset({Part.VISION})))
    assert trained_names(vision) == {
        name for name, _ in network.named_parameters() if name.startswith("model.vision_tower.")
    }
    head = make_trainable(make_network(), settings(method=Method.FULL, parts=frozenset({Part.HEAD})))
    assert trained_names(head) == {"model.language_model.shared.weight"}


def test_matrices_decay_and_biases_do_not() -> None:
    network = make_trainable(make_network(), settings(method=Method.FULL))
    decaying, fixed = make_optimizer(network, settings(method=Method.FULL, weight_decay=0.3)).param_groups
    assert (decaying["weight_decay"], fixed["weight_decay"]) == (0.3, 0.0)
    assert {one.dim() for one in fixed["params"]} == {1}
    assert all(one.dim() > 1 for one in decaying["params"])


def test_came_comes_from_its_package() -> None:
    pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer isn't installed")
    optimizer = make_optimizer(
        make_trainable(make_network(), settings()), settings(optimizer=OptimizerName.CAME, lr=3e-6)
    )
    assert type(optimizer).__name__ == "CAME"
    assert {group["lr"] for group in optimizer.param_groups} == {3e-6}


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Schedule.CONSTANT, [0.0, 0.5, 1.0, 1.0, 1.0]),
        (Schedule.LINEAR, [0.0, 0.5, 1.0, 0.75, 0.5]),
        (Schedule.COSINE, [0.0, 0.5, 1.0, 0.853553, 0.5]),
        (Schedule.REX, [0.0, 0.5, 1.0, 0.857143, 0.666667]),
    ],
)
def test_the_rate_rises_and_falls(schedule: Schedule, expected: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    rates = make_schedule(optimizer, settings(schedule=schedule, warmup_steps=2), n_steps=6)
    seen = []
    for _ in expected:
        seen.append(rates.get_last_lr()[0])
        optimizer.step()
        rates.step()
    assert seen == pytest.approx(expected, abs=1e-6)


def test_rex_is_its_packages() -> None:
    rex = pytest.importorskip("pytorch_optimizer", reason="pytorch-optimizer isn't installed").REXScheduler
    theirs = rex(torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0), total_steps=10)
    # It makes its first step when it is made.
    for step in range(1, 10):
        assert rex_share(step, n_warmup=0, n_steps=10) == pytest.approx(theirs.step())


def test_each_process_has_its_own_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quantized base isn't moved any more once it is loaded."""
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert own_card(torch.device("cuda")) == torch.device("cuda:0")
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert own_card(torch.device("cuda:0")) == torch.device("cuda:3")


def test_quantization_is_passed_through() -> None:
    four, eight = quantization_config(Quantization.NF4), quantization_config(Quantization.INT8)
    assert (four.load_in_4bit, four.bnb_4bit_quant_type, four.load_in_8bit) == (True, "nf4", False)
    assert (eight.load_in_8bit, eight.load_in_4bit) == (True, False)
