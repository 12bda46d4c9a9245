"""What the decoder attends to of each question, and its products of few rows."""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from grounded_seg.device.kernels import onednn_is_right


class KeysValues:
    """Keys and values of the encoder's states, made once for each question."""

    def __init__(self, decoder: Any, n_rows: int, n_encoded: int, like: torch.Tensor) -> None:
        self._attentions = [layer.encoder_attn for layer in decoder.layers]
        one = self._attentions[0]
        self._memory = like.new_zeros(len(self._attentions), 2, n_rows, one.num_heads, n_encoded, one.head_dim)

    def put(self, rows: slice, encoded: torch.Tensor) -> None:
        """Take encoder states (n, states, width) in for these rows."""
        for memory, attention in zip(self._memory, self._attentions, strict=True):
            for place, project in enumerate((attention.k_proj, attention.v_proj)):
                memory[place, rows, :, : encoded.shape[1]] = by_head(attention, project(encoded))

    def move(self, source: int, target: int) -> None:
        """Copy what one row has over another's."""
        self._memory[:, :, target] = self._memory[:, :, source]

    def attend(self, index: int, rows: slice, states: torch.Tensor, is_state: torch.Tensor) -> torch.Tensor:
        """What a layer adds to states (n, t, width)."""
        attention = self._attentions[index]
        keys, values = self._memory[index, :, rows].unbind(0)
        queries = by_head(attention, linear(attention.q_proj, states))
        found = F.scaled_dot_product_attention(queries, keys, values, is_state, scale=attention.scaling)
        return linear(attention.out_proj, found.transpose(1, 2).flatten(2))


class States:
    """The encoder's states, kept once for all layers and heads instead of each layer's keys and values.

    A head's score of a query q for a state e is q · (Wk e), and its result is the sum of p (Wv e) over all states, with
    p from the softmax. The same numbers are (q Wk) · e, and Wv times the sum of p e. So only the query and the sum are
    multiplied by weights, and no keys or values are made: with few queries and many states that is less arithmetic. The
    memory holds one tensor, where keys and values are two for each layer. The bias of the keys adds the same to all
    scores of a query, which the softmax drops.
    """

    def __init__(self, decoder: Any, n_rows: int, n_encoded: int, like: torch.Tensor) -> None:
        self._attentions = [layer.encoder_attn for layer in decoder.layers]
        self._memory = like.new_zeros(n_rows, 1, n_encoded, len(like))

    def put(self, rows: slice, encoded: torch.Tensor) -> None:
        """Take encoder states (n, states, width) in for these rows."""
        self._memory[rows, 0, : encoded.shape[1]] = encoded

    def move(self, source: int, target: int) -> None:
        """Copy what one row has over another's."""
        self._memory[target] = self._memory[source]

    def attend(self, index: int, rows: slice, states: torch.Tensor, is_state: torch.Tensor) -> torch.Tensor:
        """What a layer adds to states (n, t, width)."""
        attention = self._attentions[index]
        n_heads, (n, t, width) = attention.num_heads, states.shape
        key_rows, value_rows = (
            torch.unflatten(one.weight, 0, (n_heads, -1)) for one in (attention.k_proj, attention.v_proj)
        )
        queries = linear(attention.q_proj, states).view(n * t, n_heads, -1).transpose(0, 1)
        # (heads, n t, width), then all heads of a row beside each other, as if they were tokens.
        queries = (queries @ key_rows).view(n_heads, n, t, width).transpose(0, 1).reshape(n, 1, n_heads * t, width)
        memory = self._memory[rows]
        found = F.scaled_dot_product_attention(queries, memory, memory, is_state, scale=attention.scaling)
        by_head = found.view(n, n_heads, t, width).transpose(0, 1).reshape(n_heads, n * t, width)
        values = (by_head @ value_rows.transpose(1, 2)).transpose(0, 1).reshape(n, t, width)
        return linear(attention.out_proj, values + attention.v_proj.bias)


def encoded_memory(decoder: Any, n_rows: int, n_encoded: int, like: torch.Tensor) -> KeysValues | States:
    """What is faster: `States` for some rows in float32 on a CPU, where no adapter is beside the weights."""
    projections = [p for layer in decoder.layers for p in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]
    is_plain = all(type(one) is nn.Linear for one in projections)
    suits = n_rows > 1 and like.device.type == "cpu" and like.dtype is torch.float32 and is_plain
    return (States if suits else KeysValues)(decoder, n_rows, n_encoded, like)


def linear(module: Any, states: torch.Tensor) -> torch.Tensor:
    """What a linear layer makes of few states, (..., width).

    On a CPU torch's product of a few rows in float32 reads the weights at half the speed that oneDNN's does.
    """
    if (
        type(module) is nn.Linear
        and states.dtype is torch.float32
        and states.device.type == "cpu"
        and onednn_is_right(torch.float32)
        and not torch.is_autocast_enabled("cpu")
    ):
        operator = torch.ops.mkldnn._linear_pointwise
        product: torch.Tensor = operator(states, module.weight, module.bias, "none", [], "none")
        return product
    result: torch.Tensor = module(states)
    return result


def by_head(attention: Any, projected: torch.Tensor) -> torch.Tensor:
    """(rows, tokens, width) as (rows, heads, tokens, channels)."""
    return torch.unflatten(projected, 2, (attention.num_heads, -1)).transpose(1, 2)
