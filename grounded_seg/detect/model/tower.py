"""Florence-2's vision tower in one memory layout and with the kernels that were chosen, with the same numbers.

The tower's stream is token-major, channels last. Its depthwise convolutions answer in the layout of their weights: as
transformers loads them, channels first, every sum and norm mixes two layouts, which takes longer than the arithmetic.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from transformers.models.florence2.modeling_florence2 import (
    Florence2VisionChannelAttention,
    Florence2VisionWindowAttention,
)

from grounded_seg.device.kernels import AttentionKernel, Kernels, attend, use_linear_kernel

_WHOLE_UP_TO = 4
"""Groups of channels up to which one product over all channels is faster than one for each group."""


def use_one_layout(tower: nn.Module) -> None:
    """Lay out a tower's convolutions channels last, and let its channels attend by plain products.

    Weights, their names and the outputs stay the same, but for last bits; gradients flow as before.
    """
    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            # `contiguous` would leave depthwise weights as they are.
            module.to(memory_format=torch.channels_last)
        elif isinstance(module, Florence2VisionChannelAttention):
            module.forward = partial(channel_attention, module)


def use_kernels(tower: nn.Module, kernels: Kernels) -> None:
    """Let a tower's linear layers and windows be computed in the ways that were chosen, up to rounding."""
    use_linear_kernel(tower, kernels.linear)
    if kernels.plain_attention is AttentionKernel.BLOCKED:
        for module in tower.modules():
            if isinstance(module, Florence2VisionWindowAttention):
                module.forward = partial(window_attention, module)


def window_attention(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The `forward` of a window attention by blocks, (batch, height, width, channels) to (batch, tokens, channels).

    The tokens of each window attend to each other; beyond the right and lower edge windows are filled with zeros.
    """
    batch, height, width, n_channels = tokens.shape
    side = attention.window_size
    padded = F.pad(tokens, (0, 0, 0, -width % side, 0, -height % side))
    n_rows, n_columns = (n // side for n in padded.shape[1:3])
    on_grid = padded.view(batch, n_rows, side, n_columns, side, n_channels)
    windows = on_grid.transpose(2, 3).reshape(-1, side * side, n_channels)
    qkv = torch.unflatten(attention.qkv(windows), 2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = qkv.unbind(0)
    attended = attend(queries, keys, values, attention.scale, AttentionKernel.BLOCKED)
    projected: torch.Tensor = attention.proj(attended.transpose(1, 2).flatten(2))
    placed = projected.view(batch, n_rows, n_columns, side, side, n_channels).transpose(2, 3)
    whole = placed.reshape(batch, n_rows * side, n_columns * side, n_channels)
    return whole[:, :height, :width].reshape(batch, height * width, n_channels)


def channel_attention(attention: Any, tokens: torch.Tensor) -> torch.Tensor:
    """The `forward` of a channel attention, (batch, tokens, channels): channels attend to those of their group.

    Scores are tiny, groups of 32 x 32, and sums over thousands of tokens, for which fused attention isn't made. Their
    softmax is in float32, as within fused attention.
    """
    n_tokens, n_channels = tokens.shape[1:]
    scale = n_tokens**-0.5
    qkv = attention.qkv(tokens)
    if attention.groups <= _WHOLE_UP_TO:
        queries, keys, values = qkv.chunk(3, dim=-1)
        # Scaled before the sum, which float16 couldn't hold.
        scores = ((queries * scale).transpose(1, 2) @ keys).float()
        group = torch.arange(n_channels, device=tokens.device) // (n_channels // attention.groups)
        weights = scores.masked_fill(group[:, None] != group, -torch.inf).softmax(dim=-1)
        attended = values @ weights.to(values.dtype).transpose(1, 2)
    else:
        grouped = torch.unflatten(qkv, 2, (3, attention.groups, -1)).permute(2, 0, 3, 1, 4)
        queries, keys, values = grouped.contiguous().unbind(0)
        weights = ((queries * scale).transpose(2, 3) @ keys).float().softmax(dim=-1)
        attended = (values @ weights.to(values.dtype).transpose(2, 3)).transpose(1, 2).flatten(2)
    projected: torch.Tensor = attention.proj(attended)
    return projected
