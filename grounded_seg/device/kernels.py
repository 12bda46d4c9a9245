"""Kernels: in which of several ways the models' products are computed, chosen by what the processor has.

The ways give the same numbers up to rounding, at very different speed. Another way has other last bits, so the choice
is a record: it is made once, stands in `run.json`, and is handed to whoever loads the models for the same run.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

_ONEDNN_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest difference of oneDNN's results from torch's own on products near 1; other dtypes aren't sent there."""
SCORES_AT_A_TIME = {torch.float32: 1 << 20, torch.bfloat16: 1 << 22}
"""Scores in a block of blocked attention: 4 and 8 MB, which stay in the caches from product to product."""
_PERCEPTRONS = (("fc1", "activation_fn", "fc2"), ("lin1", "act", "lin2"), ("proj_in", "activation", "proj_out"))
"""Names of a linear layer, an activation and a linear layer, in Florence-2, Segment Anything and Segment Anything 2."""


class AttentionKernel(StrEnum):
    """How the image encoders attend."""

    FUSED = "fused"
    """torch's fused attention; in Segment Anything on queries and keys lengthened by the relative positions."""
    BLOCKED = "blocked"
    """Plain products, a block of scores at a time that stays in the caches."""


class LinearKernel(StrEnum):
    """How a linear layer of the image encoders is computed."""

    TORCH = "torch"
    """As torch does: in float32 on a CPU the bias is copied, then MKL adds the product."""
    ONEDNN = "onednn"
    """By oneDNN, the bias and a GELU within the product."""
    ONEDNN_GELU = "onednn-gelu"
    """By oneDNN only where a GELU follows, within the product."""


@dataclass(frozen=True)
class Kernels:
    """The ways that are chosen for one device and dtype."""

    processor: str
    """What they were chosen by: `amx`, `avx512-bf16`, torch's word for another CPU, or a GPU's `cuda`, `mps`."""
    attention: AttentionKernel
    """Of Segment Anything's image encoder, which has relative positions."""
    plain_attention: AttentionKernel
    """Where there are no relative positions: in Segment Anything 2, and in the windows of Florence-2."""
    linear: LinearKernel
    """Of the image encoders."""
    decoder: LinearKernel
    """Of Florence-2's decoder, whose products have few rows."""

    def compiled(self) -> "Kernels":
        """The ways of image encoders that go through torch.compile, which makes its own of torch's operators."""
        fused = AttentionKernel.FUSED
        return replace(self, attention=fused, plain_attention=fused, linear=LinearKernel.TORCH)


def choose_kernels(device: torch.device, dtype: torch.dtype) -> Kernels:
    """The fastest ways known for this device and dtype; by what it has, never by a measurement.

    Blocked attention is faster on a CPU in float32, and in bfloat16 without AMX, where torch's fused attention takes
    three quarters of the encoder's time. With AMX, and on a GPU, the fused one is. In float32 the fused one loses by
    the lengthening alone: where there are no relative positions it is kept.
    """
    fused, blocked = AttentionKernel
    if device.type != "cpu":
        return Kernels(device.type, fused, fused, LinearKernel.TORCH, LinearKernel.TORCH)
    processor = cpu_kind()
    plain = blocked if dtype is torch.bfloat16 and processor == "avx512-bf16" else fused
    linear = decoder = LinearKernel.TORCH
    if onednn_is_right(dtype):
        # In fewer bits torch's own linear layer is oneDNN's already; in float32, with AVX-512, it is MKL's.
        linear = LinearKernel.ONEDNN if (dtype, processor) == (torch.float32, "avx2") else LinearKernel.ONEDNN_GELU
        decoder = LinearKernel.ONEDNN if dtype is torch.float32 else LinearKernel.TORCH
    return Kernels(processor, blocked if dtype is torch.float32 else plain, plain, linear, decoder)


def kernels_of(given: Kernels | None, device: torch.device, dtype: torch.dtype, *, compiled: bool) -> Kernels:
    """The kernels of an encoder: those given or else chosen here, in ways that can be compiled where it is."""
    kernels = given or choose_kernels(device, dtype)
    return kernels.compiled() if compiled else kernels


def cpu_kind() -> str:
    """The instructions of this CPU that decide: `amx`, `avx512-bf16`, or torch's own word, such as `avx2`."""
    # torch has no public question for these before 2.10; these two have been there, unchanged, since 2.4.
    if torch.cpu._is_amx_tile_supported():
        return "amx"
    if torch.cpu._is_avx512_bf16_supported():
        return "avx512-bf16"
    return torch.backends.cpu.get_cpu_capability().lower()


def attend(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float, kernel: AttentionKernel
) -> torch.Tensor:
    """Attention without positions by this kernel, (batch, heads, queries, channels).

    Keys and values are (batch, heads, keys, channels); scores are products times `scale`. Where gradients are asked
    for it is torch's fused attention.
    """
    if kernel is AttentionKernel.FUSED or torch.is_grad_enabled():
        return F.scaled_dot_product_attention(queries, keys, values, scale=scale)
    flat, values = queries.flatten(0, 1) * scale, values.flatten(0, 1)
    keys = keys.flatten(0, 1).transpose(1, 2)
    attended = torch.empty_like(flat)
    for block in score_blocks(len(flat), flat.shape[1], keys.shape[2], flat.dtype):
        attended[block] = (flat[block] @ keys[block[0]]).softmax(dim=-1) @ values[block[0]]
    return torch.unflatten(attended, 0, queries.shape[:2])


