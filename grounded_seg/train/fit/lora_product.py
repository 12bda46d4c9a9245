"""LoRA layers that train faster than peft's own; their numbers differ in the last bits only.

peft computes the layer's output and the adapter's, and adds both. That takes two small products, a scaled copy and a
sum, in the forward pass and again in the backward pass: a quarter of a step's time, for a hundredth of its arithmetic.
"""

from functools import partial
from typing import Any

import torch
from peft.tuners.lora.layer import Linear
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


def use_lora_products(model: nn.Module) -> None:
    """Let the plain LoRA layers of a model of peft compute with `LoraProduct`, where activations are float32.

    Other layers, such as DoRA's and quantized ones, stay as they are. So do all weights and their names.
    """
    for module in model.modules():
        # Quantized layers are subclasses.
        if type(module) is Linear and type(module.base_layer) is nn.Linear:
            module.forward = partial(_forward, module)


def _forward(layer: Linear, x: torch.Tensor) -> torch.Tensor:
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    is_half = x.dtype is not torch.float32 or torch.is_autocast_enabled(x.device.type)
    is_plain = not (is_half or layer.merged or layer.disable_adapters or layer.base_layer.weight.requires_grad)
    if not is_plain or len(active) != 1 or active[0] in layer.lora_variant:
        result: torch.Tensor = type(layer).forward(layer, x)
        return result
    [name] = active
    base, dropout = layer.base_layer, layer.lora_dropout[name]
    dropped = dropout(x) if isinstance(dropout, nn.Dropout) and dropout.training and dropout.p else None
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    product: torch.Tensor = LoraProduct.apply(x, dropped, base.weight, base.bias, a, b, layer.scaling[name])
    return product


class LoraProduct(torch.autograd.Function):
    """The output of a linear layer with a LoRA adapter: `x W^T + bias + scaling * dropped A^T B^T`.

    Weight W and bias are frozen; `dropped` is x after dropout. Without dropout the adapter is merged into W for this
    call, `x (W + scaling * B A)^T + bias`, where that is less work.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        dropped: torch.Tensor | None,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        """The output (..., n_out) for x (..., n_in), weight (n_out, n_in), a (rank, n_in) and b (n_out, rank).

        `dropped` is None without dropout.
        """
        n_out, n_in = weight.shape
        ctx.scaling = scaling
        # Merging spares passes over the activations, and costs two passes over the weight, forward and backward.
        ctx.merges = dropped is None and x.numel() // n_in * (n_in + n_out) > 2 * n_in * n_out
        if ctx.merges:
            ctx.save_for_backward(x, weight, a, b)
            return functional.linear(x, torch.addmm(weight, b, a, alpha=scaling), bias)
        inputs = x if dropped is None else dropped
        low = functional.linear(inputs, a)
        ctx.has_dropout = dropped is not None
        ctx.save_for_backward(inputs, weight, a, b, low)
        out = functional.linear(x, weight, bias)
        out.view(-1, n_out).addmm_(low.view(-1, low.shape[-1]), b.t(), alpha=scaling)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Gradients of x, of `dropped`, of a and of b."""
        inputs, weight, a, b, *more = ctx.saved_tensors
        of_out, rows = grad.reshape(-1, grad.shape[-1]), inputs.reshape(-1, inputs.shape[-1])
        low = more[0].view(-1, a.shape[0]) if more else rows @ a.t()
        of_low = (of_out @ b).mul_(ctx.scaling)
        of_a, of_b = of_low.t() @ rows, (of_out.t() @ low).mul_(ctx.scaling)
        of_x = of_dropped = None
        if ctx.merges:
            if ctx.needs_input_grad[0]:
                of_x = of_out @ torch.addmm(weight, b, a, alpha=ctx.scaling)
        elif ctx.has_dropout:
            of_x = of_out @ weight if ctx.needs_input_grad[0] else None
            of_dropped = of_low @ a if ctx.needs_input_grad[1] else None
        elif ctx.needs_input_grad[0]:
            of_x = (of_out @ weight).addmm_(of_low, a)
        shaped = [None if one is None else one.view(inputs.shape) for one in (of_x, of_dropped)]
        return (*shaped, None, None, of_a, of_b, None)
