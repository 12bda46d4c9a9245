"""What the decoder attends to of each question."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from grounded_seg.detect.decoding.weight_order import Product, keys_and_values


class KeysValues:
    """Keys and values of the encoder's states, made once for each question."""

    def __init__(self, decoder: Any, n_rows: int, n_encoded: int, like: torch.Tensor) -> None:
        self._attentions = [layer.encoder_attn for layer in decoder.layers]
        self._project = Product(*keys_and_values(decoder.layers))
        self._queries, self._out = products_of(self._attentions)
        one = self._attentions[0]
        self._memory = like.new_zeros(len(self._attentions), 2, n_rows, one.num_heads, n_encoded, one.head_dim)

    def put(self, rows: slice, encoded: torch.Tensor) -> None:
        """Take encoder states (n, states, width) in for these rows."""
        made = self._project.parts(encoded.flatten(0, 1))
        for memory, one in zip(self._memory.flatten(0, 1), made, strict=True):
            memory[rows, :, : encoded.shape[1]] = by_head(self._attentions[0], one, len(encoded))

    def move(self, source: int, target: int) -> None:
        """Copy what one row has over another's."""
        self._memory[:, :, target] = self._memory[:, :, source]

    def attend(self, index: int, rows: slice, states: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """What a layer adds to states (n t, width), of t tokens for each of n rows; `added` is added to the scores."""
        attention = self._attentions[index]
        keys, values = self._memory[index, :, rows].unbind(0)
        queries = by_head(attention, self._queries[index](states), len(keys))
        found = F.scaled_dot_product_attention(queries, keys, values, added, scale=attention.scaling)
        return self._out[index](found.transpose(1, 2).reshape(states.shape))


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
        self._queries, self._out = products_of(self._attentions)
        self._memory = like.new_zeros(n_rows, 1, n_encoded, len(like))

    def put(self, rows: slice, encoded: torch.Tensor) -> None:
        """Take encoder states (n, states, width) in for these rows."""
        self._memory[rows, 0, : encoded.shape[1]] = encoded

    def move(self, source: int, target: int) -> None:
        """Copy what one row has over another's."""
        self._memory[target] = self._memory[source]

    def attend(self, index: int, rows: slice, states: torch.Tensor, added: torch.Tensor) -> torch.Tensor:
        """What a layer adds to states (n t, width), of t tokens for each of n rows; `added` is added to the scores."""
        attention = self._attentions[index]
        memory = self._memory[rows]
        n_heads, n, (n_states, width) = attention.num_heads, len(memory), states.shape
        key_rows, value_rows = (
            torch.unflatten(one.weight, 0, (n_heads, -1)) for one in (attention.k_proj, attention.v_proj)
        )
        queries = self._queries[index](states).view(n_states, n_heads, -1).transpose(0, 1)
        # (heads, n t, width), then all heads of a row beside each other, as if they were tokens.
        queries = (queries @ key_rows).view(n_heads, n, -1, width).transpose(0, 1).reshape(n, 1, -1, width)
        found = F.scaled_dot_product_attention(queries, memory, memory, added, scale=attention.scaling)
        by_head = found.view(n, n_heads, -1, width).transpose(0, 1).reshape(n_heads, n_states, width)
        values = (by_head @ value_rows.transpose(1, 2)).transpose(0, 1).reshape(n_states, width)
        return self._out[index](values + attention.v_proj.bias)


def encoded_memory(decoder: Any, n_rows: int, n_encoded: int, like: torch.Tensor) -> KeysValues | States:
    """What is faster: `States` for some rows in float32 on a CPU, where no adapter is beside the weights."""
    is_plain = all(type(one) is nn.Linear for one in keys_and_values(decoder.layers))
    suits = n_rows > 1 and like.device.type == "cpu" and like.dtype is torch.float32 and is_plain
    return (States if suits else KeysValues)(decoder, n_rows, n_encoded, like)


def products_of(attentions: Sequence[Any]) -> tuple[list[Product], list[Product]]:
    """The products of queries and of results of each layer's attention."""
    return [Product(one.q_proj) for one in attentions], [Product(one.out_proj) for one in attentions]


def by_head(attention: Any, projected: torch.Tensor, n_rows: int) -> torch.Tensor:
    """(rows tokens, width) as (rows, heads, tokens, channels)."""
    return projected.reshape(n_rows, -1, attention.num_heads, attention.head_dim).transpose(1, 2)