def score_blocks(n_heads: int, n_queries: int, n_keys: int, dtype: torch.dtype) -> Iterator[tuple[slice, slice]]:
    """Heads and queries of blocks of `SCORES_AT_A_TIME`: several heads whole, or a part of one."""
    n_scores = SCORES_AT_A_TIME[dtype]
    heads_each, queries_each = max(1, n_scores // (n_queries * n_keys)), max(1, n_scores // n_keys)
    for head in range(0, n_heads, heads_each):
        for query in range(0, n_queries, queries_each):
            yield slice(head, head + heads_each), slice(query, query + queries_each)


def use_linear_kernel(encoder: nn.Module, kernel: LinearKernel) -> None:
    """Let the linear layers of an image encoder, and those that a GELU follows, be computed by this kernel.

    Weights, their names and the outputs stay, up to rounding. Where gradients are asked for, and where an adapter or a
    quantized layer stands in a layer's place, all is computed as before.
    """
    if kernel is LinearKernel.TORCH:
        return
    for module in encoder.modules():
        # Segment Anything 2's have an empty list of layers between.
        children = {name for name, child in module.named_children() if type(child) is not nn.ModuleList or len(child)}
        for names in _PERCEPTRONS:
            if children == set(names) and not getattr(module, "sigmoid_output", False):
                module.forward = partial(_perceptron, module, names)
        if kernel is LinearKernel.ONEDNN and type(module) is nn.Linear:
            module.forward = partial(_linear, module)  # type: ignore[method-assign]


def _perceptron(module: Any, names: tuple[str, str, str], values: torch.Tensor) -> torch.Tensor:
    """The `forward` of two linear layers with an activation between."""
    first, activation, second = (getattr(module, name) for name in names)
    values = _as_autocast_has_it(first, values)
    if _is_gelu(activation) and _suits_onednn(first, values):
        result: torch.Tensor = second(_onednn(values, first.weight, first.bias, with_gelu=True))
    else:
        result = type(module).forward(module, values)
    return result


def _linear(layer: nn.Linear, values: torch.Tensor) -> torch.Tensor:
    """The `forward` of a linear layer."""
    values = _as_autocast_has_it(layer, values)
    if _suits_onednn(layer, values):
        return _onednn(values, layer.weight, layer.bias, with_gelu=False)
    return F.linear(values, layer.weight, layer.bias)


def _is_gelu(activation: Any) -> bool:
    """Whether this is the exact GELU, of torch or of transformers, and not one of its approximations."""
    if isinstance(activation, nn.GELU):
        return activation.approximate == "none"
    return getattr(activation, "act", activation) is F.gelu


def _as_autocast_has_it(layer: Any, values: torch.Tensor) -> torch.Tensor:
    """Values in the dtype of weights that are in autocast's already; autocast itself doesn't see oneDNN's products."""
    if type(layer) is nn.Linear and torch.is_autocast_enabled(values.device.type):
        dtype = torch.get_autocast_dtype(values.device.type)
        return values.to(dtype) if layer.weight.dtype is dtype else values
    return values


def _suits_onednn(layer: Any, values: torch.Tensor) -> bool:
    """Whether a layer's product can go to oneDNN here and now: outside of training and other dtypes."""
    if type(layer) is not nn.Linear or values.device.type != "cpu" or values.dtype is not layer.weight.dtype:
        return False
    if torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is not values.dtype:
        return False
    if torch.is_grad_enabled():
        return False
    # The model may have been moved to another dtype since the kernel was chosen.
    return onednn_is_right(values.dtype)


def _onednn(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *, with_gelu: bool) -> torch.Tensor:
    """A linear layer, and the GELU behind it, by the operator to which torch's own compiler sends them."""
    operator = torch.ops.mkldnn._linear_pointwise
    result: torch.Tensor = operator(values, weight, bias, "gelu" if with_gelu else "none", [], "none")
    return result


@cache
@torch.inference_mode()
def onednn_is_right(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the operator, which isn't public, and it computes what torch does."""
    tolerance = _ONEDNN_TOLERANCE.get(dtype)
    if tolerance is None or not (
        torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    ):
        return False
    # Numbers without a generator, whose state belongs to others.
    values, weight = (torch.linspace(-1, 1, 64 * n).sin().mul(0.25).view(n, 64).to(dtype) for n in (32, 48))
    bias = torch.linspace(-1, 1, 48).to(dtype)
    plain = F.linear(values, weight, bias)
    try:
        found = [_onednn(values, weight, bias, with_gelu=with_gelu) for with_gelu in (False, True)]
    except RuntimeError:
        # A processor or build for which oneDNN has no such product, in this dtype.
        return False
    expected = (plain, F.gelu(plain))
    return all(float((a - b).abs().max()) <= tolerance for a, b in zip(found, expected, strict=True))
