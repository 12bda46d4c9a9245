"""LoRA layers with fewer products: peft's numbers, forward and backward."""

from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from grounded_seg.train.fit.lora_product import LoraProduct, use_lora_products


def adapted(**more: Any) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32, bias=False))
    model = get_peft_model(network, LoraConfig(r=4, lora_alpha=6, target_modules=["0", "2"], **more))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    return model.train()


def answer_and_gradients(model: nn.Module, n_rows: int) -> list[torch.Tensor]:
    torch.manual_seed(1)
    x = torch.randn(2, n_rows, 32).requires_grad_()
    model.zero_grad()
    answer = model(x)
    (answer * torch.linspace(-1, 1, answer.numel()).view(answer.shape)).sum().backward()
    gradients = [one.grad for one in model.parameters() if one.requires_grad]
    return [answer.detach(), x.grad, *gradients]  # type: ignore[list-item]


@pytest.mark.parametrize("n_rows", [3, 400])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_answers_and_gradients_are_pefts(n_rows: int, dropout: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With few rows the adapter is added, with many it is merged for the moment; with dropout never."""
    model = adapted(lora_dropout=dropout)
    expected = answer_and_gradients(model, n_rows)
    use_lora_products(model)
    n_calls, apply = [], LoraProduct.apply

    def count(*inputs: Any) -> Any:
        n_calls.append(len(inputs))
        return apply(*inputs)

    monkeypatch.setattr(LoraProduct, "apply", count)
    found = answer_and_gradients(model, n_rows)
    assert len(n_calls) == 2
    assert len(found) == 6
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-5 * float(other.abs().max()))


def test_a_layer_of_another_kind_stays_pefts(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise AssertionError("not for these")

    monkeypatch.setattr(LoraProduct, "apply", refuse)
    dora, half = adapted(use_dora=True), adapted()
    for model in (dora, half):
        use_lora_products(model)
    answer_and_gradients(dora, 3)
    with torch.autocast("cpu", torch.bfloat16):
        answer_and_gradients(half, 3)
    with half.disable_adapter():  # type: ignore[operator]
        half(torch.ones(1, 32))
