"""Florence-2's vision tower in one memory layout, with the same numbers.

The tower's stream is token-major, channels last. Its depthwise convolutions answer in the layout of their weights: as
transformers loads them, channels first, every sum and norm mixes two layouts, which takes longer than the arithmetic.
"""

from functools import partial
from typing import Any

import torch
from torch import nn
from transformers.models.florence2.modeling_florence2 import Florence2VisionChannelAttention

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
