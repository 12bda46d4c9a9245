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
from grounded_seg.device.kernels import (
    AttentionKernel,
    Kernels,
    LinearKernel,
    attend,
    choose_kernels,
    use_linear_kernel,
)

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
FLOAT32, BFLOAT16, FLOAT16 = torch.float32, torch.bfloat16, torch.float16
FUSED, BLOCKED = AttentionKernel
TORCH, ONEDNN, ONEDNN_GELU = LinearKernel
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
        ({"amx": True, "bf16": True}, CPU, BFLOAT16, Kernels("amx", FUSED, FUSED, ONEDNN_GELU, TORCH)),
        ({"amx": True, "bf16": True}, CPU, FLOAT32, Kernels("amx", BLOCKED, FUSED, ONEDNN_GELU, ONEDNN)),
        ({"bf16": True}, CPU, BFLOAT16, Kernels("avx512-bf16", BLOCKED, BLOCKED, ONEDNN_GELU, TORCH)),
        ({"bf16": True}, CPU, FLOAT16, Kernels("avx512-bf16", FUSED, FUSED, TORCH, TORCH)),
        ({"bf16": True}, CPU, FLOAT32, Kernels("avx512-bf16", BLOCKED, FUSED, ONEDNN_GELU, ONEDNN)),
        ({"vectors": "AVX2"}, CPU, FLOAT32, Kernels("avx2", BLOCKED, FUSED, ONEDNN, ONEDNN)),
        ({"vectors": "AVX2"}, CPU, BFLOAT16, Kernels("avx2", FUSED, FUSED, ONEDNN_GELU, TORCH)),
        ({"bf16": True}, CUDA, BFLOAT16, Kernels("cuda", FUSED, FUSED, TORCH, TORCH)),
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
    # An image encoder that is compiled is made of torch's operators; the decoder never is.
    compiled = Kernels(found.processor, FUSED, FUSED, TORCH, found.decoder)
    assert found.compiled() == kernels_module.kernels_of(None, device, dtype, compiled=True) == compiled
    assert kernels_module.kernels_of(found, device, dtype, compiled=False) is found


@pytest.mark.parametrize("at_a_time", [1, 40, 300, 10**6])
@pytest.mark.parametrize("n_queries", [5, 20])
@torch.inference_mode()
def test_blocks_attend_as_the_fused_attention(n_queries: int, at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (FLOAT32, BFLOAT16):
        monkeypatch.setitem(kernels_module.SCORES_AT_A_TIME, dtype, at_a_time)
    draw = torch.Generator().manual_seed(1)
    queries, keys, values = (torch.randn(2, 3, n, 8, generator=draw) for n in (n_queries, 20, 20))
    exact = attend(queries, keys, values, 0.3, FUSED)
    torch.testing.assert_close(attend(queries, keys, values, 0.3, BLOCKED), exact, rtol=0, atol=1e-5)
    half = queries.bfloat16(), keys.bfloat16(), values.bfloat16()
    scores = half[0] * 0.3 @ half[1].transpose(2, 3)
    own = float((scores.softmax(dim=-1) @ half[2] - exact).abs().mean())
    off = float((attend(*half, 0.3, BLOCKED).float() - exact).abs().mean())
    # As plain products in bfloat16 round, and no more.
    assert 0 < off <= 1.1 * own


def test_gradients_go_through_the_fused_attention() -> None:
    queries, keys, values = (torch.randn(1, 2, 6, 4) for _ in range(3))
    weights = torch.ones(1, requires_grad=True)
    found = attend(queries * weights, keys, values, 0.5, BLOCKED)
    assert torch.equal(found, attend(queries, keys, values, 0.5, FUSED))
    found.sum().backward()
    assert weights.grad is not None


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
