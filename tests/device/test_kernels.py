"""Which kernels are chosen where, and that they compute what torch's own layers do."""

import copy
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.activations import ACT2FN

from grounded_seg.device import kernels as kernels_module
from grounded_seg.device.kernels import AttentionKernel, Kernels, LinearKernel, choose_kernels, use_linear_kernel

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
FUSED, BLOCKED = AttentionKernel
has_onednn = pytest.mark.skipif(
    not kernels_module.onednn_is_right(FLOAT32), reason="this build of torch has no linear layers of oneDNN"
)


def pretend(monkeypatch: pytest.MonkeyPatch, *, amx: bool = False, bf16: bool = False, vectors: str = "AVX512") -> None:
    """Stand on another processor, whose oneDNN can do all."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: bf16)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    monkeypatch.setattr(kernels_module, "onednn_is_right", lambda dtype: dtype is not FLOAT16)


@pytest.mark.parametrize(
    ("machine", "device", "dtype", "expected"),
    [
        ({"amx": True, "bf16": True}, CPU, BFLOAT16, Kernels("amx", FUSED, LinearKernel.ONEDNN_GELU)),
        ({"amx": True, "bf16": True}, CPU, FLOAT32, Kernels("amx", BLOCKED, LinearKernel.ONEDNN_GELU)),
        ({"bf16": True}, CPU, BFLOAT16, Kernels("avx512-bf16", BLOCKED, LinearKernel.ONEDNN_GELU)),
        ({"bf16": True}, CPU, FLOAT16, Kernels("avx512-bf16", FUSED, LinearKernel.TORCH)),
        ({"bf16": True}, CPU, FLOAT32, Kernels("avx512-bf16", BLOCKED, LinearKernel.ONEDNN_GELU)),
        ({"vectors": "AVX2"}, CPU, FLOAT32, Kernels("avx2", BLOCKED, LinearKernel.ONEDNN)),
        ({"vectors": "AVX2"}, CPU, BFLOAT16, Kernels("avx2", FUSED, LinearKernel.ONEDNN_GELU)),
        ({"bf16": True}, CUDA, BFLOAT16, Kernels("cuda", FUSED, LinearKernel.TORCH)),
    ],
)
def test_the_choice_follows_the_processor(
    machine: dict[str, Any],
    device: torch.device,
    dtype: torch.dtype,
    expected: Kernels,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, **machine)
    found = choose_kernels(device, dtype)
    assert found == expected
    assert pickle.loads(pickle.dumps(found)) == found  # noqa: S301


class Perceptron(nn.Module):
    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc1, self.activation_fn, self.fc2 = nn.Linear(24, 96), activation, nn.Linear(96, 24)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.activation_fn(self.fc1(values)))


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What goes to oneDNN: for each product, whether with a GELU."""
    products: list[bool] = []
    original = kernels_module._onednn

    def watched(*given: Any, with_gelu: bool) -> torch.Tensor:
        products.append(with_gelu)
        return original(*given, with_gelu=with_gelu)

    monkeypatch.setattr(kernels_module, "_onednn", watched)
    return products


@has_onednn
@pytest.mark.parametrize(
    ("activation", "kernel", "expected"),
    [
        (nn.GELU(), LinearKernel.ONEDNN, [True, False]),
        (nn.GELU(), LinearKernel.ONEDNN_GELU, [True]),
        (nn.GELU(), LinearKernel.TORCH, []),
        (ACT2FN["gelu"], LinearKernel.ONEDNN_GELU, [True]),
        (nn.GELU(approximate="tanh"), LinearKernel.ONEDNN_GELU, []),
        (ACT2FN["gelu_new"], LinearKernel.ONEDNN_GELU, []),
        (nn.ReLU(), LinearKernel.ONEDNN, [False, False]),
    ],
)
def test_only_an_exact_gelu_goes_with_its_product(
    activation: nn.Module, kernel: LinearKernel, expected: list[bool], sent: list[bool]
) -> None:
    plain = Perceptron(activation)
    ours, values = copy.deepcopy(plain), torch.randn(2, 5, 24)
    use_linear_kernel(ours, kernel)
    with torch.inference_mode():
        torch.testing.assert_close(ours(values), plain(values), rtol=1e-5, atol=1e-5)
    assert sent == expected
    assert ours.state_dict().keys() == plain.state_dict().keys()


@has_onednn
def test_training_and_autocast_are_left_alone(sent: list[bool]) -> None:
    ours, values = Perceptron(nn.GELU()), torch.randn(2, 24)
    use_linear_kernel(ours, LinearKernel.ONEDNN)
    ours(values).sum().backward()
    assert all(weights.grad is not None for weights in ours.parameters())
    with torch.no_grad(), torch.autocast("cpu", dtype=BFLOAT16):
        assert ours(values).dtype is BFLOAT16
    assert sent == []
    if kernels_module.onednn_is_right(BFLOAT16):
        # What is in autocast's dtype already, as in a frozen encoder, is sent.
        with torch.no_grad(), torch.autocast("cpu", dtype=BFLOAT16):
            assert ours.bfloat16()(values.bfloat16()).dtype is BFLOAT16
        assert sent != []


@has_onednn
def test_a_layer_in_anothers_place_is_asked_as_before(sent: list[bool]) -> None:
    class Adapted(nn.Module):
        def __init__(self, layer: nn.Linear) -> None:
            super().__init__()
            self.base = layer

        def forward(self, values: torch.Tensor) -> torch.Tensor:
            return self.base(values) + 1.0

    ours, values = Perceptron(nn.GELU()), torch.randn(2, 24)
    use_linear_kernel(ours, LinearKernel.ONEDNN_GELU)
    ours.fc1 = Adapted(ours.fc1)
    with torch.inference_mode():
        torch.testing.assert_close(ours(values), ours.fc2(F.gelu(ours.fc1.base(values) + 1.0)))
    assert sent == []


@has_onednn
def test_a_copy_has_weights_of_its_own() -> None:
    ours = Perceptron(nn.GELU())
    use_linear_kernel(ours, LinearKernel.ONEDNN)
    other = copy.deepcopy(ours)
    with torch.inference_mode():
        for weights in other.parameters():
            weights.zero_()
        assert not other(torch.ones(1, 24)).any()
        assert ours(torch.ones(1, 24)).any()


@pytest.mark.parametrize("fault", ["missing", "raises", "wrong"])
def test_an_operator_that_isnt_public_is_used_only_where_it_is_right(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def raising(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("no such product")

    def wrong(values: torch.Tensor, weight: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return torch.zeros(len(values), len(weight))

    if fault == "missing":
        monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    else:
        monkeypatch.setattr(kernels_module, "_onednn", raising if fault == "raises" else wrong)
    # Without what this process found out before.
    monkeypatch.setattr(kernels_module, "onednn_is_right", kernels_module.onednn_is_right.__wrapped__)
    assert choose_kernels(CPU, FLOAT32).linear is LinearKernel.TORCH
