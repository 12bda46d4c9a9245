"""Products of the decoder's step, and its weights in the order in memory that they read fastest.

A step multiplies one row, or a few, by each weight once: it takes as long as reading the weights. torch keeps a weight
(out, in) output by output, 3 KB each with a width of 768, and a processor fetches ahead only within longer pieces:
input by input, a piece is as long as there are outputs. Measured with a row of 768 on two cores with AVX2, in GB/s, on
the same machine a large sum reads at 17: the head 8.4 and 13.7, the first layer of a perceptron 7.5 and 10.3, three
projections of one attention 6.1, and 13.2 as one product. The second layer of a perceptron has long pieces as it is.
Keys and values of a whole image have many rows: there it is the one large product that is faster than twelve, 69 ms
and 94.

Shapes, values and names stay, so all else that is done with the weights works as before; nothing is held twice.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from grounded_seg.device.kernels import onednn_is_right

_OUTPUTS_AT_A_TIME = 256


class Product:
    """A linear layer for few states, or several layers as one where `put_in_order` laid them beside each other.

    Made for one call: it keeps the weights as they are now.
    """

    def __init__(self, *layers: Any) -> None:
        joined = _joined(layers)
        self._layers = layers
        self._weight: torch.Tensor | None = None
        self._bias: torch.Tensor | None = None
        if joined is not None:
            self._weight, self._bias = joined
        self._by_input = None if self._weight is None or self._weight.stride(0) != 1 else self._weight.t()

    def __call__(self, states: torch.Tensor) -> torch.Tensor:
        """What the layer makes of states (n, width); several as one have their outputs beside each other."""
        if self._weight is None:
            [layer] = self._layers
            made: torch.Tensor = layer(states)
            return made
        if self._by_input is not None and len(states) == 1:
            # oneDNN is slower for one row in this order, and faster for more, whatever the order.
            return states @ self._by_input if self._bias is None else torch.addmm(self._bias, states, self._by_input)
        operator = torch.ops.mkldnn._linear_pointwise
        product: torch.Tensor = operator(states, self._weight, self._bias, "none", [], "none")
        return product

    def parts(self, states: torch.Tensor) -> Iterator[torch.Tensor]:
        """What each layer makes of states (n, width), one after the other where they aren't one product."""
        if self._weight is None:
            return (Product(one)(states) for one in self._layers)
        return iter(torch.split(self(states), [one.out_features for one in self._layers], dim=-1))


@torch.no_grad()
def put_in_order(network: Any) -> None:
    """Put the decoder's weights in that order, in place: in float32 on a CPU; elsewhere nothing changes.

    Layers that have an adapter beside their weights are left as they are. The head's weights are those of the word
    embeddings too, of which few rows are read.
    """
    layers = network.model.language_model.decoder.layers
    for layer in layers:
        own, of_image = layer.self_attn, layer.encoder_attn
        _lay_together((own.q_proj, own.k_proj, own.v_proj), by_input=True)
        for one in (own.out_proj, of_image.q_proj, of_image.out_proj, layer.fc1):
            _lay_together((one,), by_input=True)
    _lay_together(keys_and_values(layers), by_input=False)
    _lay_together((network.lm_head,), by_input=True)


def keys_and_values(layers: Sequence[Any]) -> list[Any]:
    """The projections of keys, then of values, of what each layer attends to in the encoder's states."""
    return [one for layer in layers for one in (layer.encoder_attn.k_proj, layer.encoder_attn.v_proj)]


def _lay_together(layers: Sequence[Any], *, by_input: bool) -> None:
    """Move the weights of layers of the same input into one piece of memory, input by input or one after the other."""
    if not all(_suits(one) for one in layers):
        return
    sizes = [one.out_features for one in layers]
    given = [one.weight for one in layers]
    weights = _by_input(given) if by_input else torch.cat(given)
    biases = [one.bias for one in layers if one.bias is not None]
    if len(biases) == len(layers):
        for one, bias in zip(layers, torch.split(torch.cat(biases), sizes), strict=True):
            one.bias.data = bias
    for one, weight in zip(layers, torch.split(weights, sizes), strict=True):
        one.weight.data = weight


def _by_input(given: Sequence[torch.Tensor]) -> torch.Tensor:
    """Weights (out, in) as one of all outputs, whose memory is input by input."""
    made = given[0].new_empty(given[0].shape[1], sum(map(len, given))).t()
    rows = torch.split(made, [len(one) for one in given])
    for target, source in zip(rows, given, strict=True):
        # Blocks that stay in the caches: a whole matrix of words takes twice the time.
        for place in range(0, len(source), _OUTPUTS_AT_A_TIME):
            block = slice(place, place + _OUTPUTS_AT_A_TIME)
            target[block] = source[block]
    return made


def _joined(layers: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None] | None:
    """Weight and bias of layers as one, without a copy; None if they don't lie together, or are no plain layers."""
    if not all(_suits(one) for one in layers):
        return None
    if len(layers) == 1:
        return layers[0].weight, layers[0].bias
    weights, biases = [one.weight for one in layers], [one.bias for one in layers]
    if any(one is None for one in biases) or not (_is_one_piece(weights) and _is_one_piece(biases)):
        return None
    n_outputs = sum(map(len, weights))
    weight = weights[0].as_strided((n_outputs, weights[0].shape[1]), weights[0].stride())
    return weight, biases[0].as_strided((n_outputs,), (1,))


def _is_one_piece(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether each tensor begins where the one before ends along its first dimension, in the same memory."""
    first, place = tensors[0], tensors[0].storage_offset()
    memory = first.untyped_storage().data_ptr()
    for one in tensors:
        if (one.untyped_storage().data_ptr(), one.storage_offset(), one.stride()) != (memory, place, first.stride()):
            return False
        place += len(one) * one.stride(0)
    return True


def _suits(layer: Any) -> bool:
    return (
        type(layer) is nn.Linear
        and layer.weight.dtype is torch.float32
        and layer.weight.device.type == "cpu"
        and onednn_is_right(torch.float32)
        and not torch.is_autocast_enabled("cpu")
    )
