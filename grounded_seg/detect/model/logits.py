"""Logits in float32 where a model's weights are not.

Half precision costs accuracy where the logits are rounded: bfloat16 keeps 8 bits, so a logit near 20 moves in steps of
an eighth, and with it the score and the place of a box. The whole head in float32 would read twice the bytes, and the
head is a large part of what a step of the decoder reads. So all logits are made in half precision, and those that
matter once more in float32: of the 1000 locations, and of the best few tokens beside them.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

N_BEST = 8
"""Tokens beside the locations whose logits are made again: more than beams compare for one answer."""


def use_float32_logits(network: Any, location_ids: Sequence[int], dtype: torch.dtype) -> None:
    """Convert a Florence-2 in float32 to a dtype of fewer bits, but for its logits, which stay float32.

    The network is changed in place, on its device; the names of its tensors stay. A head that an adapter beside the
    weights tunes stays in float32 as a whole.
    """
    head = network.lm_head
    if not isinstance(head, nn.Linear):
        # peft's layer, which never shares the word embeddings' matrix.
        network.model.to(dtype=dtype)
        head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
        return
    ids = torch.tensor(location_ids, device=head.weight.device)
    rows = head.weight.detach()[ids].clone()
    network.to(dtype=dtype)
    network.lm_head.forward = partial(_logits, head, ids, rows)


def _logits(head: nn.Linear, ids: torch.Tensor, rows: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """The `forward` of a head in half precision: float32 logits, (..., vocabulary), of states (..., width).

    `ids` are the locations, `rows` their weights in float32, (1000, width).
    """
    logits = F.linear(states, head.weight).float()
    exact = states.float()
    # Not the locations: their logits are replaced in any case.
    best = logits.index_fill(-1, ids, -torch.inf).topk(min(N_BEST, logits.shape[-1] - len(ids)), dim=-1).indices
    again = (head.weight[best].float() @ exact[..., None])[..., 0]
    return logits.scatter_(-1, best, again).index_copy_(-1, ids, F.linear(exact, rows))
